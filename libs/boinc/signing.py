"""BOINC's signatures: RSA of 1024 bits over the MD5 of an address, as text that never differs by one byte.

Weak by today's measure and not ours to change; what protects is TLS, and that the private key is on no server.
Source: BOINC `lib/crypt.cpp`; a client pins the text of the key it saw first, so it must stay the same for ever.
"""

import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

BITS = 1024
_BYTES = BITS // 8
_EXPONENT = 65537
_LINE = 64
_BLOCK = re.compile(r"(?:[0-9a-f]{64}\n)+\.\n")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A signing key's public half, exactly as it stands in replies and in a client's `acct_mgr_url.xml`."""

    text: str

    def __post_init__(self) -> None:
        head, _, rest = self.text.partition("\n")
        if head != str(BITS) or not _BLOCK.fullmatch(rest) or len(_hex(rest)) != 4 * _BYTES:
            raise ValueError("signing key: must be the text that `tides boinc keygen` printed, unchanged")
        if self.exponent % 2 == 0 or self.modulus % 2 == 0 or self.modulus.bit_length() != BITS:
            raise ValueError("signing key: these numbers are no RSA key")

    @property
    def modulus(self) -> int:
        """n."""
        return int(_hex(self.text.partition("\n")[2])[: 2 * _BYTES], 16)

    @property
    def exponent(self) -> int:
        """e."""
        return int(_hex(self.text.partition("\n")[2])[2 * _BYTES :], 16)

    def verifies(self, url: str, signature: str) -> bool:
        """Whether the signature block is this key's for exactly this address."""
        try:
            check_signature(signature)
            key = rsa.RSAPublicNumbers(self.exponent, self.modulus).public_key()
            signed = bytes.fromhex(_hex(signature))
            return key.recover_data_from_signature(signed, padding.PKCS1v15(), None) == _digest(url.encode())
        except (ValueError, InvalidSignature):
            return False


class SigningKey:
    """A signing key with its private half; for the command line, in no service."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        numbers = key.public_key().public_numbers()
        if key.key_size != BITS or numbers.e != _EXPONENT:
            raise ValueError(f"is no RSA key of {BITS} bits, which is the only size that BOINC takes")
        self._key = key
        self.public = PublicKey(
            f"{BITS}\n" + _block(numbers.n.to_bytes(_BYTES, "big") + numbers.e.to_bytes(_BYTES, "big"))
        )

    def __repr__(self) -> str:
        return "SigningKey()"

    @classmethod
    def generate(cls) -> "SigningKey":
        """A fresh one."""
        return cls(rsa.generate_private_key(public_exponent=_EXPONENT, key_size=BITS))

    @classmethod
    def from_pem(cls, pem: bytes) -> "SigningKey":
        """The key in an unencrypted PEM file. Raises ValueError with a sentence that quotes nothing."""
        try:
            key = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("holds no readable private key") from None
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ValueError("holds a key that is not RSA")
        return cls(key)

    def to_pem(self) -> bytes:
        """The file that `from_pem` reads."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, url: str) -> str:
        """The signature block of an address: of exactly these characters."""
        return self.sign_bytes(url.encode())

    def sign_bytes(self, content: bytes) -> str:
        """The signature block of a content, as for a program that a project ships."""
        return _block(self._key.sign(_digest(content), padding.PKCS1v15(), _RAW))


def check_signature(text: str) -> None:
    """Insist on a signature block: lines of 64 hex digits from column 0, a dot. Raises ValueError."""
    if not _BLOCK.fullmatch(text) or len(_hex(text)) != 2 * _BYTES:
        raise ValueError("signature: must be the block that `tides boinc sign` printed, unchanged")


_RAW = utils.NoDigestInfo()


def _digest(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).hexdigest().encode()


def _block(content: bytes) -> str:
    text = content.hex()
    return "".join(f"{text[at : at + _LINE]}\n" for at in range(0, len(text), _LINE)) + ".\n"


def _hex(block: str) -> str:
    return block.replace("\n", "").removesuffix(".")
