"""Samples into their days: one transaction per message, a repeat is a no-op."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert

from libs.common.contracts.usage import Sample, UsageSampled
from libs.common.db import Session
from libs.common.ids import cluster_id
from libs.common.inbox import first_time
from services.stats.domain.samples import (
    HOST_COLUMNS,
    OLDEST,
    Refused,
    at_of,
    clean,
    clean_text,
    day_of,
    read_hosts,
    refuse,
)
from services.stats.models import dirty_hour, host_sample, refusal, sample_day

log = structlog.get_logger(__name__)

DAYS_AHEAD = 2
REFUSED = "stats.refused"
"""Under this name the inbox knows whose refusals were counted: a repeat counts none."""
_TABLES = ("cluster_sample", "host_sample")
_COLUMNS = ("cluster_id", "at", *HOST_COLUMNS)

_KEEP_NEW = text("""
    with given as (
        select * from unnest(
            cast(:ids as uuid[]), cast(:ats as timestamptz[]), cast(:intervals as float8[]), cast(:caps as float8[]),
            cast(:capacities as float8[]), cast(:frees as float8[]), cast(:qualities as text[])
        ) as given (cluster_id, at, interval_s, cap, capacity, free, quality)
    ),
    known as (
        insert into cluster (id, resource_id, name)
        select id, :resource_id, name from unnest(cast(:named as uuid[]), cast(:names as text[])) as n (id, name)
        on conflict (id) do update set name = excluded.name where cluster.name <> excluded.name
    ),
    kept as (
        insert into cluster_sample
            (cluster_id, at, interval_s, cap_mhz, datastore_capacity_gib, datastore_free_gib, quality)
        select * from given
        on conflict do nothing
        returning cluster_id, at
    ),
    touched as (
        insert into dirty_hour (cluster_id, hour, touched)
        select distinct cluster_id, date_trunc('hour', at - interval '1 microsecond', 'UTC') as hour, 1
        from kept order by cluster_id, hour
        on conflict (cluster_id, hour) do update set touched = dirty_hour.touched + 1
    )
    select cluster_id, at from kept
""")
"""Clusters by name, samples that are new, and the hours that are to be added up again, in one round trip."""


_Key = tuple[int, datetime]
"""Cluster and time of a sample: of the cluster's id its number, which is compared more quickly."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A sample that may be stored, with its cluster's id."""

    cluster_id: UUID
    at: datetime
    sample: Sample


async def store_samples(session: Session, event: UsageSampled, now: datetime) -> None:
    """Store what is new of a round; what cannot be kept is counted. Costs three statements."""
    kept: dict[_Key, Kept] = {}
    refused: Counter[Refused] = Counter()
    for sample in event.samples:
        reason = refuse(sample, now)
        if reason is not None:
            refused[reason] += 1
            continue
        found = Kept(cluster_id(event.resource_id, sample.cluster), at_of(sample), sample)
        kept.setdefault((found.cluster_id.int, found.at), found)
    if refused and await first_time(session, event.id, REFUSED):
        await _count_refused(session, event.resource_id, refused, now)
    if not kept:
        return
    ordered = [kept[key] for key in sorted(kept)]
    await make_days(session, {day_of(row.at) for row in ordered})
    new = await _keep_new(session, event.resource_id, ordered)
    if new:
        await _copy_hosts(session, [kept[key] for key in sorted(new)])


async def make_days(session: Session, days: set[date]) -> None:
    """Make sure that these days have partitions."""
    known = set(await session.scalars(select(sample_day.c.day).where(sample_day.c.day.in_(days))))
    if days <= known:
        return
    # Making a partition locks the parent against everything: first in the transaction, one at a time.
    await session.execute(text("select pg_advisory_xact_lock(hashtext('tides.stats.days'))"))
    for day in sorted(days - known):
        begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
        for table in _TABLES:
            await session.execute(
                text(
                    f"create table if not exists {_partition(table, day)} partition of {table} "
                    f"for values from ('{begin.isoformat()}') to ('{(begin + timedelta(days=1)).isoformat()}')"
                )
            )
        await session.execute(insert(sample_day).values(day=day).on_conflict_do_nothing())


async def make_days_ahead(session: Session, now: datetime) -> None:
    """Make the partitions of today and the days to come."""
    today = day_of(now)
    await make_days(session, {today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1)})


async def drop_old_days(session: Session, now: datetime) -> None:
    """Drop days of which nothing can be stored any more and everything has been rolled up."""
    oldest = day_of(now - OLDEST) - timedelta(days=1)
    days = select(sample_day.c.day).where(sample_day.c.day < oldest).order_by(sample_day.c.day)
    for day in (await session.scalars(days)).all():
        begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
        waiting = select(func.count()).where(
            dirty_hour.c.hour >= begin - timedelta(hours=1), dirty_hour.c.hour < begin + timedelta(days=1)
        )
        if await session.scalar(waiting):
            log.warning("stats.day_not_rolled_up", day=day.isoformat())
            return
        for table in _TABLES:
            await session.execute(text(f"drop table if exists {_partition(table, day)}"))
        await session.execute(delete(sample_day).where(sample_day.c.day == day))


async def _keep_new(session: Session, resource_id: UUID, rows: Sequence[Kept]) -> list[_Key]:
    names = {row.cluster_id: clean_text(row.sample.name, 400) for row in rows}
    parameters: dict[str, Any] = {
        "resource_id": resource_id,
        "named": list(names),  # in the order of ids, as the rows are
        "names": list(names.values()),
        "ids": [row.cluster_id for row in rows],
        "ats": [row.at for row in rows],
        "intervals": [row.sample.interval_s for row in rows],
        "caps": [clean(row.sample.cap_mhz) for row in rows],
        "capacities": [clean(row.sample.datastore_capacity_gib) for row in rows],
        "frees": [clean(row.sample.datastore_free_gib) for row in rows],
        "qualities": [row.sample.quality.value for row in rows],
    }
    return [(row.cluster_id.int, row.at) for row in await session.execute(_KEEP_NEW, parameters)]


async def _copy_hosts(session: Session, rows: Sequence[Kept]) -> None:
    records = [(row.cluster_id, row.at, *found) for row in rows for found in read_hosts(row.sample)]
    connection = await (await session.connection()).get_raw_connection()
    driver = connection.driver_connection
    assert driver is not None
    await driver.copy_records_to_table(host_sample.name, records=records, columns=_COLUMNS)


async def _count_refused(
    session: Session, resource_id: UUID, refused: Counter[Refused], now: datetime
) -> None:
    log.warning(
        "stats.samples_refused", resource=str(resource_id), **{str(why): n for why, n in refused.items()}
    )
    for reason, count in sorted(refused.items()):
        row = insert(refusal).values(resource_id=resource_id, reason=reason.value, count=count, last_at=now)
        await session.execute(
            row.on_conflict_do_update(
                index_elements=["resource_id", "reason"],
                set_={"count": refusal.c.count + count, "last_at": now},
            )
        )


def _partition(table: str, day: date) -> str:
    return f"{table}_{day:%Y%m%d}"
