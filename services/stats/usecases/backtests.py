"""Backtests as rows: asked for, leased by whoever works one out, renewed, settled or given back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from libs.common.auth import Principal, Role
from libs.common.db import Session
from libs.common.errors import conflict, not_found
from libs.common.ids import new_id
from services.stats.domain.history import Actuator, State, stretch_of
from services.stats.models import backtest, cluster, resource

LEASE_S = 60.0
MOST_ATTEMPTS = 3
KEEP = timedelta(days=90)
_OPEN = (State.QUEUED, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be worked out."""

    policy: str
    document: dict[str, Any]
    is_preset: bool
    guard_s: float
    actuator: Actuator


@dataclass(frozen=True, slots=True)
class Claim:
    """A backtest that is leased: whoever holds the token may settle it."""

    id: UUID
    token: UUID
    cluster_id: UUID
    asked: dict[str, Any]
    days: int
    since: datetime
    until: datetime


async def ask(
    session: Session, who: Principal, cluster_id: UUID, asked: Asked, days: int, now: datetime
) -> Row[Any]:
    """Keep a backtest for whoever claims it. Raises 409 while one of the cluster's organisation is open."""
    since, until = stretch_of(now, days)
    values = {
        "id": new_id(),
        "organisation_id": await _owner_of(session, cluster_id) or who.organisation_id,
        "cluster_id": cluster_id,
        "policy": asked.policy,
        "asked": {
            "document": asked.document,
            "is_preset": asked.is_preset,
            "guard_s": asked.guard_s,
            "actuator": asked.actuator.value,
        },
        "days": days,
        "since": since,
        "until": until,
        "state": State.QUEUED,
        "progress": 0.0,
        "attempts": 0,
        "created_at": now,
    }
    made = insert(backtest).values(**values).on_conflict_do_nothing().returning(backtest)
    row: Row[Any] | None = (await session.execute(made)).first()
    if row is None:
        detail = "A backtest of this organisation is being worked out."
        raise conflict(detail, "Wait for its end, or cancel it.")
    return row


async def find(session: Session, who: Principal, backtest_id: UUID) -> Row[Any]:
    """One that the caller may see. Raises 404."""
    row: Row[Any] | None = (await session.execute(_seen_by(who).where(backtest.c.id == backtest_id))).first()
    if row is None:
        raise not_found("backtest")
    return row


async def page(session: Session, who: Principal, before: UUID | None, limit: int) -> Sequence[Row[Any]]:
    """The newest before that one."""
    query = _seen_by(who).order_by(backtest.c.id.desc()).limit(limit)
    older = query if before is None else query.where(backtest.c.id < before)
    rows: Sequence[Row[Any]] = (await session.execute(older)).all()
    return rows


async def cancel(session: Session, who: Principal, backtest_id: UUID, now: datetime) -> Row[Any]:
    """End it; whoever works it out finds its lease gone. One that has ended stays as it is. Raises 404."""
    await find(session, who, backtest_id)
    ended = {"state": State.CANCELLED, "ended_at": now, "lease_token": None, "lease_until": None}
    mine = and_(backtest.c.id == backtest_id, backtest.c.state.in_(_OPEN))
    await session.execute(update(backtest).where(mine).values(**ended))
    return await find(session, who, backtest_id)


async def claim(session: Session, now: datetime) -> Claim | None:
    """The oldest that nobody works out; one that was begun three times and never ended has failed."""
    clock = func.clock_timestamp()
    free = or_(backtest.c.lease_until.is_(None), backtest.c.lease_until < clock)
    due = and_(backtest.c.state.in_(_OPEN), free)
    error = f"Its process ended {MOST_ATTEMPTS} times before it was done: ask for fewer days."
    worn = and_(due, backtest.c.attempts >= MOST_ATTEMPTS)
    failed = {"state": State.FAILED, "ended_at": now, "error": error, "lease_token": None}
    await session.execute(update(backtest).where(worn).values(**failed))
    # One whose lease ran out only now may be worn, too: it is failed the next time.
    fresh = and_(due, backtest.c.attempts < MOST_ATTEMPTS)
    oldest = (
        select(backtest.c.id).where(fresh).order_by(backtest.c.id).limit(1).with_for_update(skip_locked=True)
    )
    backtest_id = await session.scalar(oldest)
    if backtest_id is None:
        return None
    begun = {
        "state": State.RUNNING,
        "progress": 0.0,
        "attempts": backtest.c.attempts + 1,
        "lease_token": new_id(),
        "lease_until": clock + timedelta(seconds=LEASE_S),
    }
    row = (
        await session.execute(
            update(backtest).where(backtest.c.id == backtest_id).values(**begun).returning(backtest)
        )
    ).one()
    return Claim(row.id, row.lease_token, row.cluster_id, row.asked, row.days, row.since, row.until)


async def renew(session: Session, held: Claim, progress: float) -> bool:
    """Hold on to it for longer; False: it was cancelled, or is another's."""
    longer = {
        "progress": progress,
        "lease_until": func.clock_timestamp() + timedelta(seconds=LEASE_S),
    }
    return await _change(session, held, longer)


async def settle(
    session: Session, held: Claim, now: datetime, *, result: dict[str, Any] | None, error: str | None
) -> bool:
    """It is done, or has failed; False: it was cancelled, or is another's."""
    state = State.FAILED if result is None else State.DONE
    ended = {"state": state, "ended_at": now, "result": result, "error": error and error[:500]}
    done = {} if result is None else {"progress": 1.0}
    return await _change(session, held, {**ended, **done, "lease_token": None, "lease_until": None})


async def give_back(session: Session, held: Claim) -> None:
    """Leave it to the next who looks; an orderly stop is no failed attempt."""
    queued = {"state": State.QUEUED, "progress": 0.0, "attempts": backtest.c.attempts - 1}
    await _change(session, held, {**queued, "lease_token": None, "lease_until": None})


async def forget_old(session: Session, now: datetime) -> None:
    """Forget what ended more than 90 days ago."""
    await session.execute(delete(backtest).where(backtest.c.ended_at < now - KEEP))


async def _change(session: Session, held: Claim, values: dict[str, Any]) -> bool:
    mine = and_(backtest.c.id == held.id, backtest.c.lease_token == held.token)
    found = await session.execute(update(backtest).where(mine).values(**values).returning(backtest.c.id))
    return found.first() is not None


async def _owner_of(session: Session, cluster_id: UUID) -> UUID | None:
    query = (
        select(resource.c.organisation_id)
        .select_from(cluster.join(resource, resource.c.id == cluster.c.resource_id))
        .where(cluster.c.id == cluster_id)
    )
    found: UUID | None = await session.scalar(query)
    return found


def _seen_by(who: Principal) -> Select[Any]:
    query = select(backtest)
    return query if who.role is Role.ADMIN else query.where(backtest.c.organisation_id == who.organisation_id)
