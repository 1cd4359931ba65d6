"""The cloud's password rests as a salted hash: a cloud file that is read gives no login away."""

import hashlib
import hmac
import secrets


def fresh_salt() -> str:
    """Random, hexadecimal."""
    return secrets.token_hex(16)


def hash_password(password: str, salt: str) -> str:
    """Slow on purpose (scrypt), hexadecimal."""
    return hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=2**12, r=8, p=1).hex()


def is_password(password: str, salt: str, expected: str) -> bool:
    """Whether it is the cloud's, compared in constant time."""
    return hmac.compare_digest(hash_password(password, salt), expected)
