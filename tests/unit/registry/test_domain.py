"""What may be registered."""

import pytest

from services.registry.domain import NotAcceptable, check_thumbprint, check_url, instance_url, seen_thumbprint

SHA256 = ":".join(["aB"] * 32)


@pytest.mark.parametrize(
    "url",
    [
        "https://vc.example",
        "https://vc.example:8443/sdk",
        "sim://cloud",
        "sim:///tmp/cloud.json",
        "https://[::1]/",
    ],
)
def test_addresses_that_can_be_asked(url: str) -> None:
    assert check_url(f" {url} ") == url


@pytest.mark.parametrize(
    "url",
    [
        "", "vc.example", "https://", "https://user:secret@vc.example", "https://@vc.example", "https://vc.example:0",
        "https://vc.example/#x", "https://vc example", "https://vc.example\r\nHost: evil", "//vc.example",
    ],
)  # fmt: skip
def test_addresses_that_cannot(url: str) -> None:
    with pytest.raises(NotAcceptable) as refused:
        check_url(url)
    assert refused.value.field == "url"
    assert refused.value.remedy
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("text", [SHA256, SHA256.replace(":", "")])
def test_fingerprints(text: str) -> None:
    assert check_thumbprint(text) == text


@pytest.mark.parametrize("text", ["ab", SHA256[:-3], SHA256 + ":00", "g" * 64, ":".join(["01"] * 20)])
def test_no_fingerprints(text: str) -> None:
    with pytest.raises(NotAcceptable):
        check_thumbprint(text)


def test_no_fingerprint_is_none() -> None:
    assert check_thumbprint(None) is check_thumbprint("  ") is None


def test_the_fingerprint_in_a_drivers_words() -> None:
    assert seen_thumbprint(f"certificate verify failed (SHA-256 {SHA256}): self-signed") == SHA256
    assert seen_thumbprint(f"the certificate is {'0f' * 32}.") == "0f" * 32
    assert seen_thumbprint("certificate verify failed") is None


def test_a_cloud_under_its_own_id() -> None:
    assert instance_url("https://vc.example:8443/sdk", "AB-12") == "https://ab-12/sdk"
    assert instance_url("sim:///tmp/cloud.json", "ab-12") == "sim://ab-12"
    assert instance_url("https://vc.example", "") is None
    assert instance_url("https://vc.example", "../x") is None
