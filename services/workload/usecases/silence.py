"""Silence acts too: clusters that nothing is heard of are judged all the same, each organisation's by themselves."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, literal, or_, select

from libs.common.db import Session, Utc
from services.workload.models import Cluster, Resource
from services.workload.usecases.following import Means
from services.workload.usecases.judging import rejudge_these

INTERVALS = 3
"""So many without a sample are silence."""
BATCH = 50
"""Clusters of one transaction."""


async def silent_organisations(means: Means, session: Session) -> Sequence[UUID]:
    """Whose clusters were not heard of for three intervals, nor judged so for one."""
    silent = select(Resource.organisation_id).join(Cluster, Cluster.resource_id == Resource.id)
    found = await session.scalars(silent.where(*_is_silent(means.clock.now())).distinct())
    return sorted(found.all())


async def judge_silence(means: Means, session: Session, organisation_id: UUID) -> bool:
    """Call `decide` with Missing for silent clusters of an organisation, those first that have waited for longest.

    Whether there may be more of them. Clusters that another replica is judging are skipped: they are being heard of.
    """
    now = means.clock.now()
    rows = (
        select(Cluster, Resource)
        .join(Resource, Resource.id == Cluster.resource_id)
        .where(Resource.organisation_id == organisation_id, *_is_silent(now))
        .order_by(Cluster.silent_at.nulls_first(), Cluster.id)
        .limit(BATCH)
        .with_for_update(key_share=True, skip_locked=True, of=Cluster)
    )
    silent: dict[Resource, list[Cluster]] = {}
    for cluster, resource in (await session.execute(rows)).all():
        cluster.silent_at = now
        silent.setdefault(resource, []).append(cluster)
    for resource, clusters in silent.items():
        await session.refresh(resource)  # it may have changed before its clusters were locked
        if not resource.gone:
            await rejudge_these(means, session, resource, clusters)
    return sum(map(len, silent.values())) >= BATCH


def _is_silent(now: datetime) -> Sequence[ColumnElement[bool]]:
    interval = func.make_interval(0, 0, 0, 0, 0, 0, Cluster.interval_s)
    return (
        Resource.gone.is_(False),
        Cluster.state.is_not(None),
        Cluster.heard_at.is_not(None),
        Cluster.heard_at + INTERVALS * interval < literal(now, Utc),
        or_(Cluster.silent_at.is_(None), Cluster.silent_at + interval < literal(now, Utc)),
    )
