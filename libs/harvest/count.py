"""How many machines should exist and run, where new ones fit, and how the count grows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from libs.harvest.admission import count_waking, find_left_mib
from libs.harvest.crowded import find_stuck, order_sleepers
from libs.harvest.fleet import Fleet, is_kept, is_powered, memory_mib_of, vcpus_of
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
    housed: int
    """Those of them that their hosts may have: one that was lost and is back may stand beside what replaced it."""
    powered: int
    """Powered-on machines whose host can carry them."""
    resumable: int
    """Suspended machines whose host can boot them now."""
    uncarried: tuple[str, ...]
    """Kept machines that are powered on where the host cannot carry them."""
    stuck: tuple[str, ...]
    """Suspended machines for which it is no use to wait (`libs.harvest.crowded`)."""
    slots: tuple[str, ...]
    """Hosts that could boot a further machine, most headroom first."""
    nearest: tuple[float, str] | None
    """The best budget (MHz, host) among hosts that have a place for a machine but not the budget."""
    fleet: Fleet
    """That was looked at."""
    left_mib: float
    """What HA's reserve leaves to further machines; infinite where HA keeps none."""


def find_room(policy: Policy, state: State, hosts: Mapping[str, HostMemory], fleet: Fleet) -> Room:
    """What fits where; `hosts` carry the budgets that count, the state what the cluster as a whole has room for."""
    names = hosts.keys() if fleet.keys() <= hosts.keys() else hosts.keys() | fleet.keys()
    kept = housed = powered = resumable = 0
    uncarried: list[MachineFact] = []
    stuck: list[MachineFact] = []
    slots: list[tuple[float, str]] = []
    short: list[tuple[float, str]] = []
    for host in sorted(names):
        machines, memory = fleet.get(host, ()), hosts.get(host)
        if machines:
            staying = [machine for machine in machines if machine.state != "draining"]
            awake = [machine for machine in staying if machine.state != "suspended"]
            carried = _count_carried(policy, memory, awake)
            kept, powered = kept + len(staying), powered + carried
            housed += min(len(staying), policy.machines_per_host)
            uncarried += awake[carried:]
            if len(awake) < len(staying):
                resumable += _count_resumable(policy, memory, machines)
                stuck += _find_stuck(policy, memory, machines)
        places = 0 if memory is None else _count_places(policy, memory, machines)
        if memory is not None and places > 0:
            found = _find_slots(policy, host, memory, machines, places)
            slots += found
            short += [] if found else [(memory.budget_mhz, host)]
    slots.sort(key=lambda slot: (-slot[0], slot[1]))
    limit = len(slots) if state.disk_room is None else state.disk_room
    left_mib = find_left_mib(policy, state.room_mib, fleet)
    if state.room_mib is not None:
        resumable = min(resumable, count_waking(policy, state.room_mib, fleet))
        limit = min(limit, max(0, int(left_mib // max(1, policy.machine.memory_mib))))
    return Room(
        kept,
        housed,
        powered,
        resumable,
        tuple(machine.machine for machine in uncarried),
        tuple(machine.machine for machine in stuck),
        tuple(host for _, host in slots[:limit]),
        max(short, default=None),
        fleet,
        left_mib,
    )


def bound_wanted(policy: Policy, facts: Facts, wanted: int) -> int:
    """Never above the cap of the policy or the granted quota."""
    granted = policy.max_machines if facts.granted_machines is None else facts.granted_machines
    return max(0, min(wanted, policy.max_machines, granted))


def count_running(rung: Rung, verdict: Verdict, wanted: int, room: Room, new: int) -> int:
    """How many machines may be powered on: those that run, `new` ones, and others only where the owner is calm."""
    if rung in (Rung.SUSPEND, Rung.DESTROY):
        return 0
    calm = rung <= Rung.FLOOR and verdict in (Verdict.IDLE, Verdict.NORMAL)
    return min(wanted, room.powered + (room.resumable if calm else 0) + new)


def find_unable(rung: Rung, fleet: Fleet, room: Room) -> tuple[str, ...]:
    """Powered-on machines that may not run on: these go where nothing can be suspended."""
    if rung < Rung.SUSPEND:
        return room.uncarried
    every = [machine for machines in fleet.values() for machine in machines]
    return tuple(sorted(machine.machine for machine in every if is_powered(machine) and is_kept(machine)))


def place_missing(rung: Rung, verdict: Verdict, wanted: int, room: Room) -> tuple[str, ...]:
    """Hosts for machines that are wanted and do not exist; none while a suspended one can be resumed."""
    if rung is not Rung.LEND or verdict not in (Verdict.IDLE, Verdict.NORMAL) or room.resumable:
        return ()
    return room.slots[: max(0, wanted - room.kept)]


def grow(policy: Policy, state: State, facts: Facts, room: Room) -> tuple[int, Reason]:
    """The wanted count after one growth step at most, and what bound it. `state` is judged and lends."""
    granted = policy.max_machines if facts.granted_machines is None else facts.granted_machines
    fitting = room.housed + len(room.slots) - state.wanted
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
    if room.left_mib < policy.machine.memory_mib:
        left_mib = max(0.0, room.left_mib)
        return Reason(ReasonCode.NO_HEADROOM, "ha_reserve", left_mib, float(policy.machine.memory_mib))
    if room.nearest is None:
        return Reason(ReasonCode.LENDING, "full", float(room.kept))
    best, host = room.nearest
    return Reason(ReasonCode.NO_HEADROOM, "budget_mhz", best, _boot_mhz(policy), host)


def _boot_mhz(policy: Policy) -> float:
    return policy.floor_mhz_per_vcpu * policy.machine.vcpus


def _is_useful(policy: Policy, memory: HostMemory) -> bool:
    return memory.budget_mhz > 0 and memory.budget_mhz >= policy.useful_share * memory.capacity_mhz


def _count_carried(policy: Policy, memory: HostMemory | None, awake: Sequence[MachineFact]) -> int:
    """How many of these the host's budget keeps alive; all of them on an unseen host."""
    if memory is None:
        return len(awake)
    carried, left = 0, memory.budget_mhz
    for machine in awake:
        left -= policy.floor_mhz_per_vcpu * vcpus_of(machine)
        carried += left >= 0
    return carried


def _count_resumable(policy: Policy, memory: HostMemory | None, machines: Sequence[MachineFact]) -> int:
    """How many of the suspended machines, smallest first, the host can boot: one in whose way a smaller one stands
    waits with it."""
    if memory is None or not _is_useful(policy, memory):
        return 0
    powered = [machine for machine in machines if is_powered(machine)]
    left_mhz = memory.budget_mhz - _needed_mhz(policy, powered)
    left_mib = _left_mib(policy, memory, powered)
    resumable = 0
    for machine in order_sleepers(policy, machines):
        left_mhz -= policy.floor_mhz_per_vcpu * vcpus_of(machine)
        left_mib -= memory_mib_of(policy, machine)
        resumable += left_mhz >= 0 and left_mib >= 0
    return resumable


def _find_stuck(
    policy: Policy, memory: HostMemory | None, machines: Sequence[MachineFact]
) -> list[MachineFact]:
    powered = [machine for machine in machines if is_powered(machine)]
    left_mib = 0.0 if memory is None else _left_mib(policy, memory, powered)
    return find_stuck(policy, memory, machines, left_mib)


def _count_places(policy: Policy, memory: HostMemory, machines: Sequence[MachineFact]) -> int:
    """Further machines of the policy's size that the host may have and its memory can hold."""
    if len(machines) >= policy.machines_per_host:
        return 0
    fitting = _left_mib(policy, memory, machines) / max(1, policy.machine.memory_mib)
    return math.floor(min(policy.machines_per_host - len(machines), fitting))


def _find_slots(
    policy: Policy, host: str, memory: HostMemory, machines: Sequence[MachineFact], places: int
) -> list[tuple[float, str]]:
    """One entry per further machine that the host could boot, with the headroom that is left before it."""
    if not _is_useful(policy, memory):
        return []
    left, need = memory.budget_mhz - _needed_mhz(policy, machines), _boot_mhz(policy)
    return [(left - need * number, host) for number in range(places) if left - need * number >= need]


def _needed_mhz(policy: Policy, machines: Sequence[MachineFact]) -> float:
    return policy.floor_mhz_per_vcpu * sum(vcpus_of(machine) for machine in machines)


def _left_mib(policy: Policy, memory: HostMemory, machines: Sequence[MachineFact]) -> float:
    """What these leave of the host's memory for ours, each at its own full size."""
    if memory.spare_mib is None:
        return math.inf
    return memory.spare_mib - sum(memory_mib_of(policy, machine) for machine in machines)
