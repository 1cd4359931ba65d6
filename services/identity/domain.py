"""The rules of identity, pure: names, passwords, lock-out, lifetimes."""

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}")
MIN_PASSWORD = 12
MAX_PASSWORD = 256

MAX_ATTEMPTS = 5
WINDOW = timedelta(minutes=15)
LOCKED_FOR = timedelta(minutes=15)

TOKEN_DAYS = 90
MAX_TOKEN_DAYS = 365
SESSION_LIFETIME = timedelta(hours=12)
KEEP_ENDED_SESSIONS = timedelta(days=7)
NOTE_USE_EVERY = timedelta(minutes=1)
"""How exactly `last_used_at` is kept: an exchange is no write each time."""

ADMIN = "admin"
SERVICE = "service"


def why_not_password(password: str, name: str) -> str | None:
    """What is wrong with a new password of this user, in words; None if nothing is."""
    if len(password) < MIN_PASSWORD:
        return f"must have at least {MIN_PASSWORD} characters"
    if len(password) > MAX_PASSWORD:
        return f"must have at most {MAX_PASSWORD} characters"
    if password.casefold() == name.casefold() or password.casefold().replace(name.casefold(), "") == "":
        return "must not be the user's name"
    if len(set(password)) < 4:
        return "must have at least 4 different characters"
    return None


@dataclass(frozen=True, slots=True)
class Attempts:
    """Log-in attempts under one name that have not succeeded; the name need not exist."""

    count: int
    since: datetime
    locked_until: datetime | None = None

    def is_locked(self, now: datetime) -> bool:
        """Whether no attempt is looked at now, right or wrong."""
        return self.locked_until is not None and now < self.locked_until


def count_attempt(before: Attempts | None, now: datetime) -> Attempts:
    """The attempts with this one, counted before its password is looked at: parallel guesses all count.

    The attempt itself is looked at unless `before` was locked. Success forgets them all.
    """
    if before is not None and before.is_locked(now):
        return before
    if before is None or before.locked_until is not None or now - before.since >= WINDOW:
        return Attempts(1, now)
    after = replace(before, count=before.count + 1)
    return replace(after, locked_until=now + LOCKED_FOR) if after.count >= MAX_ATTEMPTS else after


def is_valid(expires_at: datetime, revoked_at: datetime | None, now: datetime) -> bool:
    """Whether a token still speaks for its user."""
    return revoked_at is None and now < expires_at
