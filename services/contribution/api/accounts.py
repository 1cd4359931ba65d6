"""HTTP of contribution: /v1/accounts, the organisation's accounts at projects."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, SecretStr

from libs.boinc.web import password_hash
from libs.common.auth import Principal, Role, allow
from libs.common.errors import invalid
from libs.common.names import ONE_LINE
from libs.common.paging import Cursor, Limit, Page, page_of, read_cursor
from libs.common.repeats import HasOnce
from services.contribution.api.door import Body, HasDoor
from services.contribution.domain import AccountState
from services.contribution.models import Account
from services.contribution.usecases import accounts as usecases
from services.contribution.usecases.accounts import Login

router = APIRouter(prefix="/v1/accounts", tags=["accounts"])

Viewer = Annotated[Principal, Depends(allow(Role.VIEWER))]
Operator = Annotated[Principal, Depends(allow(Role.OPERATOR))]
Email = Annotated[str, Field(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$"), ONE_LINE]
UserName = Annotated[str, Field(max_length=60), ONE_LINE]


class LoginRequest(Body):
    """The account's address and password; the password is used once and kept nowhere."""

    email: Email
    password: Annotated[SecretStr, Field(min_length=1, max_length=200)]
    create: bool = False
    """Make the account if there is none: somebody of the organisation must have agreed to the project's terms."""
    user_name: UserName = ""
    """Of an account that is made; the project shows it to everybody."""
    invite_code: Annotated[SecretStr | None, Field(max_length=200)] = None


class AccountRequest(LoginRequest):
    """An account at a project: the organisation's only one there."""

    project_id: UUID


class AccountView(BaseModel):
    """An account, without any key."""

    id: UUID
    organisation_id: UUID
    project_id: UUID
    email: str
    user_id: int
    """The project's id of the user; 0 until it is let in."""
    state: Literal["asked", "ready", "refused"]
    """Asked: it will be, as soon as the project answers. Refused: nothing is tried before a person logs in anew."""
    trouble: str | None
    asked_at: datetime
    credit_at: datetime | None
    """When the credit of its hosts was last read."""
    created_at: datetime
    updated_at: datetime


@router.post("", status_code=202)
async def ask_account(who: Operator, body: AccountRequest, door: HasDoor, once: HasOnce) -> AccountView:
    """Have an account looked up, or made, at the project: once. What becomes of it is in its `state`."""
    login, now = _login(body), door.clock.now()
    async with once.transaction(door.database) as session:
        account = await usecases.ask_account(session, who, door.vault, body.project_id, login, now)
        shown = once.answers(_view(account), 202)
    door.visits_due.set()
    return shown


@router.get("")
async def list_accounts(
    who: Viewer, door: HasDoor, cursor: Cursor = None, limit: Limit = 50
) -> Page[AccountView]:
    """The organisation's accounts in the order they were asked for."""
    after = None if cursor is None else read_cursor(cursor, UUID)[0]
    async with door.database.transaction() as session:
        found = await usecases.accounts(session, who, after, limit + 1)
    return page_of(found, limit, _view, lambda row: (str(row.id),))


@router.get("/{account_id}")
async def read_account(who: Viewer, account_id: UUID, door: HasDoor) -> AccountView:
    """One account."""
    async with door.database.transaction() as session:
        return _view(await usecases.find_account(session, who, account_id))


@router.put("/{account_id}/login", status_code=202)
async def log_in(who: Operator, account_id: UUID, body: LoginRequest, door: HasDoor) -> AccountView:
    """Log in anew, as after a changed password; the keys of before stay in use until the project has let it in."""
    login, now = _login(body), door.clock.now()
    async with door.database.transaction() as session:
        shown = _view(await usecases.log_in(session, who, door.vault, account_id, login, now))
    door.visits_due.set()
    return shown


@router.delete("/{account_id}", status_code=204)
async def forget_account(who: Operator, account_id: UUID, door: HasDoor) -> None:
    """Forget an account and its keys here; at the project it stays. 409 while a contribution works with it."""
    async with door.database.transaction() as session:
        await usecases.remove_account(session, who, account_id)


def _login(body: LoginRequest) -> Login:
    name = body.user_name.strip()
    if body.create and not name:
        raise invalid("user_name", "A new account needs a name that the project shows.", "Give one.")
    return Login(
        email=body.email,
        passwd_hash=password_hash(body.password.get_secret_value(), body.email),
        creates=body.create,
        user_name=name,
        invite_code=body.invite_code.get_secret_value() if body.invite_code is not None else "",
    )


def _view(account: Account) -> AccountView:
    states: dict[AccountState, Literal["asked", "ready", "refused"]] = {
        AccountState.ASKED: "asked",
        AccountState.READY: "ready",
        AccountState.REFUSED: "refused",
    }
    return AccountView(
        id=account.id,
        organisation_id=account.organisation_id,
        project_id=account.project_id,
        email=account.email,
        user_id=account.user_id,
        state=states[AccountState(account.state)],
        trouble=account.trouble,
        asked_at=account.asked_at,
        credit_at=account.credit_at,
        created_at=account.created_at,
        updated_at=account.updated_at,
    )
