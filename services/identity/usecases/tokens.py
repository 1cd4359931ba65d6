"""Personal tokens and logins: made, exchanged, voided."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import delete, select, update

from libs.common import personal_tokens
from libs.common.auth import Principal, Role
from libs.common.contracts.supply import TokenRevoked
from libs.common.db import Session
from libs.common.errors import Problem, conflict, not_found, unauthorised
from services.identity.domain import KEEP_ENDED_SESSIONS, NOTE_USE_EVERY, SESSION_LIFETIME, is_valid
from services.identity.models import Token, User

MAX_TOKENS = 100


class Kind(StrEnum):
    """Where a token comes from."""

    PERSONAL = "personal"
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class Fresh:
    """A token whose text is shown this once."""

    text: str = field(repr=False)
    token: Token


def refuse_token() -> Problem:
    """One answer for unknown, wrong, expired, revoked and disabled: it tells nothing."""
    return unauthorised("This token is not valid.", "Make a new one, or log in again.")


async def make_token(session: Session, user: User, label: str, days: int, now: datetime) -> Fresh:
    """A personal token. Raises 409 for a disabled user and for too many."""
    if user.disabled_at is not None:
        raise conflict("This user is disabled.")
    living = select(Token.id).where(
        Token.user_id == user.id,
        Token.kind == Kind.PERSONAL,
        Token.revoked_at.is_(None),
        Token.expires_at > now,
    )
    if len((await session.scalars(living)).all()) >= MAX_TOKENS:
        raise conflict(f"A user may have {MAX_TOKENS} tokens.", "Revoke some that are not used any more.")
    return add_token(
        session, user, personal_tokens.fresh(), Kind.PERSONAL, label, now + timedelta(days=days), now
    )


def start_session(session: Session, user: User, now: datetime) -> Fresh:
    """The token of a login, exchanged as a personal one is."""
    return add_token(
        session, user, personal_tokens.fresh(), Kind.SESSION, "login", now + SESSION_LIFETIME, now
    )


def add_token(  # noqa: PLR0913, PLR0917 - the row itself
    session: Session, user: User, text: str, kind: Kind, label: str, expires_at: datetime, now: datetime
) -> Fresh:
    """Store the hash of this token's secret."""
    parsed = personal_tokens.parse(text)
    if parsed is None:
        raise ValueError("not the text of a token")
    token_id, secret = parsed
    token = Token(
        id=token_id,
        user_id=user.id,
        kind=kind,
        label=label,
        secret_sha256=personal_tokens.digest(secret),
        created_at=now,
        expires_at=expires_at,
    )
    session.add(token)
    return Fresh(text, token)


async def exchange(session: Session, text: str, now: datetime) -> Principal:
    """Whom the token speaks for. Raises 401, always the same."""
    parsed = personal_tokens.parse(text)
    if parsed is None:
        raise refuse_token()
    token_id, secret = parsed
    found = (await session.execute(select(Token, User).join(User).where(Token.id == token_id))).first()
    if found is None:
        raise refuse_token()
    token, user = found
    right = personal_tokens.matches(secret, token.secret_sha256)
    if not right or user.disabled_at is not None or not is_valid(token.expires_at, token.revoked_at, now):
        raise refuse_token()
    if token.last_used_at is None or now - token.last_used_at >= NOTE_USE_EVERY:
        token.last_used_at = now
    return principal_of(user, token.id)


def principal_of(user: User, token_id: UUID) -> Principal:
    """What an access token says of this user."""
    return Principal(user.id, user.name, Role(user.role), user.organisation_id, token_id)


async def list_tokens(session: Session, user_id: UUID, after: UUID | None, limit: int) -> Sequence[Token]:
    """Personal tokens of a user by age, newest first, up to `limit`, beginning below an id."""
    query = select(Token).where(Token.user_id == user_id, Token.kind == Kind.PERSONAL)
    query = query.where(Token.id < after) if after is not None else query
    return (await session.scalars(query.order_by(Token.id.desc()).limit(limit))).all()


async def revoke_token(session: Session, token_id: UUID, owner: UUID | None, now: datetime) -> Token | None:
    """Void one token; of this owner, unless None. The token; None if it was void already. Raises 404."""
    token = await session.get(Token, token_id, with_for_update=True)
    if token is None or (owner is not None and token.user_id != owner):
        raise not_found("token")
    if token.revoked_at is not None:
        return None
    token.revoked_at = now
    session.emit(TokenRevoked(at=now, token_id=token.id))
    return token


async def end_session(session: Session, token_id: UUID, now: datetime) -> None:
    """Log out. Raises 409 where the access token was not made by a login."""
    token = await session.get(Token, token_id)
    if token is None or token.kind != Kind.SESSION:
        raise conflict("This is no login.", "Revoke the personal token instead.")
    await revoke_token(session, token_id, None, now)


async def revoke_all(
    session: Session, user_id: UUID, now: datetime, *, only_sessions: bool = False
) -> list[UUID]:
    """Void every living token of a user; their ids."""
    void = update(Token).where(Token.user_id == user_id, Token.revoked_at.is_(None), Token.expires_at > now)
    void = void.where(Token.kind == Kind.SESSION) if only_sessions else void
    revoked = list((await session.scalars(void.values(revoked_at=now).returning(Token.id))).all())
    for token_id in revoked:
        session.emit(TokenRevoked(at=now, token_id=token_id))
    return revoked


async def forget_sessions(session: Session, now: datetime) -> None:
    """Delete logins that ended long ago. Personal tokens stay: a person may ask what became of one."""
    ended = Token.expires_at < now - KEEP_ENDED_SESSIONS
    await session.execute(delete(Token).where(Token.kind == Kind.SESSION, ended))
