"""A host whose owner leaves less than what keeps our machines alive: they are suspended there, others work on.

A machine at its floor takes the last tenth of a full host. So where nothing worth lending was left for as long as the
ladder waits before it suspends, and the floor would stand above the target, what runs there is suspended; it wakes
when its host has something to lend again, and is kept until then for as long as the ladder keeps what it suspended.
"""

from collections.abc import Collection, Mapping, Sequence

from libs.harvest.budgets import room_beside
from libs.harvest.fleet import Fleet, floor_mhz, is_powered, memory_mib_of, vcpus_of
from libs.harvest.types import Decision, HostMemory, MachineFact, Policy

_MOST_S = 999_999.0


def note_full(full_s: float, before: float, offered: float, elapsed_s: float) -> float:
    """How long nothing has been offered on a host, `elapsed_s` after a sample at which `before` was."""
    if offered > 0.0 or before > 0.0:
        return 0.0
    return min(round(full_s + elapsed_s, 1), _MOST_S)


def dwell_s(policy: Policy) -> float:
    """How long a host must be full before what runs there is suspended: as long as a busy cluster's ladder takes."""
    return policy.busy_dwell_s + policy.ladder.stop_new_after_s + policy.ladder.suspend_after_s


def find_crowded(policy: Policy, hosts: Mapping[str, HostMemory], fleet: Fleet) -> tuple[str, ...]:
    """Running machines that are to be suspended because of their own host's owner, by name."""
    found: list[str] = []
    least_s = dwell_s(policy)
    for host, memory in hosts.items():
        if memory.full_s < least_s or memory.full_s <= 0.0 or host not in fleet:
            continue
        if room_beside(policy, memory.trend) * memory.capacity_mhz < floor_mhz(policy, fleet[host]):
            found += [each.machine for each in fleet[host] if each.state == "running"]
    return tuple(sorted(found))


def find_stuck(
    policy: Policy, memory: HostMemory | None, machines: Sequence[MachineFact], left_mib: float
) -> list[MachineFact]:
    """Suspended machines for which it is no use to wait, smallest first.

    Their host is unknown, its memory does not hold them beside the others (`left_mib` is what those leave), they are
    wider than it, or it has been full for longer than the ladder keeps what it suspended.
    """
    suspended = order_sleepers(policy, machines)
    if memory is None or 0.0 < dwell_s(policy) + policy.ladder.drain_after_s <= memory.full_s:
        return suspended
    stuck = []
    for machine in suspended:
        left_mib -= memory_mib_of(policy, machine)
        too_wide = policy.floor_mhz_per_vcpu * vcpus_of(machine) > policy.target * memory.capacity_mhz
        stuck += [machine] if left_mib < 0 or too_wide else []
    return stuck


def order_sleepers(policy: Policy, machines: Sequence[MachineFact]) -> list[MachineFact]:
    """The suspended ones among these, smallest first: so they wake."""
    asleep = [machine for machine in machines if not is_powered(machine)]
    asleep.sort(key=lambda machine: (memory_mib_of(policy, machine), vcpus_of(machine)))
    return asleep


def choose_resting(decision: Decision, kept: Collection[str]) -> frozenset[str]:
    """Of the machines that are kept those that are to be suspended: as the decision says, then the first to give up."""
    named = [name for name in decision.suspend if name in kept]
    others = [name for name in decision.victims if name in kept and name not in decision.suspend]
    return frozenset((named + others)[: max(len(named), len(kept) - decision.running)])
