"""Our machines as the engine looks at them: by host, powered or not, and in the order to give them up."""

import math
from collections.abc import Collection, Mapping, Sequence

from libs.harvest.types import MachineFact, Policy

Fleet = Mapping[str, tuple[MachineFact, ...]]
"""Machines by host; those without a known host stand under the empty name."""

NOWHERE = ""
_MOST_VCPUS = 4096


def group_by_host(machines: Sequence[MachineFact], hosts: Collection[str]) -> Fleet:
    """Machines by host. With a single host in sight a machine without one can only be there."""
    only = next(iter(hosts)) if len(hosts) == 1 else NOWHERE
    fleet: dict[str, tuple[MachineFact, ...]] = {}
    for machine in sorted(machines, key=lambda machine: machine.machine):
        host = machine.host or only
        fleet[host] = (*fleet.get(host, ()), machine)
    return fleet


def is_powered(machine: MachineFact) -> bool:
    """Whether it uses CPU now: everything but a suspended machine does."""
    return machine.state != "suspended"


def is_kept(machine: MachineFact) -> bool:
    """Whether it counts as existing: a draining machine is on its way out."""
    return machine.state != "draining"


def floor_mhz(policy: Policy, machines: Sequence[MachineFact]) -> float:
    """What keeps the powered-on machines among these alive, in whole MHz."""
    vcpus = sum(vcpus_of(machine) for machine in machines if is_powered(machine))
    return float(math.ceil(policy.floor_mhz_per_vcpu * vcpus))


def vcpus_of(machine: MachineFact) -> int:
    """Its vCPUs, within reason."""
    return min(max(machine.vcpus, 0), _MOST_VCPUS)


def order_victims(fleet: Fleet, able: Collection[str]) -> tuple[str, ...]:
    """Kept machines, first to give up first: those that sleep, then on hosts that carry none, then least work lost,
    then newest."""
    kept = [
        (host in able or host == NOWHERE, machine)
        for host, machines in fleet.items()
        for machine in machines
        if is_kept(machine)
    ]
    return tuple(machine.machine for _, machine in sorted(kept, key=_rank))


def _rank(place: tuple[bool, MachineFact]) -> tuple[bool, bool, float, float, str]:
    is_carried, machine = place
    progress_s, age_s = _finite(machine.progress_s), _finite(machine.age_s)
    return is_powered(machine), is_carried, progress_s, age_s, machine.machine


def _finite(seconds: float) -> float:
    return seconds if math.isfinite(seconds) else math.inf
