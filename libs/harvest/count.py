"""How many machines should exist and run, where new ones fit, and how the count grows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from libs.harvest.fleet import Fleet, is_kept, is_powered, vcpus_of
from libs.harvest.types import (
    Facts,
    HostMemory,
    MachineFact,
    Policy,
    Reason,
    ReasonCode,
    Rung,
    State,
    Verdict,
)
from libs.harvest.verdict import has_dwelt


@dataclass(frozen=True, slots=True)
class Room:
    """Where machines fit under the present budgets."""

    kept: int
    """Machines that exist and are not draining."""
    powered: int
    """Powered-on machines whose host can carry them."""
    resumable: int
    """Suspended machines whose host can boot them now."""
    slots: tuple[str, ...]
    """Hosts that could boot a further machine, most headroom first."""
    nearest: tuple[float, str] | None
    """The best budget (MHz, host) among hosts that have a place for a machine but not the budget."""


def find_room(policy: Policy, hosts: Mapping[str, HostMemory], fleet: Fleet, disk_room: int | None) -> Room:
    """What fits where; `hosts` carry the budgets that count."""
    powered = resumable = 0
    slots: list[tuple[float, str]] = []
    short: list[tuple[float, str]] = []
    for host in sorted({*hosts, *fleet}):
        machines = fleet.get(host, ())
        memory = hosts.get(host)
        carried = _count_carried(policy, memory, machines)
        resumed = _count_resumable(policy, memory, machines)
        powered, resumable = powered + carried, resumable + resumed
        if memory is not None and len(machines) < min(policy.machines_per_host, memory.room):
            found = _find_slots(policy, host, memory, machines)
            slots += found
            short += [] if found else [(memory.budget_mhz, host)]
    slots.sort(key=lambda slot: (-slot[0], slot[1]))
    kept = sum(is_kept(machine) for machines in fleet.values() for machine in machines)
    limit = len(slots) if disk_room is None else disk_room
    return Room(kept, powered, resumable, tuple(host for _, host in slots[:limit]), max(short, default=None))


def bound_wanted(policy: Policy, facts: Facts, wanted: int) -> int:
    """Never above the cap of the policy or the granted quota."""
    granted = policy.max_machines if facts.granted_machines is None else facts.granted_machines
    return max(0, min(wanted, policy.max_machines, granted))


def count_running(rung: Rung, verdict: Verdict, wanted: int, room: Room) -> int:
    """How many machines may be powered on: those that run, and others only where the owner is calm."""
    if rung in (Rung.SUSPEND, Rung.DESTROY):
        return 0
    calm = rung <= Rung.FLOOR and verdict in (Verdict.IDLE, Verdict.NORMAL)
    new = len(place_missing(rung, verdict, wanted, room))
    return min(wanted, room.powered + (room.resumable if calm else 0) + new)


def place_missing(rung: Rung, verdict: Verdict, wanted: int, room: Room) -> tuple[str, ...]:
    """Hosts for machines that are wanted and do not exist; none while a suspended one can be resumed."""
    if rung is not Rung.LEND or verdict not in (Verdict.IDLE, Verdict.NORMAL) or room.resumable:
        return ()
    return room.slots[: max(0, wanted - room.kept)]


def grow(policy: Policy, state: State, facts: Facts, room: Room) -> tuple[int, Reason]:
    """The wanted count after one growth step at most, and what bound it. `state` is judged and lends."""
    granted = policy.max_machines if facts.granted_machines is None else facts.granted_machines
    fitting = room.kept + len(room.slots) - state.wanted
    step = min(policy.step_machines, policy.max_machines - state.wanted, granted - state.wanted, fitting)
    if state.wanted >= policy.max_machines:
        return state.wanted, Reason(
            ReasonCode.CAP, "machines", float(state.wanted), float(policy.max_machines)
        )
    if state.wanted >= granted:
        return state.wanted, Reason(ReasonCode.QUOTA, "machines", float(state.wanted), float(granted))
    if room.resumable:
        return state.wanted, Reason(ReasonCode.LENDING, "resuming")
    if step <= 0:
        return state.wanted, _name_shortage(policy, state, room)
    return state.wanted + step, Reason(ReasonCode.LENDING, "growing", float(step))


def has_cooled_down(policy: Policy, state: State, at: datetime) -> bool:
    """Whether the rest after the last growth step or retreat is over."""
    return state.grown_at is None or has_dwelt(state.grown_at, policy.cooldown_s, at)


def _name_shortage(policy: Policy, state: State, room: Room) -> Reason:
    if state.disk_room == 0:
        return Reason(ReasonCode.DATASTORE, "room", 0.0, 1.0)
    if room.nearest is None:
        return Reason(ReasonCode.LENDING, "full", float(room.kept))
    best, host = room.nearest
    return Reason(ReasonCode.NO_HEADROOM, "budget_mhz", best, _boot_mhz(policy), host)


def _boot_mhz(policy: Policy) -> float:
    return policy.floor_mhz_per_vcpu * policy.machine.vcpus


def _is_useful(policy: Policy, memory: HostMemory) -> bool:
    return memory.budget_mhz > 0 and memory.budget_mhz >= policy.useful_share * memory.capacity_mhz


def _count_carried(policy: Policy, memory: HostMemory | None, machines: Sequence[MachineFact]) -> int:
    """Powered-on kept machines that the host's budget keeps alive; all of them on an unseen host."""
    powered = [machine for machine in machines if is_powered(machine) and is_kept(machine)]
    if memory is None:
        return len(powered)
    carried, left = 0, memory.budget_mhz
    for machine in powered:
        left -= policy.floor_mhz_per_vcpu * vcpus_of(machine)
        carried += left >= 0
    return carried


def _count_resumable(policy: Policy, memory: HostMemory | None, machines: Sequence[MachineFact]) -> int:
    suspended = [machine for machine in machines if not is_powered(machine)]
    if memory is None or not suspended or not _is_useful(policy, memory):
        return 0
    powered = [machine for machine in machines if is_powered(machine)]
    left = memory.budget_mhz - policy.floor_mhz_per_vcpu * sum(vcpus_of(machine) for machine in powered)
    resumable = 0
    for machine in suspended[: max(0, memory.room - len(powered))]:
        left -= policy.floor_mhz_per_vcpu * vcpus_of(machine)
        resumable += left >= 0
    return resumable


def _find_slots(
    policy: Policy, host: str, memory: HostMemory, machines: Sequence[MachineFact]
) -> list[tuple[float, str]]:
    """One entry per further machine that the host could boot, with the headroom that is left before it."""
    if not _is_useful(policy, memory):
        return []
    free = min(policy.machines_per_host, memory.room) - len(machines)
    left = memory.budget_mhz - policy.floor_mhz_per_vcpu * sum(vcpus_of(machine) for machine in machines)
    need = _boot_mhz(policy)
    return [(left - need * number, host) for number in range(free) if left - need * number >= need]
