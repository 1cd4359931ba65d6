"""Our machines as the engine looks at them: by host, powered or not, and in the order to give them up."""

import math
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter

from libs.harvest.types import MachineFact, Policy

_NAME = attrgetter("machine")
Fleet = Mapping[str, tuple[MachineFact, ...]]
"""Machines by host; those without a known host stand under the empty name."""

NOWHERE = ""
_MOST_VCPUS = 4096
_MOST_MEMORY_MIB = 10**9
_MOST_DISK_GIB = 1e9
_ENDLESS = math.inf


def group_by_host(machines: Sequence[MachineFact], hosts: Collection[str]) -> Fleet:
    """Machines by host. With a single host in sight a machine without one can only be there."""
    only = next(iter(hosts)) if len(hosts) == 1 else NOWHERE
    fleet: dict[str, tuple[MachineFact, ...]] = {}
    for machine in sorted(machines, key=_NAME):
        host = machine.host or only
        fleet[host] = (*fleet[host], machine) if host in fleet else (machine,)
    return fleet


def is_powered(machine: MachineFact) -> bool:
    """Whether it uses CPU now: everything but a suspended machine does."""
    return machine.state != "suspended"


def is_kept(machine: MachineFact) -> bool:
    """Whether it counts as existing: a draining machine is on its way out."""
    return machine.state != "draining"


def floor_mhz(policy: Policy, machines: Sequence[MachineFact]) -> float:
    """What keeps the powered-on machines among these alive, in whole MHz."""
    if not machines:
        return 0.0
    vcpus = 0
    for machine in machines:
        if machine.state != "suspended":
            vcpus += vcpus_of(machine)
    return float(math.ceil(policy.floor_mhz_per_vcpu * vcpus))


def vcpus_of(machine: MachineFact) -> int:
    """Its vCPUs, within reason."""
    vcpus = machine.vcpus
    return vcpus if 0 <= vcpus <= _MOST_VCPUS else min(max(vcpus, 0), _MOST_VCPUS)


def memory_mib_of(policy: Policy, machine: MachineFact) -> int:
    """What it takes at full size, within reason."""
    memory_mib = policy.machine.memory_mib if machine.memory_mib is None else machine.memory_mib
    return memory_mib if 1 <= memory_mib <= _MOST_MEMORY_MIB else min(max(memory_mib, 1), _MOST_MEMORY_MIB)


def disk_gib_of(policy: Policy, machine: MachineFact) -> float:
    """What its disk takes when it is full, within reason."""
    disk_gib = machine.disk_gib
    if disk_gib is None or not math.isfinite(disk_gib):
        disk_gib = policy.machine.disk_gib
    return min(max(disk_gib, 0.0), _MOST_DISK_GIB)


def order_victims(
    fleet: Fleet, able: Collection[str], first: Sequence[str] = (), last: Collection[str] = ()
) -> tuple[str, ...]:
    """Kept machines, first to give up first: `first` in its order, then the lowest priority, and of that those that
    sleep, then on hosts that carry none, then least work lost, then newest; those in `last` after all others."""
    ranks = [
        (
            machine.machine in last,
            machine.priority,
            machine.state != "suspended",
            host in able or host == NOWHERE,
            machine.progress_s if -_ENDLESS < machine.progress_s < _ENDLESS else _ENDLESS,
            machine.age_s if -_ENDLESS < machine.age_s < _ENDLESS else _ENDLESS,
            machine.machine,
        )
        for host, machines in fleet.items()
        for machine in machines
        if machine.state != "draining"
    ]
    ranks.sort()
    ranked = [rank[-1] for rank in ranks]
    if first:
        place = {name: position for position, name in enumerate(first)}
        ranked.sort(key=lambda name: place.get(name, len(place)))
    return tuple(ranked)
