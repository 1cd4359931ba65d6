"""Who changed what in identity, when and from where: rows that are added and never touched again. No secret."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import select

from libs.common.db import Session
from libs.common.ids import new_id
from services.identity.models import Audit, Organisation, Token, User


class What(StrEnum):
    """What happened. A name that no user has is never written down: it may be a password in the wrong field."""

    STARTED = "identity.started"
    ORGANISATION_CREATED = "organisation.created"
    USER_CREATED = "user.created"
    USER_CHANGED = "user.changed"
    PASSWORD_SET = "user.password_set"
    TOKEN_CREATED = "token.created"
    TOKEN_REVOKED = "token.revoked"
    LOGGED_IN = "login.succeeded"
    LOGGED_OUT = "login.ended"
    LOGIN_FAILED = "login.failed"
    LOGIN_LOCKED = "login.locked"


@dataclass(frozen=True, slots=True)
class By:
    """Who acts, and from where; neither is known of a beat, and only the address of who has not logged in."""

    user_id: UUID | None = None
    name: str | None = None
    address: str | None = None


def note(
    session: Session,
    by: By,
    what: What,
    about: User | Organisation | Token | None,
    now: datetime,
    **details: Any,
) -> None:
    """Add a row in this transaction. `details` are plain and hold no secret."""
    name = about.label if isinstance(about, Token) else about.name if about is not None else None
    session.add(
        Audit(
            id=new_id(),
            at=now,
            what=what,
            by_user_id=by.user_id,
            by_name=by.name,
            from_address=by.address,
            about_id=about.id if about is not None else None,
            about_name=name,
            details=details,
        )
    )


async def list_audit(session: Session, after: UUID | None, limit: int) -> Sequence[Audit]:
    """Newest first, up to `limit`, beginning below an id."""
    query = select(Audit).order_by(Audit.id.desc()).limit(limit)
    return (await session.scalars(query.where(Audit.id < after) if after is not None else query)).all()
