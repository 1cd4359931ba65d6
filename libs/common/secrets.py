"""Sealing of secrets: AES-GCM with a key id and associated data, so that keys rotate and context cannot be swapped."""

import base64
import binascii
import os
from collections.abc import Mapping
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
KEY_BYTES = 32


class Unsealable(Exception):
    """The sealed text was made with another key, for another context, or is damaged. Says which, never what."""


class Vault:
    """Seals and opens small secrets. The newest key seals; every known key opens.

    `keys` maps key id to 32 raw bytes, newest last. The sealed form is `<key id>.<urlsafe base64 of nonce and text>`.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise ValueError("a vault needs at least one key: set TIDES_SEALING_KEYS to id:base64")
        for name, key in keys.items():
            if len(key) != KEY_BYTES or "." in name or not name:
                raise ValueError(
                    f"sealing key {name!r} must have an id without dots and exactly {KEY_BYTES} bytes"
                )
        self._ciphers = {name: AESGCM(key) for name, key in keys.items()}
        self.key_ids = tuple(keys)
        self.current_key_id = self.key_ids[-1]

    def seal(self, secret: str, context: bytes) -> str:
        """Seal with the newest key; only the same context opens it again."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self.current_key_id].encrypt(nonce, secret.encode(), context)
        return f"{self.current_key_id}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, context: bytes) -> str:
        """The secret. Raises Unsealable."""
        key_id, _, text = sealed.partition(".")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise Unsealable(f"sealed with key {key_id!r}, which this process does not have")
        try:
            raw = base64.b64decode(text, altchars=b"-_", validate=True)
            return cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], context).decode()
        except (InvalidTag, binascii.Error, ValueError):
            raise Unsealable(
                "sealed for another address or pin, or damaged: enter the secret again"
            ) from None

    def reseal(self, sealed: str, context: bytes) -> str:
        """The same secret under the newest key. Raises Unsealable."""
        return self.seal(self.open(sealed, context), context)


def parse_keys(text: str) -> dict[str, bytes]:
    """Read `id:base64,id:base64` (newest last). Raises ValueError that names the setting, not the key."""
    keys: dict[str, bytes] = {}
    for part in filter(None, (item.strip() for item in text.split(","))):
        name, _, encoded = part.partition(":")
        try:
            keys[name] = base64.b64decode(encoded, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("TIDES_SEALING_KEYS: each key is id:base64 of 32 bytes") from None
    return keys


def fresh_key() -> str:
    """A new random key in the form that `parse_keys` reads, without an id."""
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()


def authenticator_context(contribution_id: UUID) -> bytes:
    """The associated data of a contribution's sealed project key."""
    return b"contribution/" + str(contribution_id).encode()


def account_context(account_id: UUID, what: str) -> bytes:
    """The associated data of what is sealed of an account at a project: its login, strong or weak key."""
    return f"account/{account_id}/{what}".encode()


def guest_token_context(machine_id: UUID) -> bytes:
    """The associated data of a machine's sealed token."""
    return machine_id.bytes
