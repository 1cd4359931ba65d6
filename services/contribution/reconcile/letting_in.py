"""One account at one visit: logged in to where that was asked for, once; then its weak key and its hosts' credit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import structlog

from libs.boinc.web import (
    HostCredit,
    NotFound,
    ProjectClient,
    ProjectConfig,
    ProjectDown,
    ProjectRefused,
    ProjectUnavailable,
)
from libs.common.db import Session
from libs.common.secrets import Unsealable
from services.contribution.domain import AccountState
from services.contribution.models import Account
from services.contribution.reconcile.means import Means
from services.contribution.usecases import accounts, visiting
from services.contribution.usecases.accounts import Login
from services.contribution.usecases.credit import Owner, count_credit
from services.contribution.usecases.refusals import refused_by
from services.contribution.usecases.visiting import Turn

log = structlog.get_logger(__name__)

TOO_LATE = "The project could not be asked for a day; give the password again."
NOT_KNOWN = "It is not known what the project made of the password, which is not sent twice; give it again."
NOT_LET_IN = "The project does not know the account's key any more; log in anew."
OTHER_TERMS = (
    "The project's terms are others now than those that were agreed to; read and agree, then log in."
)


async def let_in(
    means: Means, turn: Turn, project: ProjectClient, config: ProjectConfig, account_id: UUID
) -> float:
    """Bring the account as far as it goes; the answer is the credit that machines of ours were granted since.

    Raises ProjectUnavailable or ProjectDown where it is the project's fault, LeaseLost.
    """
    step = await _begin(means, turn, config, account_id)
    if step is None:
        return 0.0
    try:
        key = step.strong_key
        if step.login is not None:
            key = await _log_in(means, turn, project, step)
        return await _ask_account(means, turn, project, key, step)
    except _Superseded:
        return 0.0


@dataclass(frozen=True, slots=True)
class _Step:
    """What an account needs: a login, or nothing but to be looked at with its key."""

    account_id: UUID
    asked_at: datetime
    """Of the login; a newer one is not touched."""
    login: Login | None
    strong_key: str = field(repr=False)
    has_terms: bool


class _Superseded(Exception):
    """The account was taken away, or another login was asked for meanwhile."""


class _Unknown(Exception):
    """A password was sent, and nobody knows what became of it."""


async def _log_in(means: Means, turn: Turn, project: ProjectClient, step: _Step) -> str:
    """The strong key, which is kept. A refusal is final; raises _Superseded then too."""
    assert step.login is not None
    try:
        key = await _send_login(project, step.login, has_terms=step.has_terms)
    except ProjectDown:
        async with _account(means, turn, step) as (_, account):
            account.tried_at = None  # it did not look at any password
        raise
    except ProjectRefused as refused:
        await _refuse(means, turn, step, str(refused))
        raise _Superseded from None
    except _Unknown:
        await _refuse(means, turn, step, NOT_KNOWN)
        raise ProjectUnavailable("The project did not answer to a login.") from None
    async with _account(means, turn, step) as (_, account):
        accounts.keep_strong_key(means.vault, account, key, means.clock.now())
    log.info("account.let_in", account=str(step.account_id), project=str(turn.project_id))
    return key


async def _send_login(project: ProjectClient, login: Login, *, has_terms: bool) -> str:
    if login.creates:  # the same again is the same account, so it may be sent again
        return await project.create_account(
            login.email,
            login.passwd_hash,
            login.user_name,
            invite_code=login.invite_code,
            consent=has_terms,
        )
    try:
        return await project.lookup_account(login.email, login.passwd_hash)
    except ProjectUnavailable:
        raise _Unknown from None


async def _ask_account(means: Means, turn: Turn, project: ProjectClient, key: str, step: _Step) -> float:
    """Its weak key and its hosts. Only who is not known any more is refused; other trouble is shown and may pass."""
    try:
        info = await project.account(key)
    except ProjectDown:
        raise
    except NotFound:
        await _refuse(means, turn, step, NOT_LET_IN)
        return 0.0
    except ProjectRefused as refused:
        async with _account(means, turn, step) as (_, account):
            account.trouble = f"The project does not tell the account's keys: {refused}"[:300]
        return 0.0
    hosts, trouble = await _hosts(project, key)
    now = means.clock.now()
    async with _account(means, turn, step) as (session, account):
        was_in_trouble = account.trouble
        await accounts.keep_weak_key(session, means.vault, account, info.user_id, info.weak_key, now)
        owner = Owner(turn.project_id, account.organisation_id, info.user_id, account.email)
        granted = await count_credit(session, owner, hosts or (), now)
        refusal = await refused_by(session, account.id)
        if refusal and refusal != was_in_trouble:
            log.warning("account.key_refused", account=str(account.id), project=str(turn.project_id))
        account.trouble = trouble or refusal
        account.credit_at = account.credit_at if hosts is None else now
    return granted


async def _hosts(project: ProjectClient, key: str) -> tuple[tuple[HostCredit, ...] | None, str | None]:
    """The account's hosts, else why they are not told."""
    try:
        return (await project.user_with_hosts(key)).hosts, None
    except ProjectDown:
        raise
    except ProjectRefused as refused:
        return None, f"The project does not tell the account's credit: {refused}"[:300]


async def _begin(means: Means, turn: Turn, config: ProjectConfig, account_id: UUID) -> _Step | None:
    """What is to be done, once it is written down that it is about to be. None: nothing."""
    now, vault = means.clock.now(), means.vault
    async with means.database.transaction() as session:
        await visiting.hold(session, turn)
        account = await session.get(Account, account_id, with_for_update=True)
        if account is None or account.state == AccountState.REFUSED:
            return None
        try:
            if not account.sealed_login:
                return _Step(account_id, account.asked_at, None, accounts.strong_key(vault, account), False)
            if account.tried_at is not None and not account.creates:
                accounts.refuse(account, NOT_KNOWN, now)
            elif now - account.asked_at > accounts.WAIT_FOR_PROJECT:
                accounts.refuse(account, TOO_LATE, now)
            elif (
                account.creates
                and config.terms
                and not await accounts.has_agreed(session, account, config.terms_hash)
            ):
                accounts.refuse(account, OTHER_TERMS, now)
            else:
                account.tried_at = now
                login = accounts.opened_login(vault, account)
                return _Step(account_id, account.asked_at, login, "", bool(config.terms))
        except Unsealable as error:
            log.error("account.key_lost", account=str(account_id), reason=str(error))
        return None


async def _refuse(means: Means, turn: Turn, step: _Step, why: str) -> None:
    async with _account(means, turn, step) as (_, account):
        accounts.refuse(account, why, means.clock.now())
    log.warning("account.refused", account=str(step.account_id), project=str(turn.project_id))


@asynccontextmanager
async def _account(means: Means, turn: Turn, step: _Step) -> AsyncIterator[tuple[Session, Account]]:
    """The account in a transaction of this visit's. Raises _Superseded, LeaseLost."""
    async with means.database.transaction() as session:
        await visiting.hold(session, turn)
        account = await session.get(Account, step.account_id, with_for_update=True)
        if account is None or account.asked_at != step.asked_at:
            raise _Superseded
        yield session, account
