"""Users, for administrators."""

from datetime import datetime
from uuid import UUID

import structlog
from fastapi import APIRouter, Response
from pydantic import BaseModel

from libs.common.auth import Role
from libs.common.paging import Cursor, IfMatch, Limit, Page, page_of, read_cursor, require_match, set_etag
from libs.common.repeats import HasOnce
from services.identity.api.door import Admin, Body, HasDoor, Name, Password
from services.identity.api.logins import refuse_weak
from services.identity.models import User
from services.identity.usecases import users
from services.identity.usecases.auditing import What, note

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/v1/users", tags=["users"])


class UserIn(Body):
    """A new user. Without a password they come in by a token that an administrator makes for them."""

    name: Name
    role: Role
    organisation_id: UUID | None = None
    """None: the caller's own."""
    password: Password | None = None


class UserChangeIn(Body):
    """What is to be another; what is left out stays."""

    role: Role | None = None
    disabled: bool | None = None


class PasswordIn(Body):
    """A new password."""

    password: Password


class UserOut(BaseModel):
    """A user as it may be shown."""

    id: UUID
    organisation_id: UUID
    name: str
    role: Role
    has_password: bool
    disabled: bool
    revision: int
    created_at: datetime
    updated_at: datetime


@router.get("")
async def list_users(
    _caller: Admin, door: HasDoor, limit: Limit = 50, cursor: Cursor = None
) -> Page[UserOut]:
    """Every user, by name."""
    after = read_cursor(cursor, str)[0] if cursor is not None else None
    async with door.database.transaction() as session:
        rows = await users.list_users(session, after, limit + 1)
    return page_of(rows, limit, _shown, lambda user: (user.name,))


@router.post("", status_code=201)
async def create_user(
    body: UserIn, caller: Admin, door: HasDoor, response: Response, once: HasOnce
) -> UserOut:
    """Let somebody in."""
    password_hash = None
    if body.password is not None:
        refuse_weak(body.password, body.name, "password")
        password_hash = await door.passwords.hash(body.password)
    new = users.NewUser(body.name, body.role, body.organisation_id or caller.organisation_id, password_hash)
    async with once.transaction(door.database) as session:
        user = await users.create_user(session, new, door.now())
        organisation = str(user.organisation_id)
        note(
            session,
            door.by(caller),
            What.USER_CREATED,
            user,
            door.now(),
            role=user.role,
            organisation=organisation,
        )
        set_etag(response, user.revision)
        shown = once.answers(_shown(user))
    log.info("user.created", user=str(user.id), role=user.role, by=str(caller.user_id))
    return shown


@router.get("/{user_id}")
async def read_user(user_id: UUID, _caller: Admin, door: HasDoor, response: Response) -> UserOut:
    """One user; the ETag is needed to change them."""
    async with door.database.transaction() as session:
        user = await users.user_of(session, user_id)
    set_etag(response, user.revision)
    return _shown(user)


@router.patch("/{user_id}")
async def change_user(
    user_id: UUID,
    body: UserChangeIn,
    caller: Admin,
    door: HasDoor,
    response: Response,
    if_match: IfMatch = None,
) -> UserOut:
    """Change role, disable or enable. Voids every token of the user; the last administrator stays."""
    async with door.database.transaction() as session:
        user = await users.user_of(session, user_id, to_change=True)
        require_match(if_match, user.revision)
        before = {"role": user.role, "disabled": user.disabled_at is not None}
        void = await users.change_user(session, user, users.Change(body.role, body.disabled), door.now())
        after = {"role": user.role, "disabled": user.disabled_at is not None}
        if before != after:
            facts = {"before": before, "after": after, "tokens_revoked": len(void)}
            note(session, door.by(caller), What.USER_CHANGED, user, door.now(), **facts)
    door.void(void)
    log.info("user.changed", user=str(user.id), role=user.role, by=str(caller.user_id))
    set_etag(response, user.revision)
    return _shown(user)


@router.put("/{user_id}/password", status_code=204)
async def set_password(user_id: UUID, body: PasswordIn, caller: Admin, door: HasDoor) -> None:
    """Give a user a password, for the first time or because they forgot theirs; their logins end."""
    async with door.database.transaction() as session:
        user = await users.user_of(session, user_id)
    refuse_weak(body.password, user.name, "password")
    password_hash = await door.passwords.hash(body.password)
    async with door.database.transaction() as session:
        user = await users.user_of(session, user_id, to_change=True)
        void = await users.set_password(session, user, password_hash, door.now())
        note(session, door.by(caller), What.PASSWORD_SET, user, door.now(), logins_ended=len(void))
    door.void(void)
    log.info("user.password_set", user=str(user.id), by=str(caller.user_id))


def _shown(user: User) -> UserOut:
    return UserOut(
        id=user.id,
        organisation_id=user.organisation_id,
        name=user.name,
        role=Role(user.role),
        has_password=user.password_hash is not None,
        disabled=user.disabled_at is not None,
        revision=user.revision,
        created_at=user.created_at,
        updated_at=user.updated_at,
    )
