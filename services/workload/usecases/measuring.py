"""Gauges of what stands in workload's tables: machines, sweeps that wait for a person, clouds that do not answer."""

from collections.abc import Mapping
from functools import partial
from uuid import UUID

from sqlalchemy import func, select

from libs.common.clock import Clock
from libs.common.db import Session
from libs.common.figures import Figures, Gauge, Readings
from libs.providers.health import CIRCUIT, judge
from services.workload.domain.states import LIVE
from services.workload.models import Machine, Resource

MOST_CLUSTERS = 500
"""Where more clusters have machines, they are counted by resource alone: a label's values must stay few."""
ALL_CLUSTERS = ""

_Counts = Mapping[tuple[UUID, UUID, str], int]


async def _read(clock: Clock, session: Session) -> list[Readings]:
    rows = (await session.execute(select(Resource).where(Resource.gone.is_(False)))).scalars().all()
    now = clock.now()
    machines = (
        select(Machine.resource_id, Machine.cluster_id, Machine.state, func.count())
        .where(Machine.resource_id.in_([row.id for row in rows]), Machine.state.in_(LIVE))
        .group_by(Machine.resource_id, Machine.cluster_id, Machine.state)
    )
    counts = (await session.execute(machines)).all()
    circuits = ((str(row.id), judge(row.failures, row.retry_at, now), row.refused_cause) for row in rows)
    return [
        label_machines(
            {(resource, cluster, state.value): count for resource, cluster, state, count in counts}
        ),
        {(str(row.id),): row.sweep_stopped is not None for row in rows},
        {(str(row.id),): row.away_since is not None for row in rows},
        {(resource, state.value, cause or ""): 1 for resource, state, cause in circuits},
    ]


def label_machines(counts: _Counts) -> dict[tuple[str, ...], float]:
    """Machines by resource, cluster and state; by resource and state alone where there are too many clusters."""
    is_bounded = len({cluster for _, cluster, _ in counts}) <= MOST_CLUSTERS
    labelled: dict[tuple[str, ...], float] = {}
    for (resource, cluster, state), count in counts.items():
        labels = (str(resource), str(cluster) if is_bounded else ALL_CLUSTERS, state)
        labelled[labels] = labelled.get(labels, 0) + count
    return labelled


_GAUGES = (
    Gauge(
        "tides_machines",
        "Machines that may exist in a cloud, by ids of resource and cluster, and state. Beyond 500 clusters the"
        " cluster is left empty.",
        ("resource", "cluster", "state"),
    ),
    Gauge(
        "tides_sweep_stopped",
        "1 where the sweeper found more strangers than it dares to remove, and waits for a person.",
        ("resource",),
    ),
    Gauge(
        "tides_resource_away",
        "1 where a cloud gave no good answer for ten minutes: its machines hold no quota, another may stand in.",
        ("resource",),
    ),
    CIRCUIT,
)


def figures(clock: Clock) -> Figures:
    """What workload shows of its tables; `clock` is the one that back-off goes by."""
    return Figures(_GAUGES, partial(_read, clock))
