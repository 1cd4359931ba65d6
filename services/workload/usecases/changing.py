"""A resource changes: what its mode says holds at once; one that is abandoned is written off."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy import delete, select

from libs.common.contracts.action import LimitsSuperseded, MachineAbandoned, MachineLeft, ResourceAbandoned
from libs.common.contracts.resource import ResourceChanged
from libs.common.db import Session
from libs.common.ids import state_id
from services.workload.domain.states import LIVE, MachineState, Wanted, advance
from services.workload.models import ActionRecord, Cluster, Machine, Orphan, Resource
from services.workload.usecases import probing
from services.workload.usecases.following import Means
from services.workload.usecases.judging import rejudge_all
from services.workload.usecases.limiting import about_limits
from services.workload.usecases.looking import about_machine
from services.workload.usecases.projections import remember_resource
from services.workload.usecases.recording import record

log = structlog.get_logger(__name__)


async def change_resource(means: Means, session: Session, event: ResourceChanged) -> None:
    """Take a resource's newest state. What its mode says holds at once, without a new sample.

    That one was abandoned is looked at again when it is told again: an older process does not know the word.
    """
    before = await probing.probe_of(session, event.resource_id)
    is_news = await remember_resource(session, event)
    if is_news:
        await probing.change_probe(session, before, event, means.clock.now())
    resource = await session.get_one(Resource, event.resource_id)
    if event.gone and event.abandoned:
        if is_news or await _was_passed_over(session, event):
            await _abandon(session, resource, event, means.clock.now())
    elif is_news and not event.gone:
        await rejudge_all(means, session, resource)


async def _was_passed_over(session: Session, event: ResourceChanged) -> bool:
    """Whether whoever took the news first wrote nothing off."""
    left = select(Machine.id).where(Machine.resource_id == event.resource_id, Machine.state.in_(LIVE))
    told = select(ActionRecord.id).where(ActionRecord.id == _abandoned_id(event))
    return await session.scalar(left.limit(1)) is not None and await session.scalar(told) is None


def _abandoned_id(event: ResourceChanged) -> UUID:
    return state_id(ResourceAbandoned.key, str(event.resource_id), event.revision)


async def _abandon(session: Session, resource: Resource, event: ResourceChanged, now: datetime) -> None:
    """Write off every machine without asking the cloud, and say which may be left there.

    The resource's row is locked already; without its lease nothing that is under way can settle, or ask for more.
    """
    resource.lease_token = resource.lease_until = resource.sweep_stopped = None
    of_resource = select(Cluster).where(Cluster.resource_id == resource.id).order_by(Cluster.id)
    locked = await session.execute(of_resource.with_for_update(key_share=True))
    clusters = {cluster.id: cluster for cluster in locked.scalars()}
    for cluster in clusters.values():
        _close_limits(session, cluster, event.abandoned, now)
    # Whoever judged before the locks is done: what was requested meanwhile is read here.
    rows = select(Machine).where(Machine.resource_id == resource.id, Machine.state.in_(LIVE))
    ordered = rows.order_by(Machine.cluster_id, Machine.ordinal).with_for_update(key_share=True)
    machines = (await session.execute(ordered)).scalars().all()
    left = [_write_off(session, event, clusters[row.cluster_id], row, now) for row in machines]
    await session.execute(delete(Orphan).where(Orphan.resource_id == resource.id))
    _tell_abandoned(session, event, left, now)


def _close_limits(session: Session, cluster: Cluster, why: str, now: datetime) -> None:
    """Limits that were asked for and have no outcome get one."""
    if cluster.limits_id is not None and cluster.limits_id != cluster.limits_applied_id:
        record(session, LimitsSuperseded(**about_limits(cluster, now) | {"reason": why}))
        cluster.limits_applied_id = cluster.limits_id
    cluster.occupied = False


def _write_off(
    session: Session, event: ResourceChanged, cluster: Cluster, machine: Machine, now: datetime
) -> MachineLeft:
    before = machine.state
    machine.state, machine.state_since = advance(before, MachineState.ABANDONED), now
    machine.wanted, machine.wanted_by_hand, machine.reason = Wanted.GONE, True, event.abandoned
    record(session, MachineAbandoned(**about_machine(machine, now, event.abandoned)))
    log.warning(
        "machine.abandoned",
        machine=machine.name,
        cluster=cluster.name,
        resource=event.name,
        before=before.value,
        reason=event.abandoned,
    )
    return MachineLeft(
        machine.id, machine.name, cluster.id, cluster.name, machine.host, before.value, machine.power
    )


def _tell_abandoned(
    session: Session, event: ResourceChanged, left: Sequence[MachineLeft], now: datetime
) -> None:
    abandoned = ResourceAbandoned(
        id=_abandoned_id(event),
        at=now,
        resource_id=event.resource_id,
        reason=event.abandoned,
        machines=tuple(left),
    )
    record(session, abandoned)
    log.warning("resource.abandoned", resource=event.name, machines=len(left), reason=event.abandoned)
