"""Gauges of what stands in monitor's table: who is sampled, how fresh, how well its cloud answers."""

from functools import partial

from sqlalchemy import func, select

from libs.common.clock import Clock
from libs.common.db import Session
from libs.common.figures import Figures, Gauge, Readings
from libs.providers.health import CIRCUIT, judge
from services.monitor.models import Resource


async def _read(clock: Clock, session: Session) -> list[Readings]:
    is_held = func.coalesce(Resource.lease_until > func.clock_timestamp(), False)
    rows = (await session.execute(select(Resource, is_held).where(Resource.gone.is_(False)))).all()
    now = clock.now()
    by_id = {(str(row.id),): (row, held) for row, held in rows}
    return [
        {name: row.degraded_at is not None for name, (row, _) in by_id.items()},
        {name: held for name, (_, held) in by_id.items()},
        {
            name: row.sampled_at.timestamp() - row.clock_offset_s
            for name, (row, _) in by_id.items()
            if row.sampled_at is not None
        },
        {name: row.interval_s for name, (row, _) in by_id.items()},
        {name: row.clock_offset_s for name, (row, _) in by_id.items()},
        {(str(row.id), judge(row.failures, row.retry_at, now).value, row.cause or ""): 1 for row, _ in rows},
    ]


_RESOURCE = ("resource",)
_GAUGES = (
    Gauge("tides_resource_degraded", "1 where a cloud has not answered twice or more in a row.", _RESOURCE),
    Gauge("tides_resource_held", "1 where a monitor watches the resource just now.", _RESOURCE),
    Gauge(
        "tides_resource_newest_sample_timestamp_seconds",
        "End of the newest published interval, on our clock; its age is time() minus this.",
        _RESOURCE,
    ),
    Gauge("tides_resource_interval_seconds", "How often the resource is to be sampled.", _RESOURCE),
    Gauge(
        "tides_resource_clock_offset_seconds",
        "The cloud's clock minus ours, as measured last.",
        _RESOURCE,
    ),
    CIRCUIT,
)


def figures(clock: Clock) -> Figures:
    """What monitor shows of its table; `clock` is the one that back-off goes by."""
    return Figures(_GAUGES, partial(_read, clock))
