"""Images that are being made: a small machine installs what was asked for, turns itself off and becomes a template.

Templates says what is to be made and when that is over; here the machine is asked for, given up where its owner needs
the room, and what is left of it is marked to go. It is no machine that is lent: no decision counts it, it has a small
fixed budget (the floor), and where the owner wants his host back it goes first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import token_urlsafe
from typing import Any, TypeGuard
from uuid import UUID

import structlog
from sqlalchemy import func, or_, select

from libs.common.contracts.derivation import DerivationMoved, Step
from libs.common.contracts.resource import Mode
from libs.common.contracts.supply import TemplateState
from libs.common.contracts.usage import HostState
from libs.common.db import Session
from libs.common.ids import new_id
from libs.common.secrets import guest_token_context
from libs.harvest.document import InvalidPolicy
from libs.harvest.types import Rung
from services.workload.domain.states import ENDED, LIVE, MachineState, Wanted
from services.workload.models import Cluster, Derivation, Machine, Resource, Template, Workload
from services.workload.usecases import images
from services.workload.usecases.following import Means
from services.workload.usecases.recording import record
from services.workload.usecases.rules import Rulebook, open_rulebook

log = structlog.get_logger(__name__)

SAY_AGAIN_AFTER = timedelta(seconds=30)
VCPUS, MEMORY_MIB = 2, 2048
FREE_AFTERWARDS = 0.15
"""Of a host's memory: so much stays free when the builder is there, and of the datastore at least."""
FULL = 0.05
"""Of a host's CPU: a builder goes where its owner leaves less."""
_BEGINS = (Mode.OBSERVE, Mode.LEND)


@dataclass(frozen=True, slots=True)
class _Progress:
    step: Step
    reason: str
    machine_id: UUID | None = None


async def resources_with_derivations(session: Session) -> Sequence[UUID]:
    """Where an image is being made, or one may have to go."""
    revoked = select(Template.version_id).where(Template.state == TemplateState.REVOKED.value)
    is_to_go = Derivation.kept.is_(False) | Derivation.id.in_(revoked)  # a version in use asks for nothing
    open_ones = select(Derivation.resource_id).where(
        or_(Derivation.over.is_(False), Derivation.discarded.is_(False) & is_to_go)
    )
    living = select(Resource.id).where(Resource.id.in_(open_ones), Resource.gone.is_(False))
    return (await session.scalars(living.order_by(Resource.id))).all()


async def derive(means: Means, session: Session, resource_id: UUID) -> None:
    """Bring every derivation of a resource further by one step. Its row is locked: two replicas make one machine."""
    row = select(Resource).where(Resource.id == resource_id).with_for_update(key_share=True, skip_locked=True)
    resource = await session.scalar(row)
    if resource is None or resource.gone:
        return
    now = means.clock.now()
    # Rows are locked in one order everywhere: clusters by id before derivations and machines.
    rows = select(Cluster).where(Cluster.resource_id == resource.id).order_by(Cluster.id)
    clusters = {row.id: row for row in await session.scalars(rows.with_for_update(key_share=True))}
    known = select(Derivation).where(Derivation.resource_id == resource_id, Derivation.discarded.is_(False))
    for derivation in (await session.scalars(known.order_by(Derivation.id).with_for_update())).all():
        mine = select(Machine).where(Machine.derivation_id == derivation.id)
        machine = await session.scalar(mine.with_for_update(key_share=True))
        if derivation.over:
            await _put_away(session, derivation, machine)
        elif machine is None:
            _tell(session, derivation, await _begin(means, session, resource, derivation, clusters), now)
        elif derivation.step != Step.MADE:
            _give_way(
                resource, clusters[machine.cluster_id], machine, now >= derivation.until + images.LATE_AFTER
            )
            _tell(session, derivation, _of_machine(machine), now)


async def _put_away(session: Session, derivation: Derivation, machine: Machine | None) -> None:
    """What is over leaves nothing, unless its template is a version that is not revoked, or that machines live on."""
    if derivation.kept:
        version = await session.get(Template, derivation.id)
        if version is None or version.state != TemplateState.REVOKED:
            return
        if await images.is_in_use(session, version):
            return
        derivation.outcome = "its version was revoked and no machine is left of it"
    if machine is not None and machine.state not in ENDED and machine.wanted is not Wanted.GONE:
        machine.wanted, machine.wanted_by_hand, machine.reason = Wanted.GONE, True, derivation.outcome
    derivation.discarded, derivation.cleared = True, derivation.cleared or machine is None


def _give_way(resource: Resource, cluster: Cluster, machine: Machine, is_late: bool) -> None:
    """The owner comes first, and a builder is no reason to keep a host: it goes, and its derivation has failed."""
    if machine.wanted is Wanted.GONE:
        return
    why = _why_owner_first(resource, cluster, machine)
    if why is None and is_late:
        why = "its time is over, and nobody has said so"
    if why is None and (images.is_tainted(machine) or machine.wanted is Wanted.SUSPENDED):
        why = "an older Tides took it for a machine that is lent"
    if why is not None:
        machine.wanted, machine.wanted_by_hand, machine.reason = Wanted.GONE, True, why


