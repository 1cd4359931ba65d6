"""Accounts of organisations at projects: asked for by people, logged in to once, kept under their keys."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from libs.common.auth import Principal, Role
from libs.common.db import Session
from libs.common.errors import conflict, invalid, not_found
from libs.common.ids import new_id
from libs.common.secrets import Vault, account_context, authenticator_context
from services.contribution.domain import AccountState
from services.contribution.models import Account, Consent, Contribution, Project, Visit
from services.contribution.usecases.lending import say
from services.contribution.usecases.refusals import forget_refusal

WAIT_FOR_PROJECT = timedelta(days=1)
"""A login is kept no longer than this for a project that does not answer."""
LOGIN, STRONG, WEAK = "login", "strong", "weak"


@dataclass(frozen=True, slots=True)
class Login:
    """What an account is made or looked up with. The password itself is nowhere."""

    email: str
    passwd_hash: str = field(repr=False)
    creates: bool = False
    user_name: str = ""
    invite_code: str = field(default="", repr=False)


async def ask_account(
    session: Session, who: Principal, vault: Vault, project_id: UUID, login: Login, now: datetime
) -> Account:
    """Have the organisation's one account at the project made or looked up at its next visit, which is now.

    Raises 422 at `project_id`; 409 where there is one already, where the project was never heard, or where an account
    would be made and nobody has agreed to the terms.
    """
    if await session.get(Project, project_id) is None:
        raise invalid("project_id", "No project with this id is known.", "Add the project first.")
    await _insist_on_consent(session, who.organisation_id, project_id, login)
    account_id = new_id()
    row = insert(Account).values(
        id=account_id,
        organisation_id=who.organisation_id,
        project_id=project_id,
        sealed_strong_key="",
        sealed_weak_key="",
        user_id=0,
        created_at=now,
        **_asked(vault, account_id, login, now),
    )
    made = await session.scalar(row.on_conflict_do_nothing().returning(Account.id))
    if made is None:
        raise conflict(
            "Your organisation has an account at this project already.",
            "Log in to that one anew where its password has changed.",
            "project_id",
        )
    await _visit_now(session, project_id, now)
    return await session.get_one(Account, account_id)


async def log_in(
    session: Session, who: Principal, vault: Vault, account_id: UUID, login: Login, now: datetime
) -> Account:
    """Look the account up anew, or another one in its place; until then it stays as it is. Raises 404, 409."""
    project_id = await session.scalar(select(Account.project_id).where(Account.id == account_id))
    if project_id is None:
        raise not_found("account")
    await _visit_now(session, project_id, now)  # first, for visits lock in this order
    account = await find_account(session, who, account_id, lock=True)
    await _insist_on_consent(session, account.organisation_id, project_id, login)
    for name, value in _asked(vault, account_id, login, now).items():
        setattr(account, name, value)
    return account


async def find_account(session: Session, who: Principal, account_id: UUID, *, lock: bool = False) -> Account:
    """An account of the caller's organisation; an admin sees all. Raises 404."""
    found = await session.get(Account, account_id, with_for_update=lock or None)
    if found is None or (who.role is not Role.ADMIN and found.organisation_id != who.organisation_id):
        raise not_found("account")
    return found


async def accounts(session: Session, who: Principal, after: UUID | None, limit: int) -> Sequence[Account]:
    """Accounts in the order they were asked for."""
    query = select(Account).order_by(Account.id).limit(limit)
    if who.role is not Role.ADMIN:
        query = query.where(Account.organisation_id == who.organisation_id)
    return (await session.scalars(query if after is None else query.where(Account.id > after))).all()


async def remove_account(session: Session, who: Principal, account_id: UUID) -> None:
    """Forget the account with its keys; at the project it stays. Raises 404, 409 while something is lent by it."""
    account = await find_account(session, who, account_id, lock=True)
    lent = (Contribution.account_id == account_id) & Contribution.gone.is_(False)
    if await session.scalar(select(Contribution.id).where(lent).limit(1)) is not None:
        raise conflict("A contribution works with this account.", "End it, or give it a key of its own.")
    await session.delete(account)


