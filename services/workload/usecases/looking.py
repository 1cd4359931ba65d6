"""Settling a look at the inventory: machine rows follow what the cloud shows, and the next acts come out.

The only writer of `Machine.state`. A single read is never trusted to say that something is gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from libs.common.contracts.action import (
    MachineDeployed,
    MachineDestroyed,
    MachineDraining,
    MachineFact,
    MachineFailed,
    MachineLost,
    MachineResumed,
    MachineSuspended,
    SweepStopped,
)
from libs.common.contracts.usage import HostState
from libs.common.db import Session
from libs.harvest.types import Rung
from libs.providers.base import MachineSeen, ProviderError
from services.workload.domain.states import LIVE, PRESENT, STAGE_DEADLINE_S, MachineState, Wanted, advance
from services.workload.domain.steps import Act, next_step
from services.workload.domain.sweep import is_too_many
from services.workload.models import Cluster, Machine, Orphan, Resource
from services.workload.usecases.recording import record

log = structlog.get_logger(__name__)

ABSENT_TWICE = 2
MISSING_THRICE = 3
EMPTY_LOOKS = 15
"""An inventory that shows nothing at all where machines were expected has to say so this often."""
GIVEN_UP_AFTER = timedelta(minutes=10)
"""A lost machine that has not been found by then is gone; one that comes later is a stranger to the sweeper."""
ORPHAN_GRACE = timedelta(minutes=10)
FIRST_BACK_OFF_S = 60.0
MOST_ATTEMPTS = 5


_EXPECTED = PRESENT | {MachineState.LOST}


@dataclass(frozen=True, slots=True)
class Due:
    """An act to perform on the cloud, with everything it takes."""

    act: Act
    machine_id: UUID | None
    name: str


@dataclass(slots=True)
class Look:
    """What one look at the inventory means."""

    due: list[Due] = field(default_factory=list)
    live: int = 0
    """Machines that have not been destroyed, and orphans."""


@dataclass(frozen=True, slots=True)
class _Scene:
    """The resource at the moment of the look."""

    session: Session
    resource: Resource
    clusters: dict[UUID, Cluster]
    is_blank: bool
    """Nothing at all was shown although machines were expected: more likely a fault than an absence."""
    now: datetime

    @property
    def lost_after(self) -> int:
        return EMPTY_LOOKS if self.is_blank else MISSING_THRICE

    @property
    def gone_after(self) -> int:
        return EMPTY_LOOKS if self.is_blank else ABSENT_TWICE

    def is_drained(self, machine: Machine) -> bool:
        """Whether a machine that is to go has had its grace."""
        cluster = self.clusters[machine.cluster_id]
        rung = (cluster.decision or {}).get("rung", 0)
        if self.resource.force or rung >= Rung.DESTROY or _is_away(cluster, machine.host):
            return True
        grace = timedelta(seconds=cluster.drain_grace_s)
        return machine.state is MachineState.DRAINING and self.now >= machine.state_since + grace


def _is_away(cluster: Cluster, host: str | None) -> bool:
    """Whether the newest sample has the host in maintenance or out of service: nothing of ours is waited for there."""
    sample = cluster.sample or {}
    states = dict(zip(sample.get("hosts", ()), sample.get("states", ()), strict=True))
    return host is not None and states.get(host, HostState.CONNECTED) != HostState.CONNECTED


async def settle_look(
    session: Session, resource: Resource, seen: Sequence[MachineSeen], now: datetime
) -> Look:
    """Move every machine of the resource by what the cloud shows, and say which acts are due."""
    of_resource = select(Cluster).where(Cluster.resource_id == resource.id).order_by(Cluster.id)
    clusters = (await session.execute(of_resource.with_for_update(key_share=True))).scalars().all()
    rows = select(Machine).where(Machine.resource_id == resource.id, Machine.state.in_(LIVE))
    ordered = rows.order_by(Machine.cluster_id, Machine.ordinal).with_for_update(key_share=True)
    machines = list((await session.execute(ordered)).scalars())
    is_blank = not seen and any(machine.state in _EXPECTED for machine in machines)
    scene = _Scene(session, resource, {row.id: row for row in clusters}, is_blank, now)
    shown = {machine.name: machine for machine in seen}
    look = Look()
    for machine in machines:
        act = _look_at(scene, machine, shown.get(machine.name))
        if act is not None:
            machine.attempts += act is Act.CREATE
            look.due.append(Due(act, machine.id, machine.name))
    orphans = sorted(set(shown) - {machine.name for machine in machines})
    look.due.extend(await _sweep(scene, orphans, len(machines)))
    look.live = sum(machine.state is not MachineState.DESTROYED for machine in machines) + len(orphans)
    resource.failures, resource.retry_at = 0, None
    return look


def _look_at(scene: _Scene, machine: Machine, shown: MachineSeen | None) -> Act | None:
    if shown is None:
        machine.missing += 1
    else:
        machine.missing = 0
        machine.power, machine.limit_mhz = shown.power.value, shown.limit_mhz
        if shown.configured:  # an unfinished clone is not yet where it belongs
            machine.host = shown.host or machine.host
    if machine.state is MachineState.DESTROYING and machine.missing >= scene.gone_after:
        _move(scene, machine, MachineState.DESTROYED)
        return None
    if machine.state in PRESENT and machine.missing >= scene.lost_after:
        _move(scene, machine, MachineState.LOST)
        return None
    if (
        machine.state is MachineState.LOST
        and shown is None
        and scene.now >= machine.state_since + GIVEN_UP_AFTER
    ):
        _move(scene, machine, MachineState.DESTROYING)
        return None
    _watch_stage(scene, machine)
    step = next_step(machine.state, machine.wanted, shown, drained=scene.is_drained(machine))
    if shown is not None and (step.act is None or shown.error is not None):
        machine.error = shown.error  # else: why the act that is still due was refused
    _move(scene, machine, step.state)
    return step.act


def _watch_stage(scene: _Scene, machine: Machine) -> None:
    """A stage that is out of its time has failed: what cannot be made is taken back, and growth rests a while."""
    limit_s = STAGE_DEADLINE_S.get(machine.state)
    if limit_s is None or scene.now < machine.state_since + timedelta(seconds=limit_s) or machine.overdue:
        return
    machine.overdue = True
    log.error("machine.overdue", machine=machine.name, stage=machine.state.value, error=machine.error)
    if machine.state in {MachineState.CREATING, MachineState.STARTING}:
        fail(
            scene.session,
            scene.clusters[machine.cluster_id],
            machine,
            f"{machine.state.value} took too long",
            scene.now,
        )


async def settle_act_refused(
    session: Session, due: Due, error: ProviderError, *, is_final: bool, now: datetime
) -> None:
    """The cloud refused an act. What can never work, or has failed too often, is given up; the rest is tried again."""
    if due.machine_id is None:
        return
    machine = await session.get_one(Machine, due.machine_id)
    of_machine = select(Cluster).where(Cluster.id == machine.cluster_id).with_for_update(key_share=True)
    cluster = (await session.execute(of_machine)).scalar_one()
    machine.error = str(error)
    is_hopeless = is_final or machine.attempts >= MOST_ATTEMPTS
    if due.act is Act.CREATE and machine.wanted is not Wanted.GONE and is_hopeless:
        fail(session, cluster, machine, f"the cloud refused: {error}", now)


def fail(session: Session, cluster: Cluster, machine: Machine, why: str, now: datetime) -> None:
    """Give up a machine that cannot be made, compensate, and let the cluster rest before the next one."""
    cluster.deploy_failures += 1
    cluster.grow_after = now + timedelta(
        seconds=min(3600.0, FIRST_BACK_OFF_S * 2.0 ** (cluster.deploy_failures - 1))
    )
    record(session, MachineFailed(**_about(machine, now, why), stage=machine.state.value))
    machine.wanted, machine.wanted_by_hand, machine.reason = Wanted.GONE, True, why
    log.warning("machine.failed", machine=machine.name, stage=machine.state.value, reason=why)


def _move(scene: _Scene, machine: Machine, to: MachineState) -> None:
    came_from = machine.state
    if to is came_from:
        return
    machine.state = advance(came_from, to)
    machine.state_since, machine.overdue = scene.now, False
    event = _event_of(machine, came_from, to)
    if to is MachineState.RUNNING and machine.running_since is None:
        machine.running_since = scene.now
        scene.clusters[machine.cluster_id].deploy_failures = 0
    if event is not None:
        record(scene.session, event(**_about(machine, scene.now, machine.reason)))
    log.info(
        "machine.moved", machine=machine.name, before=came_from.value, state=to.value, reason=machine.reason
    )


_SAYS: dict[MachineState, type[MachineFact]] = {
    MachineState.SUSPENDED: MachineSuspended,
    MachineState.DRAINING: MachineDraining,
    MachineState.DESTROYED: MachineDestroyed,
    MachineState.LOST: MachineLost,
    MachineState.RUNNING: MachineResumed,
}


def _event_of(machine: Machine, came_from: MachineState, to: MachineState) -> type[MachineFact] | None:
    if to is MachineState.RUNNING and machine.running_since is None:
        return MachineDeployed
    return _SAYS.get(to)


def _about(machine: Machine, now: datetime, reason: str) -> dict[str, Any]:
    return {
        "at": now,
        "machine_id": machine.id,
        "name": machine.name,
        "workload_id": machine.workload_id,
        "organisation_id": machine.organisation_id,
        "resource_id": machine.resource_id,
        "cluster_id": machine.cluster_id,
        "host": machine.host,
        "vcpus": machine.vcpus,
        "reason": reason,
    }


async def _sweep(scene: _Scene, names: Sequence[str], known: int) -> list[Due]:
    """Timid: a few strangers with our mark go after a grace; many mean that the database is the stranger."""
    session, resource = scene.session, scene.resource
    gone = delete(Orphan).where(Orphan.resource_id == resource.id, Orphan.name.not_in(names))
    await session.execute(gone)
    if not names:
        resource.sweep_stopped = None
        return []
    rows = [
        {"name": name, "resource_id": resource.id, "seen_at": scene.now, "allowed": False} for name in names
    ]
    await session.execute(insert(Orphan).values(rows).on_conflict_do_nothing())
    found = (await session.execute(select(Orphan).where(Orphan.resource_id == resource.id))).scalars().all()
    waiting = [orphan for orphan in found if not orphan.allowed]
    if is_too_many(len(waiting), known):
        _stop_sweeping(scene, len(waiting), known)
    else:
        resource.sweep_stopped = None
    grace_over = [
        o for o in found if resource.sweep_stopped is None and scene.now >= o.seen_at + ORPHAN_GRACE
    ]
    return [Due(Act.DELETE, None, orphan.name) for orphan in found if orphan.allowed or orphan in grace_over]


def _stop_sweeping(scene: _Scene, orphans: int, known: int) -> None:
    if scene.resource.sweep_stopped is not None:
        return
    reason = f"{orphans} machines with our mark are in no row of this database, which knows {known}"
    scene.resource.sweep_stopped = reason
    log.error("sweep.stopped", resource=scene.resource.name, orphans=orphans, known=known)
    stopped = SweepStopped(
        at=scene.now, resource_id=scene.resource.id, orphans=orphans, machines=known, reason=reason
    )
    record(scene.session, stopped)
