"""The text of a personal API token: `tides_<id>_<secret>`, 256 random bits; only their hash is stored."""

import hashlib
import hmac
import re
import secrets
from uuid import UUID

from libs.common.ids import new_id

_FORM = re.compile(r"tides_([0-9a-f]{32})_([A-Za-z0-9_-]{43})")


def fresh() -> str:
    """A new token; its id is time-ordered, its secret is shown to one person once."""
    return f"tides_{new_id().hex}_{secrets.token_urlsafe(32)}"


def parse(text: str) -> tuple[UUID, str] | None:
    """Id and secret; None if the text has another form."""
    match = _FORM.fullmatch(text)
    return (UUID(match[1]), match[2]) if match else None


def digest(secret: str) -> str:
    """What is stored. A plain hash is enough: the secret has 256 bits of entropy."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, stored_digest: str) -> bool:
    """Whether the secret is the one stored, in constant time."""
    return hmac.compare_digest(digest(secret), stored_digest)