async def weak_key_of(
    session: Session, organisation_id: UUID, vault: Vault, account_id: UUID, project_id: UUID
) -> str:
    """The key by which machines of the organisation attach to the account: never another organisation's, whoever asks.

    Raises 422 at `account_id` where it is not of use to them.
    """
    account = await session.get(Account, account_id, with_for_update={"read": True})
    is_ours = account is not None and account.organisation_id == organisation_id
    if account is None or not is_ours or account.project_id != project_id:
        raise invalid(
            "account_id", "This is no account of the organisation at this project.", "Name that account."
        )
    if not account.sealed_weak_key:
        raise invalid("account_id", "The project has not let this account in yet.", "Look at its trouble.")
    return vault.open(account.sealed_weak_key, account_context(account_id, WEAK))


async def has_agreed(session: Session, account: Account, terms_sha256: str) -> bool:
    """Whether somebody agreed to exactly these terms for the account's organisation."""
    ours = (Consent.organisation_id == account.organisation_id) & (Consent.project_id == account.project_id)
    query = select(Consent.id).where(ours, Consent.terms_sha256 == terms_sha256)
    return await session.scalar(query) is not None


def opened_login(vault: Vault, account: Account) -> Login:
    """What to log in with. Raises Unsealable."""
    kept = json.loads(vault.open(account.sealed_login, account_context(account.id, LOGIN)))
    return Login(account.email, kept["passwd_hash"], account.creates, account.user_name, kept["invite_code"])


def refuse(account: Account, trouble: str, now: datetime) -> None:
    """The project does not let the account in, and is not asked again before a person says so."""
    account.state, account.trouble = AccountState.REFUSED, trouble[:300]
    account.sealed_login, account.updated_at = "", now


def keep_strong_key(vault: Vault, account: Account, key: str, now: datetime) -> None:
    """The login has succeeded: it is forgotten, and its key kept."""
    account.sealed_strong_key = vault.seal(key, account_context(account.id, STRONG))
    account.sealed_login, account.trouble, account.updated_at = "", None, now


def strong_key(vault: Vault, account: Account) -> str:
    """The key that can do everything; it goes to the project alone. Raises Unsealable."""
    return vault.open(account.sealed_strong_key, account_context(account.id, STRONG))


async def keep_weak_key(
    session: Session, vault: Vault, account: Account, user_id: int, key: str, now: datetime
) -> None:
    """The account is in; another weak key than before reaches every contribution that works with it."""
    context = account_context(account.id, WEAK)
    is_same = bool(account.sealed_weak_key) and vault.open(account.sealed_weak_key, context) == key
    account.state, account.trouble, account.user_id = AccountState.READY, None, user_id
    if is_same:
        return
    account.sealed_weak_key, account.updated_at = vault.seal(key, context), now
    lent = (Contribution.account_id == account.id) & Contribution.gone.is_(False)
    query = select(Contribution).where(lent).order_by(Contribution.id).with_for_update()
    for contribution in await session.scalars(query):
        contribution.sealed_authenticator = vault.seal(key, authenticator_context(contribution.id))
        forget_refusal(contribution)
        await say(session, contribution, now)


def _asked(vault: Vault, account_id: UUID, login: Login, now: datetime) -> dict[str, object]:
    kept = json.dumps({"passwd_hash": login.passwd_hash, "invite_code": login.invite_code})
    return {
        "state": AccountState.ASKED,
        "email": login.email,
        "creates": login.creates,
        "user_name": login.user_name,
        "sealed_login": vault.seal(kept, account_context(account_id, LOGIN)),
        "asked_at": now,
        "tried_at": None,
        "trouble": None,
        "updated_at": now,
    }


async def _insist_on_consent(session: Session, organisation_id: UUID, project_id: UUID, login: Login) -> None:
    visit = await session.get(Visit, project_id)
    if visit is None:
        raise conflict("This project was not heard yet.", "Check the project first.", "project_id")
    if not login.creates or not visit.terms:
        return
    ours = (Consent.organisation_id == organisation_id) & (Consent.project_id == project_id)
    query = select(Consent.id).where(ours, Consent.terms_sha256 == visit.terms_sha256)
    if await session.scalar(query) is None:
        raise conflict(
            "Nobody of your organisation has agreed to the terms that this project has now.",
            "Read the terms and agree to them first.",
            "project_id",
        )


async def _visit_now(session: Session, project_id: UUID, now: datetime) -> None:
    await session.execute(update(Visit).where(Visit.project_id == project_id).values(due_at=now))