def _why_owner_first(resource: Resource, cluster: Cluster, machine: Machine) -> str | None:
    sample, decision = cluster.sample or {}, cluster.decision or {}
    state = dict(zip(sample.get("hosts", ()), sample.get("states", ()), strict=True)).get(machine.host)
    if resource.mode not in images.MODES:
        return f"the resource is in mode {resource.mode}"
    if cluster.draining:
        return "the cluster is being drained"
    if decision.get("rung", Rung.DRAIN) >= Rung.DRAIN or _is_full(cluster, machine):
        return f"its owner needs the host: {cluster.reason}"
    if state is not None and state != HostState.CONNECTED:
        return f"its host is in state {state}"
    return None


def _is_full(cluster: Cluster, machine: Machine) -> bool:
    """Whether its owner uses the whole host: without machines that are lent there is no ladder that says so.

    Budgets do not tell: they are at the floor also where nothing was heard of the cluster for a while.
    """
    budgets = (cluster.decision or {}).get("budgets", ())
    known = next((each for each in budgets if each["host"] == machine.host), None)
    if known is None or not _is_number(known["owner_mhz"]) or not _is_number(known["capacity_mhz"]):
        return False
    least_mhz = max(cluster.floor_mhz_per_vcpu * machine.vcpus, FULL * known["capacity_mhz"])
    return bool(known["capacity_mhz"] - known["owner_mhz"] < least_mhz)


def _of_machine(machine: Machine) -> _Progress:
    if machine.state in ENDED:
        why = f"{machine.reason}; {machine.error}" if machine.error else machine.reason
        return _Progress(Step.ENDED, why, machine.id)
    if machine.wanted is Wanted.GONE:
        return _Progress(Step.RUNNING, f"{machine.name} is given up: {machine.reason}", machine.id)
    if machine.running_since is not None:
        what = machine.error or "it installs, and turns itself off when it is done"
        return _Progress(Step.RUNNING, f"{machine.name}: {what}", machine.id)
    return _Progress(Step.REQUESTED, machine.error or f"{machine.name} is being made", machine.id)


async def _begin(
    means: Means,
    session: Session,
    resource: Resource,
    derivation: Derivation,
    clusters: dict[UUID, Cluster],
) -> _Progress:
    """Ask for the machine where there is room for it; else why not."""
    source, now = await session.get(Template, derivation.version_id), means.clock.now()
    if source is not None and source.state == TemplateState.REVOKED:
        return _Progress(Step.ENDED, "its origin was revoked")
    why_not = _why_not_yet(resource, source) or await _why_not_now(session, derivation, now)
    if source is None or why_not is not None:
        return _Progress(Step.WAITING, why_not or "")
    try:
        images.user_data_of(derivation)
    except ValueError as error:
        return _Progress(Step.ENDED, str(error))
    reasons = []
    rulebook = await open_rulebook(session, resource, list(clusters))
    for cluster in sorted(clusters.values(), key=lambda cluster: (cluster.name, cluster.id)):
        host, why = choose_host(cluster, source.disk_gib, _least_free(rulebook, cluster, now))
        if host is not None:
            machine = await _request(means, session, derivation, source, (cluster, host))
            return _Progress(Step.REQUESTED, f"{machine.name} is being made", machine.id)
        reasons.append(f"{cluster.name}: {why}")
    return _Progress(Step.WAITING, "; ".join(reasons) or "no cluster of it has been seen yet")


async def _why_not_now(session: Session, derivation: Derivation, now: datetime) -> str | None:
    """One builder at a time: several that are asked for at once would all be placed by the same sample."""
    if now >= derivation.until:
        return "its time is over"
    others = select(Machine.name).where(
        Machine.resource_id == derivation.resource_id,
        Machine.derivation_id.is_not(None),
        Machine.state.in_(LIVE),
    )
    other = await session.scalar(others.order_by(Machine.ordinal).limit(1))
    return None if other is None else f"another image is being made there: {other}"


def _least_free(rulebook: Rulebook, cluster: Cluster, now: datetime) -> float:
    """What part of the datastore has to stay free: as much as is kept free of what is lent, so that nothing leaves for
    a builder."""
    try:
        rules = rulebook.of(cluster, now)
    except InvalidPolicy:
        rules = None
    return max(FREE_AFTERWARDS, rules.policy.datastore_free_min if rules is not None else 0.0)


def _why_not_yet(resource: Resource, source: Template | None) -> str | None:
    if source is None:
        return "its origin is not known yet"
    if resource.mode not in _BEGINS:
        return f"the resource is in mode {resource.mode}"
    if resource.seen_at is None:
        return "what is there has not been looked at yet"
    if resource.sweep_stopped is not None:
        return f"the sweeper waits for a person: {resource.sweep_stopped}"
    return None if source.state == TemplateState.APPROVED else f"its origin is {source.state}"


