"""Logging in with a password, in two transactions: the attempt counts before the password is looked at."""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from libs.common.db import Session
from libs.common.errors import Problem, unauthorised
from services.identity.domain import LOCKED_FOR, WINDOW, Attempts, count_attempt
from services.identity.models import LoginAttempts, User
from services.identity.usecases.auditing import By, What, note


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt: what to compare the password with. None: with nothing, and it fails."""

    user_id: UUID | None
    password_hash: str | None = field(repr=False)
    failures: int = 0
    """Attempts before this one that count still."""


def refuse_login() -> Problem:
    """One answer for unknown, wrong, locked and disabled: it tells nothing."""
    minutes = int(LOCKED_FOR.total_seconds() // 60)
    return unauthorised(
        "Name or password is wrong, or this name is locked after too many attempts.",
        f"Check both; a locked name opens again after {minutes} minutes. A personal token always works.",
    )


async def begin_login(session: Session, name: str, by: By, now: datetime) -> Attempt:
    """Count an attempt under this name, which need not exist. The same writes are made in every case."""
    row = await _attempts_of(session, name, now)
    before = Attempts(row.count, row.since, row.locked_until) if row.count else None
    locked = before is not None and before.is_locked(now)
    after = count_attempt(before, now)
    row.count, row.since, row.locked_until = after.count, after.since, after.locked_until
    user = (await session.scalars(select(User).where(User.name == name))).first()
    _note_change(session, (before, after), by, user, now)
    if user is None or locked or user.disabled_at is not None:
        return Attempt(None, None)
    return Attempt(user.id, user.password_hash, after.count - 1)


async def finish_login(session: Session, attempt: Attempt, now: datetime) -> User:
    """The password was right: forget the attempts. Raises 401 if the user has been disabled meanwhile."""
    user = await session.get(User, attempt.user_id) if attempt.user_id else None
    if user is None or user.disabled_at is not None or user.password_hash != attempt.password_hash:
        raise refuse_login()
    await session.execute(delete(LoginAttempts).where(LoginAttempts.name_sha256 == _digest(user.name)))
    return user


async def forget_attempts(session: Session, now: datetime) -> None:
    """Delete attempts that no longer count; how many there were stays in the audit, by user, or of no user."""
    ended = delete(LoginAttempts).where(LoginAttempts.since < now - WINDOW - LOCKED_FOR)
    gone = (await session.scalars(ended.returning(LoginAttempts))).all()
    counts = {row.name_sha256: row.count for row in gone if row.locked_until is None and row.count}
    if not counts:
        return
    for user in (await session.scalars(select(User))).all():
        if attempts := counts.pop(_digest(user.name), 0):
            note(session, By(), What.LOGIN_FAILED, user, now, attempts=attempts)
    if counts:
        note(session, By(), What.LOGIN_FAILED, None, now, attempts=sum(counts.values()), names=len(counts))


def _note_change(
    session: Session,
    change: tuple[Attempts | None, Attempts],
    by: By,
    user: User | None,
    now: datetime,
) -> None:
    """Note what would be forgotten, or begins: attempts that lapsed, a lock. Alike for names that nobody has."""
    before, after = change
    if before is not None and before.locked_until is None and after.count == 1:
        note(session, by, What.LOGIN_FAILED, user, now, attempts=before.count)
    if after.locked_until is not None and before is not None and before.locked_until is None:
        note(session, by, What.LOGIN_LOCKED, user, now, attempts=after.count)


async def _attempts_of(session: Session, name: str, now: datetime) -> LoginAttempts:
    key = _digest(name)
    await session.execute(
        insert(LoginAttempts).values(name_sha256=key, count=0, since=now).on_conflict_do_nothing()
    )
    row = await session.get(LoginAttempts, key, with_for_update=True)
    if row is None:  # deleted by a login that succeeded between the two statements
        return await _attempts_of(session, name, now)
    return row


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
