"""Keys and signatures: the bytes that BOINC's own tools make, computed here a second way."""

import hashlib
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.boinc.signing import PublicKey, SigningKey, check_signature
from tests.unit.cli.conftest import Type, tides  # noqa: F401 - the fixture

KEY = SigningKey.generate()
URL = "https://project.example/lab/"


def sign_by_hand(url: str) -> str:
    """RSA with nothing but whole numbers: padding of type 1 around the hex of the MD5."""
    private = load_pem_private_key(KEY.to_pem(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    numbers = private.private_numbers()
    digest = hashlib.md5(url.encode()).hexdigest().encode()
    padded = b"\0\1" + b"\xff" * 93 + b"\0" + digest
    signed = pow(int.from_bytes(padded, "big"), numbers.d, numbers.public_numbers.n)
    text = signed.to_bytes(128, "big").hex()
    return "".join(text[at : at + 64] + "\n" for at in range(0, 256, 64)) + ".\n"


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=250))
def test_a_signature_is_what_the_arithmetic_says(url: str) -> None:
    signature = KEY.sign(url)

    assert signature == sign_by_hand(url)
    assert KEY.public.verifies(url, signature)
    assert not KEY.public.verifies(url + "/", signature)


def test_the_public_text_holds_the_key_in_lines_of_64_from_column_0() -> None:
    lines = KEY.public.text.split("\n")

    assert lines[0] == "1024"
    assert [len(line) for line in lines[1:-2]] == [64] * 8
    assert lines[-2:] == [".", ""]
    assert KEY.public.exponent == 65537
    assert int("".join(lines[5:9]), 16) == 65537


def test_a_key_survives_its_file() -> None:
    again = SigningKey.from_pem(KEY.to_pem())

    assert (again.public, again.sign(URL)) == (KEY.public, KEY.sign(URL))
    assert "BEGIN" not in repr(again)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\n  "),
        lambda text: text.upper().replace("1024", "1024", 1),
        lambda text: text[:-1],
        lambda text: text + "\n",
        lambda text: text.replace("0", "g", 1),
        lambda text: text[64:],
        lambda _text: "",
    ],
)
def test_what_a_newer_client_refuses_is_no_key_and_no_signature(spoil: "object") -> None:
    assert callable(spoil)
    with pytest.raises(ValueError, match="signing key"):
        PublicKey(spoil(KEY.public.text))
    with pytest.raises(ValueError, match="signature"):
        check_signature(spoil(KEY.sign(URL)))


@pytest.mark.parametrize("size", [2048])
def test_no_other_size_or_kind_of_key(size: int) -> None:
    with pytest.raises(ValueError, match="1024"):
        SigningKey(rsa.generate_private_key(65537, size))
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match="RSA"):
        SigningKey.from_pem(pem)
    with pytest.raises(ValueError, match="readable"):
        SigningKey.from_pem(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")


def test_keygen_and_sign_need_no_network_and_agree(tides: Type, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "key.pem"
    made = tides("boinc", "keygen", "--out", str(file))
    signed = tides("boinc", "sign", URL, "--key", str(file))

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert PublicKey(made.out).verifies(URL, signed.out)
    assert (made.code, signed.code) == (0, 0)


def test_a_key_is_never_overwritten(tides: Type, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "key.pem"
    file.write_text("precious")

    said = tides("boinc", "keygen", "--out", str(file))

    assert (said.code, said.out, file.read_text()) == (1, "", "precious")
    assert "never overwritten" in said.err


@pytest.mark.parametrize(
    ("url", "remedy"),
    [("https://project.example/lab", "https://project.example/lab/"), ("lab", "master URL")],
)
def test_only_the_exact_address_is_signed(tides: Type, tmp_path: Path, url: str, remedy: str) -> None:  # noqa: F811
    file = tmp_path / "key.pem"
    tides("boinc", "keygen", "--out", str(file))

    said = tides("boinc", "sign", url, "--key", str(file))

    assert (said.code, said.out) == (1, "")
    assert remedy in said.err


@pytest.mark.parametrize("content", [None, b"", b"\x00\xff", b"1024\nabc\n"])
def test_a_file_that_is_no_key_is_refused_in_one_line(
    tides: Type,  # noqa: F811
    tmp_path: Path,
    content: bytes | None,
) -> None:
    file = tmp_path / "other"
    if content is not None:
        file.write_bytes(content)

    said = tides("boinc", "sign", URL, "--key", str(file))

    assert (said.code, said.out, len(said.err.splitlines())) == (1, "", 1)
    assert "--key" in said.err
