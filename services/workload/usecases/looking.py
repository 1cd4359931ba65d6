"""Settling a look at the inventory: machine rows follow what the cloud shows, and the next acts come out.

The only writer of `Machine.state`. A single read is never trusted to say that something is gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import select

from libs.common.contracts.action import (
    MachineDeployed,
    MachineDestroyed,
    MachineDraining,
    MachineFact,
    MachineFailed,
    MachineLost,
    MachineResumed,
    MachineSuspended,
)
from libs.common.contracts.resource import Mode
from libs.common.contracts.usage import HostState
from libs.common.db import Session
from libs.harvest.types import Rung
from libs.providers.base import MachineSeen, ProviderError
from services.workload.domain.states import (
    LIVE,
    PRESENT,
    STAGE_DEADLINE_S,
    MachineState,
    Wanted,
    advance,
)
from services.workload.domain.steps import Act, Step, next_build_step, next_step
from services.workload.models import Cluster, Machine, Resource
from services.workload.usecases.images import count_undecided, templates_of_ours, to_clear
from services.workload.usecases.leasing import forget_failures
from services.workload.usecases.recording import record
from services.workload.usecases.sweeping import Stray, sweep

log = structlog.get_logger(__name__)

ABSENT_TWICE = 2
MISSING_THRICE = 3
EMPTY_LOOKS = 15
"""An inventory that shows nothing at all where machines were expected has to say so this often."""
GIVEN_UP_AFTER = timedelta(minutes=10)
"""A lost machine that has not been found by then is gone, if its cluster showed others of ours all the while."""
FIRST_BACK_OFF_S = 60.0
MOST_ATTEMPTS = 5


_EXPECTED = PRESENT | {MachineState.LOST}


@dataclass(frozen=True, slots=True)
class Due:
    """An act to perform on the cloud, with everything it takes."""

    act: Act
    machine_id: UUID | None
    name: str
    cluster: str
    """Its display name."""
    reason: str
    derivation_id: UUID | None = None
    """What it is deleted for is no machine any more, but the template that it became."""


@dataclass(slots=True)
class Look:
    """What one look at the inventory means."""

    due: list[Due] = field(default_factory=list)
    live: int = 0
    """Machines that have not been destroyed, orphans, and templates that may have to go."""
    is_first: bool = False
    """Whether this database had never seen what is there: judging waited for it."""


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

    def why_no_grace(self, machine: Machine) -> str | None:
        """Why a machine that is to go need not wait any longer; None: it has its grace still."""
        cluster = self.clusters[machine.cluster_id]
        if self.resource.force:
            return "released by force, without grace"
        if (cluster.decision or {}).get("rung", 0) >= Rung.DESTROY:
            return cluster.reason
        if away := _why_elsewhere(self, machine) or _why_away(cluster, machine.host):
            return away
        drained_at = machine.drained_at
        if machine.state is MachineState.DRAINING and drained_at and drained_at >= machine.state_since:
            return f"its guest has ended its work and lost {machine.lost_cpu_s or 0:.0f} CPU seconds"
        grace = timedelta(seconds=cluster.drain_grace_s)
        is_over = machine.state is MachineState.DRAINING and self.now >= machine.state_since + grace
        return f"its grace of {cluster.drain_grace_s:.0f} s is over" if is_over else None

    def is_given_up(self, machine: Machine) -> bool:
        """Whether a lost machine will not be found any more.

        One that is still wanted is waited for while its cluster shows nothing of ours at all, however long that lasts.
        """
        cluster = self.clusters[machine.cluster_id]
        gives_back = self.resource.mode in (Mode.DRAINING, Mode.OBSERVE) or cluster.draining
        since = machine.state_since
        if cluster.blank_at is not None and machine.wanted is not Wanted.GONE and not gives_back:
            since = max(since, cluster.blank_at)
        return self.now >= since + GIVEN_UP_AFTER


def _why_elsewhere(scene: _Scene, machine: Machine) -> str | None:
    """Why a machine that another cluster shows may not stay: nothing bounds it there, and it is not lent there."""
    if machine.seen_in is None:
        return None
    names = {cluster.ref: cluster.name for cluster in scene.clusters.values()}
    home = scene.clusters[machine.cluster_id].name
    return f"it was moved from cluster {home} to {names.get(machine.seen_in, machine.seen_in)}"


def _why_away(cluster: Cluster, host: str | None) -> str | None:
    """What the newest sample has against a host: nothing of ours is waited for where it is not connected."""
    sample = cluster.sample or {}
    hosts = sample.get("hosts", ())
    state = dict(zip(hosts, sample.get("states", ()), strict=True)).get(host, HostState.CONNECTED)
    if host is None or state == HostState.CONNECTED:
        return None
    name = dict(zip(hosts, sample.get("host_names", ()), strict=True))[host]
    return f"host {name} is not connected but in state {state}"


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
    _note_blank(scene, machines, seen)
    look = Look(is_first=resource.seen_at is None)
    resource.seen_at = resource.seen_at or now
    for machine in machines:
        act = _look_at(scene, machine, shown.get(machine.name))
        if act is not None:
            cluster = scene.clusters[machine.cluster_id]
            if act is Act.CREATE:
                cluster.occupied = True
            look.due.append(Due(act, machine.id, machine.name, cluster.name, machine.reason))
    names = {row.ref: row.name for row in clusters}
    unknown = set(shown) - {machine.name for machine in machines}
    unknown -= await templates_of_ours(session, resource.id) if unknown else set()
    strays = [
        Stray(name, names.get(shown[name].cluster, shown[name].cluster), shown[name])
        for name in sorted(unknown)
    ]
    _note_occupied(clusters, strays)
    for stray, why in await sweep(session, resource, strays, len(machines), now):
        look.due.append(Due(Act.DELETE, None, stray.name, stray.cluster, why))
    leftovers = await to_clear(session, resource.id)
    look.due += [Due(Act.DELETE, None, name, "", why, identity) for identity, name, why in leftovers]
    is_live = [machine for machine in machines if machine.state is not MachineState.DESTROYED]
    look.live = len(is_live) + len(strays) + len(leftovers)
    look.live += 0 if look.live else await count_undecided(session, resource.id, now)
    forget_failures(resource)
    return look


def _note_occupied(clusters: Sequence[Cluster], strays: Sequence[Stray]) -> None:
    """Where somebody bears our mark a pool and a folder of ours are, too, whether or not these rows remember it."""
    refs = {stray.seen.cluster for stray in strays}
    for cluster in clusters:
        if cluster.ref in refs and not cluster.occupied:
            cluster.occupied = True


def _note_blank(scene: _Scene, machines: Sequence[Machine], seen: Sequence[MachineSeen]) -> None:
    """Note the clusters that show nothing of ours though machines are expected there."""
    expected = {machine.cluster_id for machine in machines if machine.state in _EXPECTED}
    showing = {machine.cluster for machine in seen}
    for cluster_id in expected:
        cluster = scene.clusters[cluster_id]
        if cluster.ref not in showing:
            cluster.blank_at = scene.now


def _look_at(scene: _Scene, machine: Machine, shown: MachineSeen | None) -> Act | None:
    machine.progress = None if shown is None else shown.progress
    if shown is not None:  # else: what makes it may still run, and nobody here have heard of it
        machine.task_id = shown.task_id
    if shown is None:
        machine.missing += 1
    else:
        machine.missing = 0
        machine.power, machine.limit_mhz = shown.power.value, shown.limit_mhz
        if shown.configured:  # an unfinished clone is not yet where it belongs
            machine.host = shown.host or machine.host
            _note_where(scene, machine, shown.cluster)
    if machine.state is MachineState.DESTROYING and machine.missing >= scene.gone_after:
        _move(scene, machine, MachineState.DESTROYED)
        return None
    if machine.state in PRESENT and machine.missing >= scene.lost_after:
        _move(scene, machine, MachineState.LOST, f"{machine.missing} looks in a row did not show it")
        return None
    if machine.state is MachineState.LOST and shown is None and scene.is_given_up(machine):
        _move(scene, machine, MachineState.DESTROYING, "it was lost and has not been found again")
        return None
    _watch_stage(scene, machine)
    why_no_grace = scene.why_no_grace(machine)
    step = _step_of(machine, shown, drained=why_no_grace is not None)
    if shown is not None and (step.act is None or shown.error is not None):
        machine.error = shown.error  # else: why the act that is still due was refused
    _move(scene, machine, step.state, _why_moved(machine, step.state, why_no_grace))
    return step.act


def _step_of(machine: Machine, shown: MachineSeen | None, *, drained: bool) -> Step:
    if machine.derivation_id is None:
        return next_step(machine.state, machine.wanted, shown, drained=drained)
    has_run = machine.running_since is not None
    return next_build_step(machine.state, machine.wanted, shown, has_run=has_run)


def _note_where(scene: _Scene, machine: Machine, ref: str) -> None:
    """A machine that another cluster shows than its own was moved there, or its host was: it is given up."""
    machine.seen_in = ref if ref and ref != scene.clusters[machine.cluster_id].ref else None
    why = _why_elsewhere(scene, machine)
    if why is not None and not machine.wanted_by_hand:
        machine.wanted, machine.wanted_by_hand, machine.reason = Wanted.GONE, True, why


def _why_moved(machine: Machine, to: MachineState, why_no_grace: str | None) -> str | None:
    """What an administrator should read about a move besides why the machine is as it is wanted; None: no more."""
    if machine.state is MachineState.LOST and to is MachineState.STARTING:
        return "it was lost and has been found again"
    if to is not MachineState.DESTROYING or why_no_grace is None or why_no_grace in machine.reason:
        return None
    return f"{machine.reason}; {why_no_grace}"


def _watch_stage(scene: _Scene, machine: Machine) -> None:
    """A stage that is out of its time has failed: what cannot be made is taken back, and growth rests a while."""
    limit_s = STAGE_DEADLINE_S.get(machine.state)
    if limit_s is None or scene.now < machine.state_since + timedelta(seconds=limit_s) or machine.overdue:
        return
    machine.overdue = True
    log.error(
        "machine.overdue",
        machine=machine.name,
        cluster=scene.clusters[machine.cluster_id].name,
        resource=scene.resource.name,
        stage=machine.state.value,
        error=machine.error,
    )
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
    await session.refresh(machine)  # a decision may have come before the lock
    machine.error = str(error)
    if due.act not in (Act.CREATE, Act.KEEP):
        return
    is_final = is_final and due.act is Act.CREATE  # what is not off yet, or not shown, is looked at again
    machine.attempts += 1
    is_hopeless = is_final or machine.attempts >= MOST_ATTEMPTS
    if machine.wanted is not Wanted.GONE and is_hopeless:
        fail(session, cluster, machine, f"the cloud refused: {error}", now)


def fail(session: Session, cluster: Cluster, machine: Machine, why: str, now: datetime) -> None:
    """Give up a machine that cannot be made, compensate, and let the cluster rest before the next one."""
    if machine.derivation_id is None:  # else nothing that is lent has failed
        cluster.deploy_failures += 1
        rest_s = min(3600.0, FIRST_BACK_OFF_S * 2.0 ** (cluster.deploy_failures - 1))
        cluster.grow_after = now + timedelta(seconds=rest_s)
        record(session, MachineFailed(**about_machine(machine, now, why), stage=machine.state.value))
    machine.wanted, machine.wanted_by_hand, machine.reason = Wanted.GONE, True, why
    log.warning(
        "machine.failed",
        machine=machine.name,
        cluster=cluster.name,
        resource_id=str(machine.resource_id),
        stage=machine.state.value,
        reason=why,
    )


def _move(scene: _Scene, machine: Machine, to: MachineState, why: str | None = None) -> None:
    """Move a machine, say so, and keep why; what it was given up for stays the reason until it goes."""
    came_from = machine.state
    if to is came_from:
        return
    machine.state = advance(came_from, to)
    machine.state_since, machine.overdue = scene.now, False
    event, reason = _event_of(machine, came_from, to), why or machine.reason
    if machine.wanted is not Wanted.GONE or to is MachineState.DESTROYING:
        machine.reason = reason
    if to is MachineState.RUNNING and machine.running_since is None:
        machine.running_since = scene.now
        if machine.derivation_id is None:  # a builder says nothing for those that are lent
            scene.clusters[machine.cluster_id].deploy_failures = 0
    if event is not None and machine.derivation_id is None:
        about = about_machine(machine, scene.now, reason)
        if event is MachineDraining:
            about["grace_s"] = scene.clusters[machine.cluster_id].drain_grace_s
        record(scene.session, event(**about))
    cluster = scene.clusters[machine.cluster_id].name
    about = {"machine": machine.name, "cluster": cluster, "resource": scene.resource.name, "reason": reason}
    log.info("machine.moved", **about, before=came_from.value, state=to.value)


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


def about_machine(machine: Machine, now: datetime, reason: str) -> dict[str, Any]:
    """What every event about a machine holds."""
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
