"""Probes: while a resource only observes, one machine of it may be made to see whether it reaches its demander.

Registry says that there is a probe and when it is over, contribution hears of the machine; here it is made, once, as
any machine would be, and looked after like any other. With the probe it goes, unless the resource is lent by then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select, update

from libs.common.contracts.probe import ProbeMoved, Step
from libs.common.contracts.resource import Mode, ResourceChanged
from libs.common.db import Session
from libs.common.ids import new_id
from libs.harvest.document import InvalidPolicy
from libs.harvest.types import Decision, Rung
from services.workload.domain.states import LIVE, MachineState
from services.workload.models import Cluster, Machine, Resource
from services.workload.usecases.following import Means, Order, request_probe
from services.workload.usecases.granting import grant
from services.workload.usecases.recording import record
from services.workload.usecases.rules import Rulebook, open_rulebook

log = structlog.get_logger(__name__)

REASON = "a probe: it must reach its project before the resource is lent"
SAY_AGAIN_AFTER = timedelta(seconds=30)
"""Why a probe waits is another sentence with every sample; others hear of it this often at most."""
NOBODY_HEARS = (
    "machines of this installation are attached by files, and nobody would hear of one: set TIDES_BOINC_URL and"
    " TIDES_BOINC_SIGNING_KEY"
)
_GONE = frozenset({MachineState.DESTROYING, MachineState.DESTROYED, MachineState.ABANDONED})
_RUNS = frozenset(
    {MachineState.RUNNING, MachineState.SUSPENDING, MachineState.SUSPENDED, MachineState.DRAINING}
)
_DECISION: TypeAdapter[Decision] = TypeAdapter(Decision)


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far a probe is, and why no further."""

    step: Step
    reason: str
    machine_id: UUID | None = None


async def resources_with_probes(session: Session) -> Sequence[UUID]:
    """Where there is a probe."""
    probed = select(Resource.id).where(Resource.probe_id.is_not(None), Resource.gone.is_(False))
    return (await session.scalars(probed.order_by(Resource.id))).all()


async def probe(means: Means, session: Session, resource_id: UUID, *, has_door: bool) -> None:
    """Make the probe's machine, if there is none and there is room, and tell how far it is.

    The resource's row is locked, so that two replicas make one machine. `has_door`: guests can be heard of.
    """
    row = select(Resource).where(Resource.id == resource_id).with_for_update(key_share=True, skip_locked=True)
    resource = await session.scalar(row)
    if resource is None or resource.probe_id is None or resource.gone or resource.mode != Mode.OBSERVE:
        return
    now = means.clock.now()
    machine = await session.scalar(select(Machine).where(Machine.probe_id == resource.probe_id))
    if machine is not None:
        progress = _of_machine(machine)
    elif not has_door:
        progress = _Progress(Step.ENDED, NOBODY_HEARS)
    else:
        progress = await _begin(means, session, resource, now)
    _tell(session, resource, progress, now)


async def probe_of(session: Session, resource_id: UUID) -> UUID | None:
    """The probe of the resource as it is known; the row is locked."""
    known = select(Resource.probe_id).where(Resource.id == resource_id)
    return await session.scalar(known.with_for_update(key_share=True))


async def change_probe(session: Session, before: UUID | None, event: ResourceChanged, now: datetime) -> None:
    """The resource has another probe now, or none: how the one before went stands in the log of what was done."""
    if before == event.probe_id:
        return
    untold = {"probe_step": None, "probe_reason": None, "probe_told_at": None}
    await session.execute(update(Resource).where(Resource.id == event.resource_id).values(untold))
    if before is not None:
        reason = event.probe_outcome or "the probe is over"
        closed = {"at": now, "probe_id": before, "resource_id": event.resource_id, "reason": reason}
        record(session, ProbeMoved(**closed, step=Step.CLOSED))


def _of_machine(machine: Machine) -> _Progress:
    if machine.state in _GONE:
        why = f"{machine.reason}; {machine.error}" if machine.error else machine.reason
        return _Progress(Step.ENDED, why, machine.id)
    if machine.running_since is not None and machine.state in _RUNS:
        return _Progress(Step.RUNNING, f"{machine.name} runs", machine.id)
    return _Progress(Step.REQUESTED, machine.error or f"{machine.name} is being made", machine.id)


async def _begin(means: Means, session: Session, resource: Resource, now: datetime) -> _Progress:
    """Ask for the machine where the newest decisions would place one; else why not."""
    if resource.probe_until is not None and now >= resource.probe_until:
        return _Progress(Step.WAITING, "its time is over")
    if resource.seen_at is None:
        return _Progress(Step.WAITING, "what is there has not been looked at yet")
    if resource.sweep_stopped is not None:
        return _Progress(Step.WAITING, f"the sweeper waits for a person: {resource.sweep_stopped}")
    mine = (Machine.resource_id == resource.id) & Machine.state.in_(LIVE) & Machine.derivation_id.is_(None)
    if await session.scalar(select(Machine.id).where(mine).limit(1)) is not None:
        return _Progress(Step.WAITING, "a machine of before is still leaving")
    rows = select(Cluster).where(Cluster.resource_id == resource.id).order_by(Cluster.id)
    clusters = (await session.scalars(rows.with_for_update(key_share=True))).all()
    rulebook = await open_rulebook(session, resource, [cluster.id for cluster in clusters])
    for cluster in sorted(clusters, key=lambda cluster: (cluster.name, cluster.id)):
        order = await _order(means, session, rulebook, cluster, now)
        if order is not None:
            machine_id = await request_probe(session, order, order.decision.placements[0], now)
            log.info("probe.requested", resource=resource.name, cluster=cluster.name, machine=str(machine_id))
            return _Progress(Step.REQUESTED, f"tides-{machine_id} is being made", machine_id)
    reasons = [f"{cluster.name}: {cluster.reason}" for cluster in clusters]
    return _Progress(Step.WAITING, "; ".join(reasons) or "no cluster of it has been seen yet")


async def _order(
    means: Means, session: Session, rulebook: Rulebook, cluster: Cluster, now: datetime
) -> Order | None:
    """The newest decision of a cluster, if it would place a machine now and every quota leaves room for it."""
    try:
        rules = rulebook.of(cluster, now)
    except InvalidPolicy:
        return None
    if rules is None or rules.template is None or cluster.decision is None:
        return None
    try:
        decision = _DECISION.validate_python(cluster.decision)
    except ValidationError:  # a newer Tides decided so: no machine is made by what is not understood
        log.warning("probe.decision_not_read", cluster=cluster.name)
        return None
    if decision.rung is not Rung.LEND or not decision.placements:
        return None
    rules = (await grant(session, rulebook, cluster, rules, now, apart=means.apart)).rules
    if rules.granted == 0:
        return None
    return Order(means, rulebook.resource, cluster, decision, rules.policy, rules.template, REASON)


def _tell(session: Session, resource: Resource, progress: _Progress, now: datetime) -> None:
    assert resource.probe_id is not None
    step, reason = progress.step.value, progress.reason[:1000]
    if (resource.probe_step, resource.probe_reason) == (step, reason):
        return
    told_at = resource.probe_told_at
    if resource.probe_step == step and told_at is not None and now - told_at < SAY_AGAIN_AFTER:
        return
    resource.probe_step, resource.probe_reason, resource.probe_told_at = step, reason, now
    moved = ProbeMoved(
        id=new_id(), at=now, probe_id=resource.probe_id, resource_id=resource.id, machine_id=progress.machine_id,
        step=step, reason=reason,
    )  # fmt: skip
    record(session, moved)
