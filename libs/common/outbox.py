"""The outbox: events written with the rows they speak of, published afterwards with confirms, then deleted."""

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Row, case, delete, func, or_, select, update

from libs.common.bus.base import Bus, BusUnavailable, Message, NoSuchQueue
from libs.common.bus.messages import REPLAYED, public_key_of
from libs.common.db import Database, Session
from libs.common.figures import Figures, Gauge, Readings
from libs.common.tables import outbox

log = structlog.get_logger(__name__)

BATCH = 200
CLAIM = timedelta(seconds=15)
GIVE_BACK_WITHIN_S = 3.0
PARK_AFTER = 20


async def relay(database: Database, bus: Bus) -> int:
    """Publish everything in the outbox, in order of commit as far as possible; returns how many rows went out.

    Rows are claimed for a short while, so replicas do not publish each other's; a crash repeats, never loses.
    A row that cannot be published is parked after 20 tries and is not in the way; one for a queue that does not
    exist is dropped instead, for its asker asks again. Raises BusUnavailable.
    """
    published = 0
    while rows := await _claim(database):
        try:
            outcomes = await asyncio.gather(*(_publish(bus, row) for row in rows), return_exceptions=True)
        except asyncio.CancelledError:
            await _give_back(database, [row.number for row in rows])
            raise
        failed = {
            row.number: outcome for row, outcome in zip(rows, outcomes, strict=True) if outcome is not None
        }
        await _settle(database, [row.number for row in rows if row.number not in failed], failed)
        published += len(rows) - len(failed)
        for outcome in failed.values():
            if not _is_lasting(outcome):
                raise outcome
        if len(rows) < BATCH:
            break
    return published


async def count_waiting(database: Database) -> int:
    """How many rows wait to be published; those that are parked do not."""
    async with database.transaction() as session:
        return (await measure(session)).waiting


@dataclass(frozen=True, slots=True)
class Backlog:
    """What stands in an outbox."""

    waiting: int
    oldest_s: float
    """Age of the oldest that waits; 0 where none does."""
    parked: int
    """Given up after twenty tries: a person has to look."""


async def measure(session: Session) -> Backlog:
    """Count the outbox, in one statement."""
    is_parked = outbox.c.parked_at.is_not(None)
    oldest = func.min(outbox.c.created_at).filter(~is_parked)
    query = select(
        func.count().filter(~is_parked),
        func.coalesce(func.extract("epoch", func.clock_timestamp() - oldest), 0.0),
        func.count().filter(is_parked),
    )
    waiting, oldest_s, parked = (await session.execute(query.select_from(outbox))).one()
    return Backlog(waiting, max(0.0, float(oldest_s)), parked)


async def _read(session: Session) -> list[Readings]:
    backlog = await measure(session)
    return [{(): backlog.waiting}, {(): backlog.oldest_s}, {(): backlog.parked}]


FIGURES = Figures(
    (
        Gauge("tides_outbox_depth", "Events waiting to be published."),
        Gauge("tides_outbox_oldest_seconds", "Age of the oldest event that waits to be published."),
        Gauge(
            "tides_outbox_parked", "Events that could not be published in twenty tries and wait for a person."
        ),
    ),
    _read,
)


async def _claim(database: Database) -> list[Row[Any]]:
    due = (
        select(outbox.c.number)
        .where(outbox.c.parked_at.is_(None))
        .where(or_(outbox.c.claimed_until.is_(None), outbox.c.claimed_until < func.clock_timestamp()))
        .order_by(outbox.c.number)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    claim = (
        update(outbox)
        .where(outbox.c.number.in_(due))
        .values(claimed_until=func.clock_timestamp() + CLAIM)
        .returning(outbox)
    )
    async with database.transaction() as session:
        return sorted((await session.execute(claim)).all(), key=lambda row: row.number)


async def _publish(bus: Bus, row: Row[Any]) -> None:
    public_key = public_key_of(row.key, row.headers) if row.public else None
    message = Message(str(row.message_id), row.key, row.body, row.headers, public_key)
    if row.queue is None:
        await bus.publish(message, public=row.public)
    else:
        await bus.send(row.queue, replace(message, headers={**message.headers, REPLAYED: "true"}))


def _is_lasting(error: BaseException) -> bool:
    """Whether it is about the row; otherwise the bus is away, which no row is to blame for."""
    return isinstance(error, NoSuchQueue) or not isinstance(error, BusUnavailable)


async def _settle(database: Database, sent: list[int], failed: dict[int, BaseException]) -> None:
    async with database.transaction() as session:
        if sent:
            await session.execute(delete(outbox).where(outbox.c.number.in_(sent)))
        lasting = [number for number, error in failed.items() if _is_lasting(error)]
        if lasting:
            tries = outbox.c.attempts + 1
            await session.execute(
                update(outbox)
                .where(outbox.c.number.in_(lasting))
                .values(attempts=tries, parked_at=case((tries >= PARK_AFTER, func.now()), else_=None))
            )
            log.error(
                "outbox.unpublishable", schema=database.schema, rows=lasting, error=str(failed[lasting[0]])
            )
            await _drop_homeless(
                session, [number for number in lasting if isinstance(failed[number], NoSuchQueue)]
            )
        await _unclaim(session, [number for number in failed if number not in lasting])


async def _drop_homeless(session: Session, numbers: list[int]) -> None:
    parked = delete(outbox).where(outbox.c.number.in_(numbers), outbox.c.parked_at.is_not(None))
    dropped = (await session.execute(parked.returning(outbox.c.queue))).scalars().all()
    if dropped:
        log.warning("outbox.dropped", rows=len(dropped), queues=sorted(set(dropped)))


async def _give_back(database: Database, numbers: list[int]) -> None:
    """Let the next process publish at once; without a database the claims end by themselves."""
    try:
        async with asyncio.timeout(GIVE_BACK_WITHIN_S), database.transaction() as session:
            await _unclaim(session, numbers)
    except Exception as error:
        log.warning("outbox.not_given_back", schema=database.schema, error=type(error).__name__)


async def _unclaim(session: Session, numbers: list[int]) -> None:
    if numbers:
        await session.execute(update(outbox).where(outbox.c.number.in_(numbers)).values(claimed_until=None))
