"""Personal API tokens: made once, exchanged for access tokens, revoked."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from libs.common.auth import Principal, Role, public
from libs.common.errors import forbidden
from libs.common.names import ONE_LINE
from libs.common.paging import Cursor, Limit, Page, page_of, read_cursor
from libs.common.repeats import HasOnce
from services.identity.api.door import AccessOut, Anyone, Body, HasDoor
from services.identity.domain import MAX_TOKEN_DAYS, TOKEN_DAYS
from services.identity.models import Token
from services.identity.usecases import tokens, users
from services.identity.usecases.auditing import What, note

router = APIRouter(prefix="/v1/tokens", tags=["tokens"])


class ExchangeIn(Body):
    """A personal token, or the token of a login."""

    token: Annotated[str, Field(max_length=200)]


class TokenIn(Body):
    """A new token; for oneself, or, by an administrator, for another user."""

    label: Annotated[str, Field(min_length=1, max_length=100), ONE_LINE]
    days: Annotated[int, Field(ge=1, le=MAX_TOKEN_DAYS)] = TOKEN_DAYS
    user_id: UUID | None = None


class TokenOut(BaseModel):
    """A personal token as it may be shown."""

    id: UUID
    user_id: UUID
    label: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None


class FreshTokenOut(TokenOut):
    """With its text, this once."""

    token: Annotated[str, Field(repr=False)]


@router.post("/exchange", dependencies=[Depends(public)])
async def exchange_token(body: ExchangeIn, door: HasDoor) -> AccessOut:
    """Exchange a token for an access token of ten minutes."""
    async with door.database.transaction() as session:
        principal = await tokens.exchange(session, body.token, door.now())
    return AccessOut(access_token=door.signer.sign(principal))


@router.post("", status_code=201)
async def create_token(body: TokenIn, caller: Anyone, door: HasDoor, once: HasOnce) -> FreshTokenOut:
    """Make a token. Its text is in this answer and nowhere else, ever."""
    user_id = _whose(caller, body.user_id)
    async with once.transaction(door.database) as session:
        user = await users.named_user(session, user_id)
        fresh = await tokens.make_token(session, user, body.label, body.days, door.now())
        until = fresh.token.expires_at.isoformat()
        note(
            session,
            door.by(caller),
            What.TOKEN_CREATED,
            fresh.token,
            door.now(),
            user=user.name,
            expires_at=until,
        )
        return once.answers(FreshTokenOut(**_shown(fresh.token).model_dump(), token=fresh.text))


@router.get("")
async def list_tokens(
    caller: Anyone, door: HasDoor, user_id: UUID | None = None, limit: Limit = 50, cursor: Cursor = None
) -> Page[TokenOut]:
    """The caller's tokens, or, for an administrator, another user's; newest first."""
    after = read_cursor(cursor, UUID)[0] if cursor is not None else None
    async with door.database.transaction() as session:
        rows = await tokens.list_tokens(session, _whose(caller, user_id), after, limit + 1)
    return page_of(rows, limit, _shown, lambda token: (str(token.id),))


@router.delete("/{token_id}", status_code=204)
async def revoke_token(token_id: UUID, caller: Anyone, door: HasDoor) -> None:
    """Void a token and every access token made from it, everywhere within seconds."""
    owner = None if caller.role is Role.ADMIN else caller.user_id
    async with door.database.transaction() as session:
        token = await tokens.revoke_token(session, token_id, owner, door.now())
        if token is not None:
            note(session, door.by(caller), What.TOKEN_REVOKED, token, door.now(), user_id=str(token.user_id))
    door.void([token_id])


def _whose(caller: Principal, user_id: UUID | None) -> UUID:
    if user_id is not None and user_id != caller.user_id and caller.role is not Role.ADMIN:
        raise forbidden("Only an administrator may do this for another user.", "Leave out user_id.")
    return user_id or caller.user_id


def _shown(token: Token) -> TokenOut:
    return TokenOut(
        id=token.id,
        user_id=token.user_id,
        label=token.label,
        created_at=token.created_at,
        expires_at=token.expires_at,
        revoked_at=token.revoked_at,
        last_used_at=token.last_used_at,
    )
