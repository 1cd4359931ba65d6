"""Whose turn it is to ask a project, and when next: one lease a project, so that it is asked by one at a time."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import exists, func, or_, select, update

from libs.boinc.account import user_of
from libs.common.db import Session
from libs.common.secrets import Unsealable, Vault, authenticator_context
from services.contribution.domain import rest_s
from services.contribution.models import Account, Contribution, Project, Visit
from services.contribution.usecases.accounts import strong_key

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=10)
STATS_LEASE = timedelta(minutes=70)
"""A large project's statistics may come for an hour."""
STATS_EVERY = timedelta(days=1)


class LeaseLost(Exception):
    """Another replica asks the project by now; what was learnt is left to it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One visit of one project."""

    project_id: UUID
    url: str
    token: UUID
    due_at: datetime
    reads_stats: bool


@dataclass(frozen=True, slots=True)
class KnownUser:
    """A user of a project, and whom it works for."""

    organisation_id: UUID
    user_id: int
    account_id: UUID | None
    """Stored; None: no more than a weak key was given."""


async def claim(
    session: Session, token: UUID, busy: Collection[UUID], most: int, now: datetime
) -> Sequence[Turn]:
    """Take turns at projects that are due; those that nobody lends to and nobody has an account at are left alone."""
    lent = exists().where(Contribution.project_id == Visit.project_id, Contribution.gone.is_(False))
    known = exists().where(Account.project_id == Visit.project_id)
    free = or_(Visit.lease_until.is_(None), Visit.lease_until < func.clock_timestamp())
    due = (
        select(Visit.project_id)
        .where(Visit.due_at <= now, free, lent | known, Visit.project_id.not_in(busy))
        .order_by(Visit.due_at)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    taken = (
        update(Visit)
        .where(Visit.project_id.in_(due))
        .values(lease_token=token, lease_until=func.clock_timestamp() + LEASE)
        .returning(Visit)
    )
    plain = {"synchronize_session": False}
    visits = (await session.scalars(taken, execution_options=plain)).all()
    ids = [visit.project_id for visit in visits]
    urls = {row.id: row.url for row in await session.scalars(select(Project).where(Project.id.in_(ids)))}
    return [
        Turn(
            visit.project_id,
            urls[visit.project_id],
            token,
            visit.due_at,
            visit.stats_due_at is None or visit.stats_due_at <= now,
        )
        for visit in visits
    ]


async def hold(session: Session, turn: Turn, lease: timedelta = LEASE) -> Visit:
    """The visit's row, locked and leased anew. Raises LeaseLost."""
    query = select(Visit).where(Visit.project_id == turn.project_id, Visit.lease_token == turn.token)
    visit = await session.scalar(query.with_for_update())
    now = await session.database_now()
    if visit is None or visit.lease_until is None or visit.lease_until < now:
        raise LeaseLost
    visit.lease_until = now + lease
    return visit


async def end_visit(session: Session, turn: Turn, every: timedelta, now: datetime) -> None:
    """It was asked all there is; whoever wants it asked again meanwhile is not forgotten. Raises LeaseLost."""
    visit = await hold(session, turn)
    visit.lease_token, visit.lease_until = None, None
    visit.failures, visit.failing_since, visit.trouble = 0, None, None
    if visit.due_at == turn.due_at:
        visit.due_at = now + every


async def put_off(session: Session, turn: Turn, trouble: str, chance: float, now: datetime) -> None:
    """It could not be asked: it is left alone, longer each time, and that is seen. Raises LeaseLost."""
    visit = await hold(session, turn)
    visit.lease_token, visit.lease_until = None, None
    visit.failures += 1
    visit.failing_since = visit.failing_since or now
    visit.trouble = trouble[:300]
    visit.due_at = now + timedelta(seconds=rest_s(visit.failures, chance))
    log.warning(
        "project.not_asked", project=str(turn.project_id), failures=visit.failures, trouble=visit.trouble
    )


async def end_stats(
    session: Session, turn: Turn, etags: dict[str, str], trouble: str | None, now: datetime
) -> None:
    """Its statistics were read as far as they came, and are again in a day. Raises LeaseLost."""
    visit = await hold(session, turn)
    visit.etags = visit.etags | etags
    visit.stats_due_at, visit.stats_trouble = now + STATS_EVERY, trouble


async def give_back(session: Session, token: UUID) -> None:
    """An orderly stop: others take over at once."""
    mine = update(Visit).where(Visit.lease_token == token)
    await session.execute(mine.values(lease_token=None, lease_until=None))


async def count_failing(session: Session) -> int:
    """Projects that could not be asked when it was last tried."""
    failing = select(func.count()).select_from(Visit).where(Visit.failing_since.is_not(None))
    return (await session.execute(failing)).scalar_one()


async def accounts_of(session: Session, project_id: UUID) -> Sequence[UUID]:
    """The accounts at a project, in order."""
    query = select(Account.id).where(Account.project_id == project_id).order_by(Account.id)
    return (await session.scalars(query)).all()


async def known_users(session: Session, vault: Vault, project_id: UUID) -> list[KnownUser]:
    """Users of the project that work for organisations here: of stored accounts, and of weak keys that were given."""
    stored = select(Account).where(Account.project_id == project_id).order_by(Account.id)
    found = [
        KnownUser(row.organisation_id, row.user_id, row.id)
        for row in await session.scalars(stored)
        if row.user_id > 0
    ]
    given = (Contribution.project_id == project_id) & Contribution.account_id.is_(None)
    query = select(Contribution).where(given, Contribution.gone.is_(False)).order_by(Contribution.id)
    for row in await session.scalars(query):
        try:
            key = vault.open(row.sealed_authenticator, authenticator_context(row.id))
        except Unsealable as error:
            log.error("contribution.key_lost", contribution=str(row.id), reason=str(error))
            continue
        found.append(KnownUser(row.organisation_id, user_of(key), None))
    return found


async def strong_key_of(session: Session, vault: Vault, account_id: UUID) -> str:
    """The account's key that can do everything; empty where there is none that can be opened."""
    account = await session.get(Account, account_id)
    if account is None or not account.sealed_strong_key:
        return ""
    try:
        return strong_key(vault, account)
    except Unsealable as error:
        log.error("account.key_lost", account=str(account_id), reason=str(error))
        return ""
