"""What HA's admission control leaves to ours: the memory that it keeps free restarts the owner's machines one day.

HA keeps that for all of a cluster, not for a host, and so it is counted: what the owner uses, what is kept and all of
ours at full size stay below the target of all hosts together. It bounds what is new or wakes; what runs is the
ladder's.
"""

import math
from collections.abc import Sequence

from libs.common.contracts.usage import Sample
from libs.harvest.fleet import Fleet, is_powered, memory_mib_of
from libs.harvest.owner import HostLoad, number
from libs.harvest.types import Policy


def find_room_mib(
    policy: Policy, sample: Sample, loads: Sequence[HostLoad], fleet: Fleet, before: int | None
) -> int | None:
    """Memory that all of ours together may hold; None where HA keeps none.

    A sample that does not tell leaves it as it was `before`: what could not be read for once has not been given up. A
    host whose owner cannot be measured counts as full, and one of no known size leaves nothing anywhere.
    """
    kept_mib = number(sample.ha_reserve_memory_mib)
    if kept_mib is None:
        return before
    if kept_mib <= 0.0:
        return None
    connected = [load for load in loads if load.connected]
    if any(load.memory_capacity_mib <= 0.0 for load in connected):
        return 0
    left = sum([(policy.target - load.memory) * load.memory_capacity_mib for load in connected]) - kept_mib
    full_mib = sum([memory_mib_of(policy, machine) for machines in fleet.values() for machine in machines])
    ours_mib = sum([load.memory_ours_mib for load in connected])
    return max(0, int(left - max(0.0, ours_mib - full_mib)))


def count_waking(policy: Policy, room_mib: int, fleet: Fleet) -> int:
    """How many of those that sleep may wake, whichever they are."""
    every = [machine for machines in fleet.values() for machine in machines]
    left = room_mib - sum(memory_mib_of(policy, machine) for machine in every if is_powered(machine))
    waking = 0
    for size in sorted((memory_mib_of(policy, one) for one in every if not is_powered(one)), reverse=True):
        left -= size
        waking += left >= 0
    return waking


def find_left_mib(policy: Policy, room_mib: int | None, fleet: Fleet) -> float:
    """What all of ours leave of it to further ones; negative where those that exist are too many."""
    if room_mib is None:
        return math.inf
    return room_mib - sum(
        [memory_mib_of(policy, machine) for machines in fleet.values() for machine in machines]
    )
