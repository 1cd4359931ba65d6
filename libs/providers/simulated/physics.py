"""What happens on a host at a moment: the owner takes what it wants, ours share what is left under their
limits.

Shares act at once: the owner's use is never reduced by ours. Ours is hungry, so it uses its limits whenever
the owner leaves room; limits beyond that show as contention for the owner's machines.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from libs.common.contracts.usage import HostState
from libs.providers.simulated.owner import PROFILES, chance, key_of, owner_cpu, owner_memory
from libs.providers.simulated.settings import OwnerProfile
from libs.providers.simulated.state import (
    CloudState,
    ClusterRecord,
    HostRecord,
    MachineRecord,
    Track,
    value_at,
)

CONTENDED = 0.90
"""Fraction of a host beyond which the owner's machines wait."""
RESUME_S = 10.0
_START_SHARE = 0.5
_OVERHEAD_MIB = 150.0
_EVACUATED = 0.01
"""What is left of the owner on a host in maintenance: it looks idle, and is not to be had."""


@dataclass(frozen=True, slots=True)
class HostLoad:
    """One host at one moment, in MHz."""

    owner_mhz: float
    demand_mhz: float
    """What ours would use alone on the host: limits, vCPUs, the pool's cap and boots considered."""
    ours_mhz: float
    running: int


def is_on(machine: MachineRecord, at_s: float) -> bool:
    """Whether it is powered on."""
    return (value_at(machine.power, at_s) or "off") in ("boot", "resume")


def is_starting(machine: MachineRecord, at_s: float) -> bool:
    """Whether its guest is still booting or resuming."""
    began_s, phase = _phase(machine.power, at_s)
    if phase == "boot":
        return at_s < began_s + machine.booting_s
    return phase == "resume" and at_s < began_s + RESUME_S


def limit_of(machine: MachineRecord, at_s: float) -> float:
    """The CPU limit in force, in MHz."""
    return value_at(machine.limit, at_s) or 0.0


def state_of(host: HostRecord, at_s: float) -> HostState:
    """The state of a host; connected unless something happened."""
    return value_at(host.states, at_s) or HostState.CONNECTED


def owner_mhz(state: CloudState, cluster: ClusterRecord, host: HostRecord, at_s: float) -> float:
    """What the owner's machines use on a host; next to nothing on one out of service."""
    away = _absence(host, at_s)
    if away is not None:
        return away * cluster.capacity_mhz
    fraction = value_at(host.load, at_s)
    if fraction is None:
        fraction = owner_cpu(PROFILES[cluster.owner], state.settings.seed, host.host, at_s)
    return fraction * cluster.capacity_mhz


def owner_mib(state: CloudState, cluster: ClusterRecord, host: HostRecord, at_s: float) -> float:
    """What the owner's machines occupy of a host's memory."""
    fraction = _absence(host, at_s)
    if fraction is None:
        fraction = owner_memory(PROFILES[cluster.owner], state.settings.seed, host.host, at_s)
    return fraction * cluster.memory_mib


def demand_mhz(cluster: ClusterRecord, machine: MachineRecord, at_s: float) -> float:
    """What a machine would use alone on its host: hungry, half so while it starts, never above its limit."""
    if not is_on(machine, at_s):
        return 0.0
    wish = machine.vcpus * cluster.core_mhz
    if is_starting(machine, at_s):
        wish *= _START_SHARE
    return min(limit_of(machine, at_s), wish)


def memory_mib(machine: MachineRecord, at_s: float) -> float:
    """What a machine occupies: a third when it starts, most of it afterwards."""
    if not is_on(machine, at_s):
        return 0.0
    share = 0.35 if is_starting(machine, at_s) else 0.85
    return machine.memory_mib * share + _OVERHEAD_MIB


def loads_at(
    state: CloudState, cluster: ClusterRecord, machines: dict[str, list[MachineRecord]], at_s: float
) -> list[HostLoad]:
    """All hosts of a cluster at one moment; `machines` by host, deleted ones among them."""
    demands = [sum(demand_mhz(cluster, m, at_s) for m in machines.get(h.host, ())) for h in cluster.hosts]
    cap_mhz = value_at(cluster.cap, at_s)
    total_mhz = sum(demands)
    squeeze = cap_mhz / total_mhz if cap_mhz is not None and total_mhz > cap_mhz else 1.0
    loads = []
    for host, wished_mhz in zip(cluster.hosts, demands, strict=True):
        owner = owner_mhz(state, cluster, host, at_s)
        demand = wished_mhz * squeeze
        ours = min(demand, max(0.0, cluster.capacity_mhz - owner))
        running = sum(is_on(machine, at_s) for machine in machines.get(host.host, ()))
        loads.append(HostLoad(owner, demand, ours, running))
    return loads


def contention_percent(load: HostLoad, capacity_mhz: float) -> float:
    """Ready time of the owner's machines: small up to 90 %, then half a point for every point that is asked
    beyond."""
    asked = (load.owner_mhz + load.demand_mhz) / capacity_mhz
    return 0.4 * min(asked, CONTENDED) + 50.0 * max(0.0, asked - CONTENDED)


def machines_by_host(machines: Sequence[MachineRecord]) -> dict[str, list[MachineRecord]]:
    """Grouped, in order of creation."""
    grouped: dict[str, list[MachineRecord]] = {}
    for machine in machines:
        grouped.setdefault(machine.host, []).append(machine)
    return grouped


def datastore_free_gib(state: CloudState, cluster: ClusterRecord, at_s: float) -> float:
    """Free space: the owner's files, our disks in full, and swap or suspend files as large as memory."""
    share = 0.6 if cluster.owner is OwnerProfile.FULL else 0.45
    share += 0.05 * chance(key_of(state.settings.seed, cluster.cluster, "datastore"), 1)
    ours = sum(_files_gib(machine, at_s) for machine in state.machines if machine.cluster == cluster.cluster)
    return cluster.datastore_gib * (1.0 - share) - ours


def _absence(host: HostRecord, at_s: float) -> float | None:
    """What fraction the owner uses of a host that it cannot work on; None where it works."""
    state = state_of(host, at_s)
    if state is HostState.CONNECTED:
        return None
    return _EVACUATED if state is HostState.MAINTENANCE else 0.0


def _files_gib(machine: MachineRecord, at_s: float) -> float:
    if at_s < machine.created_at_s or (machine.deleted_at_s is not None and at_s >= machine.deleted_at_s):
        return 0.0
    held = (value_at(machine.power, at_s) or "off") != "off"
    return machine.disk_gib + (machine.memory_mib / 1024.0 if held else 0.0)


def _phase(track: Track[str], at_s: float) -> tuple[float, str]:
    for began_s, phase in reversed(track):
        if began_s <= at_s:
            return began_s, phase
    return at_s, "off"
