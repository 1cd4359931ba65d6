"""Releasing: what may be taken out of a cloud, and that nothing of ours is left."""

from datetime import datetime

from sqlalchemy import exists, select, update

from libs.common.contracts.action import ResourceReleased
from libs.common.db import Session
from services.workload.domain.states import LIVE
from services.workload.models import Cluster, Machine, Resource
from services.workload.usecases.leasing import Claimed
from services.workload.usecases.recording import record


async def may_release(session: Session, row: Resource, claimed: Claimed) -> bool:
    """Whether the resource is still as it was claimed, and no machine of ours lives on it."""
    if row.gone or row.revision != claimed.revision:
        return False
    lives = exists().where(Machine.resource_id == row.id, Machine.state.in_(LIVE))
    return not (await session.execute(select(lives))).scalar_one()


async def note_cluster_released(session: Session, row: Resource, ref: str) -> None:
    """Remember that nothing of ours is in this cluster any more."""
    of_cluster = update(Cluster).where(Cluster.resource_id == row.id, Cluster.ref == ref)
    await session.execute(of_cluster.values(occupied=False))


async def settle_release(session: Session, row: Resource, claimed: Claimed, now: datetime) -> bool:
    """Say that nothing of ours is left, in answer to the wish that was claimed; False when there is another by now."""
    if not await may_release(session, row, claimed):
        return False
    row.released = True
    record(session, ResourceReleased(at=now, resource_id=row.id, revision=claimed.revision))
    return True
