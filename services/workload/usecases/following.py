"""Following a decision: limits that are desired, machines that are wanted, and the events that say so."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from secrets import token_urlsafe
from uuid import UUID

from sqlalchemy import func, select

from libs.common.clock import Clock
from libs.common.contracts.action import LimitsRequested, LimitsSuperseded, MachineRequested
from libs.common.contracts.resource import Mode
from libs.common.db import Session
from libs.common.ids import new_id
from libs.common.secrets import Vault, guest_token_context
from libs.common.wake import Errands
from libs.harvest.types import Decision, Policy
from libs.providers.values import Power
from services.workload.domain.plan import MachineNow, is_too_late, plan_machines
from services.workload.domain.slots import free_slots
from services.workload.domain.states import LIVE, MachineState, Wanted, takes_limit
from services.workload.models import Cluster, Machine, Resource, Template, Workload
from services.workload.usecases.instruments import Instruments
from services.workload.usecases.recording import record


@dataclass(frozen=True, slots=True)
class Means:
    """What judging needs from outside: the time, the seal for guests' tokens, and what counts."""

    clock: Clock
    vault: Vault
    instruments: Instruments
    errands: Errands
    """Whose cloud is to be looked at sooner than at the next beat."""
    apart: bool = True
    """Whether the account manager tells each machine its projects; else every one gets all of them as files."""


@dataclass(frozen=True, slots=True)
class Order:
    """A decision about a cluster, and what it takes to carry it out."""

    means: Means
    resource: Resource
    cluster: Cluster
    decision: Decision
    policy: Policy | None
    """None: no policy is in force, nothing may be made."""
    template: Template | None
    """None: no machine can be made now."""
    reason: str


async def follow(session: Session, order: Order, machines: Sequence[Machine], now: datetime) -> bool:
    """Write down what is wanted now; whether machines were asked for that there were not.

    Where a resource only observes and has nothing of ours, nothing is wanted.
    """
    if order.resource.mode == Mode.OBSERVE and not machines:
        return False
    _want_limits(session, order, machines, now)
    plan = plan_machines(order.decision, [_now(machine) for machine in machines])
    for machine in machines:
        if machine.id in plan.wanted:
            machine.wanted, machine.reason = plan.wanted[machine.id], order.reason
    if not (order.resource.mode == Mode.LEND and order.template and order.policy and plan.create_on):
        return False
    await _request_machines(session, order, plan.create_on, now)
    return True


def hold(session: Session, order: Order, machines: Sequence[Machine], now: datetime) -> None:
    """Nothing could be decided: limits as the order says, nothing new, and what is there stays as it is wanted."""
    if order.resource.mode == Mode.OBSERVE and not machines:
        return
    _want_limits(session, order, machines, now)
    for machine in machines:
        if machine.wanted is not Wanted.GONE and is_too_late(order.decision.rung, _now(machine)):
            machine.wanted, machine.reason = Wanted.GONE, order.reason


def is_probe(resource: Resource, machine: Machine) -> bool:
    """Whether the machine is that of the resource's present probe: it lives though nothing is lent."""
    return machine.probe_id is not None and machine.probe_id == resource.probe_id


def is_limited(machine: Machine) -> bool:
    """Whether the machine runs in its own cluster, or may at any moment."""
    is_on = machine.power == Power.ON and machine.missing == 0
    return machine.seen_in is None and takes_limit(machine.state, is_on=is_on)


def _now(machine: Machine) -> MachineNow:
    return MachineNow(
        machine.id,
        machine.state,
        machine.wanted,
        machine.host,
        machine.vcpus,
        machine.ordinal,
        machine.wanted_by_hand,
        machine.power is not None,
    )


def _want_limits(session: Session, order: Order, machines: Sequence[Machine], now: datetime) -> None:
    cluster, decision = order.cluster, order.decision
    budgets = {budget.host: round(budget.budget_mhz, 1) for budget in decision.budgets}
    cap = round(decision.cap_mhz, 1)
    is_lent = any(is_limited(machine) for machine in machines)
    if is_lent and budgets == cluster.budgets_mhz and cap == cluster.cap_mhz:
        return
    if cluster.limits_id is not None and cluster.limits_id != cluster.limits_applied_id:
        record(session, LimitsSuperseded(**_limits(order, cluster.limits_id, now)))
    cluster.budgets_mhz, cluster.cap_mhz = budgets, cap
    if not is_lent:  # what comes later is told its limits when it is there
        cluster.limits_id = cluster.limits_applied_id
        return
    cluster.limits_id = new_id()
    record(session, LimitsRequested(**_limits(order, cluster.limits_id, now)))


