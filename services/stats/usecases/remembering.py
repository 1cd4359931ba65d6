"""A cluster's history for a replay: one day of it at a time, in steps of five minutes."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, text

from libs.common.db import Session
from services.stats.domain.history import WHOLE
from services.stats.models import host
from services.stats.usecases.reporting import RAW_FOR

_NEEDED = (
    "cpu_capacity_mhz",
    "cpu_used_mhz",
    "cpu_ours_mhz",
    "memory_capacity_mib",
    "memory_used_mib",
    "memory_ours_mib",
)
_RAW = f"""
    select host, date_bin('5 minutes', at - interval '1 microsecond', cast(:day as timestamptz)) as at,
        {", ".join(f"avg({name}) as {name}" for name in _NEEDED)}
    from host_sample where cluster_id = :cluster_id and at > :since and at <= :until group by 1, 2
"""
_KEPT = f"""
    select host, at, {", ".join(f"{name}_mean as {name}" for name in _NEEDED)}
    from five_minutes where cluster_id = :cluster_id and host <> '' and at >= :since and at < :until
"""


def _day(source: str) -> Any:
    """Per host the steps of a day and the owner's shares: what was not attributed to us is the owner's."""
    return text(f"""
        with steps as ({source})
        select host, array_agg(cast(extract(epoch from at - cast(:day as timestamptz)) / 300 as integer)) as steps,
            array_agg({_share("cpu_used_mhz", "cpu_ours_mhz", "cpu_capacity_mhz")}) as cpu,
            array_agg(coalesce({_share("memory_used_mib", "memory_ours_mib", "memory_capacity_mib")}, -1)) as memory,
            max(cpu_capacity_mhz) as cpu_mhz, coalesce(max(memory_capacity_mib), 0) as memory_mib
        from steps where cpu_used_mhz is not null and cpu_capacity_mhz > 0 group by host order by host
    """)


def _share(used: str, ours: str, capacity: str) -> str:
    owner = f"least(1, greatest(0, ({used} - coalesce({ours}, 0)) / nullif({capacity}, 0)))"
    return f"cast({WHOLE} * {owner} as integer)"


_DAY_OF_SAMPLES, _DAY_OF_MEANS = _day(_RAW), _day(_KEPT)


async def read_day(
    session: Session, cluster_id: UUID, day: datetime, span: tuple[datetime, datetime], now: datetime
) -> list[list[Any]]:
    """Host, steps, owner's CPU and memory in 1/10,000 (memory -1: not measured), capacities; of the day from midnight.

    Days of which every sample is kept are added up from samples, so that late ones are in; older ones are means.
    """
    since, until = max(day, span[0]), min(day + timedelta(days=1), span[1])
    statement = _DAY_OF_SAMPLES if day >= now - RAW_FOR else _DAY_OF_MEANS
    bounds = {"cluster_id": cluster_id, "day": day, "since": since, "until": until}
    rows = await session.execute(statement, bounds)
    return [
        [row.host, list(row.steps), list(row.cpu), list(row.memory), row.cpu_mhz, row.memory_mib]
        for row in rows
    ]


async def read_cores(session: Session, cluster_id: UUID) -> dict[str, int]:
    """Cores by host, as the inventory has them."""
    rows = await session.execute(select(host.c.host, host.c.cores).where(host.c.cluster_id == cluster_id))
    return {row.host: row.cores for row in rows}
