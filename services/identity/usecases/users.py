"""Organisations and users."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from libs.common.db import Session
from libs.common.errors import Problem, conflict, invalid, not_found
from libs.common.ids import new_id
from services.identity.domain import ADMIN, SERVICE
from services.identity.models import Organisation, User
from services.identity.usecases.tokens import refuse_token, revoke_all


@dataclass(frozen=True, slots=True)
class NewUser:
    """What an administrator says of a new user."""

    name: str
    role: str
    organisation_id: UUID
    password_hash: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Change:
    """What may be changed in a user; None leaves it as it is."""

    role: str | None = None
    disabled: bool | None = None


async def create_user(session: Session, new: NewUser, now: datetime) -> User:
    """Raises 409 for a name that is taken, 422 for an organisation that does not exist."""
    if await session.get(Organisation, new.organisation_id) is None:
        raise invalid("organisation_id", "There is no such organisation.")
    if new.role == SERVICE and new.password_hash is not None:
        raise invalid("password", "A service has no password.", "Leave it out and make a token for it.")
    row = (
        insert(User)
        .values(
            id=new_id(),
            organisation_id=new.organisation_id,
            name=new.name,
            role=new.role,
            password_hash=new.password_hash,
            revision=1,
            created_at=now,
            updated_at=now,
        )
        .on_conflict_do_nothing(index_elements=[User.name])
        .returning(User)
    )
    user = (await session.scalars(row)).first()
    if user is None:
        raise conflict("This name is taken.", "Choose another one.", field="name")
    return user


async def user_of(session: Session, user_id: UUID, *, to_change: bool = False) -> User:
    """Raises 404. To change users is one person's turn at a time: nobody is the last administrator unseen."""
    if to_change:
        await session.execute(select(func.pg_advisory_xact_lock(func.hashtext("identity.users"))))
    user = await session.get(User, user_id, with_for_update=to_change)
    if user is None:
        raise not_found("user")
    return user


async def named_user(session: Session, user_id: UUID) -> User:
    """The user that a body names. Raises 422."""
    user = await session.get(User, user_id)
    if user is None:
        raise invalid("user_id", "There is no such user.", "List them at /v1/users.")
    return user


async def caller_of(session: Session, user_id: UUID, *, to_change: bool = False) -> User:
    """Who asks. Raises 401 where the access token is of a user that is not there."""
    try:
        return await user_of(session, user_id, to_change=to_change)
    except Problem:
        raise refuse_token() from None


async def list_users(session: Session, after: str | None, limit: int) -> Sequence[User]:
    """By name, up to `limit`, beginning after a name."""
    query = select(User).order_by(User.name).limit(limit)
    return (await session.scalars(query.where(User.name > after) if after is not None else query)).all()


async def change_user(session: Session, user: User, change: Change, now: datetime) -> list[UUID]:
    """Change a user; the ids of the tokens this voids. Raises 409 where nobody would be left to administrate.

    A change of role or disabling voids every token of the user: what they say of the role would be stale.
    """
    disabled_at = user.disabled_at
    if change.disabled is not None and change.disabled != (user.disabled_at is not None):
        disabled_at = now if change.disabled else None
    role = change.role or user.role
    if (role, disabled_at) == (user.role, user.disabled_at):
        return []
    if user.role == ADMIN and user.disabled_at is None and (role != ADMIN or disabled_at is not None):
        await _refuse_last_admin(session, user.id)
    if role == SERVICE:
        user.password_hash = None
    user.role, user.disabled_at = role, disabled_at
    _touch(user, now)
    return await revoke_all(session, user.id, now)


async def set_password(session: Session, user: User, password_hash: str, now: datetime) -> list[UUID]:
    """Give the user this password and end every login; the ids of the tokens this voids."""
    if user.role == SERVICE:
        raise conflict("A service has no password.", "Make a token for it.")
    user.password_hash = password_hash
    _touch(user, now)
    return await revoke_all(session, user.id, now, only_sessions=True)


async def create_organisation(session: Session, name: str, now: datetime) -> Organisation:
    """Raises 409 for a name that is taken."""
    row = insert(Organisation).values(id=new_id(), name=name, created_at=now)
    returned = row.on_conflict_do_nothing(index_elements=[Organisation.name]).returning(Organisation)
    organisation = (await session.scalars(returned)).first()
    if organisation is None:
        raise conflict("This name is taken.", "Choose another one.", field="name")
    return organisation


async def list_organisations(session: Session, after: str | None, limit: int) -> Sequence[Organisation]:
    """By name, up to `limit`, beginning after a name."""
    query = select(Organisation).order_by(Organisation.name).limit(limit)
    return (
        await session.scalars(query.where(Organisation.name > after) if after is not None else query)
    ).all()


def _touch(user: User, now: datetime) -> None:
    user.revision += 1
    user.updated_at = now


async def _refuse_last_admin(session: Session, user_id: UUID) -> None:
    able = select(User.id).where(User.role == ADMIN, User.disabled_at.is_(None), User.id != user_id)
    if (await session.scalars(able.limit(1))).first() is None:
        raise conflict("This is the last administrator.", "Make somebody else administrator before.")
