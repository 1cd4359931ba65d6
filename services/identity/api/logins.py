"""Logging in and out, and one's own account."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from libs.common.auth import Role, public
from libs.common.errors import conflict, invalid
from services.identity.api.door import AccessOut, Anyone, Body, Door, HasDoor, Password
from services.identity.domain import why_not_password
from services.identity.models import User
from services.identity.usecases import logins, tokens, users
from services.identity.usecases.auditing import What, note

router = APIRouter(tags=["logins"])


class LoginIn(Body):
    """Name and password."""

    name: Annotated[str, Field(max_length=200)]
    password: Password


class LoginOut(AccessOut):
    """An access token now, and a session token to exchange for the next ones at `/v1/tokens/exchange`."""

    session_token: Annotated[str, Field(repr=False)]
    session_expires_at: datetime


class MeOut(BaseModel):
    """Who the caller is."""

    id: UUID
    name: str
    role: Role
    organisation_id: UUID
    has_password: bool


class PasswordIn(Body):
    """A new password. The current one is needed where there is one."""

    current_password: Password | None = None
    new_password: Password


@router.post("/v1/sessions", status_code=201, dependencies=[Depends(public)])
async def log_in(body: LoginIn, door: HasDoor) -> LoginOut:
    """Log in with name and password. Five wrong ones within 15 minutes lock the name for 15 minutes."""
    attempt = await _pass(door, body.name.strip().lower(), body.password)
    async with door.database.transaction() as session:
        user = await logins.finish_login(session, attempt, door.now())
        note(session, door.by(user), What.LOGGED_IN, user, door.now(), failures_before=attempt.failures)
        fresh = tokens.start_session(session, user, door.now())
    access = door.signer.sign(tokens.principal_of(user, fresh.token.id))
    return LoginOut(access_token=access, session_token=fresh.text, session_expires_at=fresh.token.expires_at)


@router.delete("/v1/sessions/current", status_code=204)
async def log_out(caller: Anyone, door: HasDoor) -> None:
    """End the login that the access token was made by."""
    async with door.database.transaction() as session:
        await tokens.end_session(session, caller.token_id, door.now())
        note(session, door.by(caller), What.LOGGED_OUT, None, door.now())
    door.void([caller.token_id])


@router.get("/v1/me")
async def read_me(caller: Anyone, door: HasDoor) -> MeOut:
    """The caller, as they are now."""
    async with door.database.transaction() as session:
        user = await users.caller_of(session, caller.user_id)
    return MeOut(
        id=user.id,
        name=user.name,
        role=Role(user.role),
        organisation_id=user.organisation_id,
        has_password=user.password_hash is not None,
    )


@router.put("/v1/me/password", status_code=204)
async def change_my_password(body: PasswordIn, caller: Anyone, door: HasDoor) -> None:
    """Set a new password; every login of the caller ends."""
    refuse_weak(body.new_password, caller.name, "new_password")
    async with door.database.transaction() as session:
        user = await users.caller_of(session, caller.user_id)
    await _check_current(door, user, body.current_password)
    new_hash = await door.passwords.hash(body.new_password)
    async with door.database.transaction() as session:
        again = await users.caller_of(session, caller.user_id, to_change=True)
        if again.password_hash != user.password_hash:
            raise conflict("The password has been changed in the meantime.")
        void = await users.set_password(session, again, new_hash, door.now())
        note(session, door.by(caller), What.PASSWORD_SET, again, door.now(), logins_ended=len(void))
    door.void(void)


def refuse_weak(password: str, name: str, field: str) -> None:
    """Raises 422 with the rule that is broken."""
    if (why := why_not_password(password, name)) is not None:
        raise invalid(field, f"The password {why}.")


async def _check_current(door: Door, user: User, given: str | None) -> None:
    if user.password_hash is None:
        return
    if given is None:
        raise invalid("current_password", "The current password is needed.")
    attempt = await _pass(door, user.name, given)
    async with door.database.transaction() as session:
        await logins.finish_login(session, attempt, door.now())


async def _pass(door: Door, name: str, password: str) -> logins.Attempt:
    async with door.database.transaction() as session:
        attempt = await logins.begin_login(session, name, door.by(None), door.now())
    if not await door.passwords.matches(password, attempt.password_hash):
        raise logins.refuse_login()
    return attempt