def _limits(order: Order, action_id: UUID, now: datetime) -> dict[str, object]:
    cluster = order.cluster
    return {
        "at": now,
        "action_id": action_id,
        "resource_id": cluster.resource_id,
        "cluster_id": cluster.id,
        "cap_mhz": cluster.cap_mhz,
        "budgets_mhz": cluster.budgets_mhz,
        "sampled_at": cluster.sampled_at or now,
        "reason": order.reason,
    }


async def request_probe(session: Session, order: Order, host: str, now: datetime) -> UUID:
    """Ask for the machine of the resource's probe, on a resource that is not lent yet."""
    return (await _request_machines(session, order, [host], now, probe_id=order.resource.probe_id))[0]


async def _request_machines(
    session: Session, order: Order, hosts: Sequence[str], now: datetime, probe_id: UUID | None = None
) -> list[UUID]:
    workload = await _workload(session, order, now)
    last = select(func.coalesce(func.max(Machine.ordinal), 0)).where(Machine.cluster_id == order.cluster.id)
    ordinal: int = (await session.execute(last)).scalar_one()
    living = select(func.coalesce(Machine.slot, Machine.ordinal)).where(
        Machine.cluster_id == order.cluster.id, Machine.state.in_(LIVE)
    )
    slots = free_slots(set((await session.execute(living)).scalars()), len(hosts))
    return [
        _request(session, order, workload, _Place(host, ordinal + offset, slot, probe_id), now)
        for offset, (host, slot) in enumerate(zip(hosts, slots, strict=True), start=1)
    ]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a machine comes to be, which numbers it has in its cluster, and which probe it is."""

    host: str
    ordinal: int
    slot: int
    probe_id: UUID | None


def _request(session: Session, order: Order, workload: Workload, place: _Place, now: datetime) -> UUID:
    assert order.template is not None
    assert order.policy is not None
    identity, size, token = new_id(), order.policy.machine, token_urlsafe(32)
    machine = Machine(
        id=identity, name=f"tides-{identity}", workload_id=workload.id, cluster_id=order.cluster.id,
        ordinal=place.ordinal, slot=place.slot,
        organisation_id=workload.organisation_id, resource_id=order.resource.id,
        template_version_id=order.template.version_id, template_ref=order.template.reference, vcpus=size.vcpus,
        memory_mib=size.memory_mib, disk_gib=max(size.disk_gib, order.template.disk_gib), host=place.host,
        wanted=Wanted.RUNNING, wanted_by_hand=False, state=MachineState.REQUESTED, state_since=now,
        reason=order.reason, created_at=now, attempts=0, missing=0, overdue=False, probe_id=place.probe_id,
        sealed_guest_token=order.means.vault.seal(token, guest_token_context(identity)),
    )  # fmt: skip
    session.add(machine)
    requested = MachineRequested(
        at=now, machine_id=identity, name=machine.name, workload_id=workload.id, host=place.host, vcpus=size.vcpus,
        organisation_id=workload.organisation_id, resource_id=order.resource.id, cluster_id=order.cluster.id,
        reason=order.reason, guest_token_sha256=sha256(token.encode()).hexdigest(), probe_id=place.probe_id,
    )  # fmt: skip
    record(session, requested)
    return identity


async def _workload(session: Session, order: Order, now: datetime) -> Workload:
    assert order.policy is not None
    organisation = order.resource.organisation_id
    rows = select(Workload).where(
        Workload.cluster_id == order.cluster.id, Workload.organisation_id == organisation
    )
    workload = (await session.execute(rows)).scalar_one_or_none()
    if workload is None:
        workload = Workload(
            id=new_id(), cluster_id=order.cluster.id, organisation_id=organisation, created_at=now,
            template=order.policy.machine.template, wanted=order.decision.wanted,
        )  # fmt: skip
        session.add(workload)
        await session.flush()
    workload.wanted, workload.template = order.decision.wanted, order.policy.machine.template
    return workload