def choose_host(
    cluster: Cluster, disk_gib: float, least_free: float = FREE_AFTERWARDS
) -> tuple[str | None, str]:
    """The host with most idle CPU that has the room, or why there is none.

    `least_free`: the part of the datastore that stays free.
    """
    decision, sample = cluster.decision, cluster.sample
    if decision is None or sample is None:
        return None, cluster.reason
    if cluster.paused_reason is not None or cluster.draining or decision["rung"] != Rung.LEND:
        return None, cluster.reason
    if not _has_disk_room(sample, disk_gib + MEMORY_MIB / 1024, least_free):
        return None, "its datastore has not the room for a builder"
    least_mhz = cluster.floor_mhz_per_vcpu * VCPUS
    budgets = {budget["host"]: budget["budget_mhz"] for budget in decision["budgets"]}
    columns = ("hosts", "states", "memory_capacity_mib", "memory_used_mib")
    fitting = [
        (budgets.get(host, 0.0), host)
        for host, state, capacity, used in zip(*(sample[name] for name in columns), strict=True)
        if state == HostState.CONNECTED
        and _is_number(capacity)
        and _is_number(used)
        and capacity - used - MEMORY_MIB >= FREE_AFTERWARDS * capacity
        and budgets.get(host, 0.0) >= least_mhz
    ]
    if not fitting:
        return None, f"no host has {least_mhz:.0f} MHz to lend and {MEMORY_MIB} MiB free"
    return max(fitting)[1], ""


def _has_disk_room(sample: Mapping[str, Any], needed_gib: float, least_free: float) -> bool:
    """Nothing measured is no obstacle; what cannot be believed is full, as for what is lent."""
    free, size = sample.get("datastore_free_gib"), sample.get("datastore_capacity_gib")
    if free is None and size is None:
        return True
    if not _is_number(free) or not _is_number(size):
        return False
    return bool(0 <= free <= size and free - needed_gib >= least_free * size > 0)


def _is_number(value: Any) -> TypeGuard[float]:
    """Stored samples have NaN as text."""
    return isinstance(value, int | float)


async def _request(
    means: Means, session: Session, derivation: Derivation, source: Template, where: tuple[Cluster, str]
) -> Machine:
    (cluster, host), now, identity = where, means.clock.now(), new_id()
    last = select(func.coalesce(func.max(Machine.ordinal), 0)).where(Machine.cluster_id == cluster.id)
    machine = Machine(
        id=identity, name=f"tides-{identity}", workload_id=await _workload_id(session, derivation, cluster, now),
        organisation_id=derivation.organisation_id, resource_id=cluster.resource_id, cluster_id=cluster.id,
        ordinal=(await session.execute(last)).scalar_one() + 1, slot=None, derivation_id=derivation.id,
        template_version_id=source.version_id, template_ref=source.reference, vcpus=VCPUS, memory_mib=MEMORY_MIB,
        disk_gib=source.disk_gib, host=host, wanted=Wanted.RUNNING, wanted_by_hand=False,
        state=MachineState.REQUESTED, state_since=now, created_at=now, attempts=0, missing=0, overdue=False,
        reason=f"an image is made of {derivation.name} version {derivation.version}",
        sealed_guest_token=means.vault.seal(token_urlsafe(32), guest_token_context(identity)),
    )  # fmt: skip
    session.add(machine)
    log.info("derivation.requested", machine=machine.name, cluster=cluster.name, host=host)
    return machine


async def _workload_id(session: Session, derivation: Derivation, cluster: Cluster, now: datetime) -> UUID:
    known = select(Workload).where(
        Workload.cluster_id == cluster.id, Workload.organisation_id == derivation.organisation_id
    )
    workload = await session.scalar(known)
    if workload is None:
        workload = Workload(
            id=new_id(), cluster_id=cluster.id, organisation_id=derivation.organisation_id, created_at=now,
            template=derivation.name, wanted=0,
        )  # fmt: skip
        session.add(workload)
        await session.flush()
    return workload.id


def _tell(session: Session, derivation: Derivation, progress: _Progress, now: datetime) -> None:
    step, reason = progress.step.value, progress.reason[:1000]
    if (derivation.step, derivation.reason) == (step, reason):
        return
    told_at = derivation.told_at
    if derivation.step == step and told_at is not None and now - told_at < SAY_AGAIN_AFTER:
        return
    derivation.step, derivation.reason, derivation.told_at = step, reason, now
    moved = DerivationMoved(
        id=new_id(), at=now, derivation_id=derivation.id, resource_id=derivation.resource_id,
        machine_id=progress.machine_id, step=step, reason=reason,
    )  # fmt: skip
    record(session, moved)
