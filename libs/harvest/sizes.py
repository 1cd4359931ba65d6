"""Size classes: machines that are a part of a host, in whole physical cores, with memory in proportion.

A size must fit every host of where it is used, so the smallest host makes it. A machine that is wider than a NUMA node
reads half its memory from afar; such a class is not offered where the nodes are known.
"""

from collections.abc import Iterable
from dataclasses import dataclass

PARTS = {"whole": 1, "half": 2, "quarter": 4, "eighth": 8}
"""Of a host, by the name of the class."""
_RESERVED_SHARE = 0.1
_RESERVED_MIB = 2048
"""The hypervisor's own: of the memory so much, and at least this; of the cores one, where a machine takes all."""
_LEAST_MIB, _MOST_MIB, _MOST_VCPUS = 512, 4_194_304, 256
_GIB = 1024


@dataclass(frozen=True, slots=True)
class HostSize:
    """What a host has; 0 cores: not known."""

    cores: int
    cpu_mhz: float
    """Of all cores."""
    memory_mib: float
    numa_nodes: int | None = None


@dataclass(frozen=True, slots=True)
class SizeClass:
    """A machine of this class."""

    name: str
    vcpus: int
    memory_mib: int
    cpu_mhz: float
    """What its vCPUs are worth when each has a core of its own."""


def derive(hosts: Iterable[HostSize]) -> tuple[SizeClass, ...]:
    """The classes that fit every one of these hosts, widest first; none where no host's cores are known."""
    known = [host for host in hosts if host.cores > 0]
    if not known:
        return ()
    cores = min(host.cores for host in known)
    widest = min(host.cores // max(1, host.numa_nodes or 1) for host in known)
    free_mib = min(host.memory_mib - max(_RESERVED_MIB, _RESERVED_SHARE * host.memory_mib) for host in known)
    core_mhz = min(host.cpu_mhz / host.cores for host in known)
    found = []
    for name, part in PARTS.items():
        vcpus = min(_MOST_VCPUS, cores // part - (part == 1 and cores > 1))
        memory_mib = _round(free_mib * vcpus / cores)
        if 1 <= vcpus <= widest and memory_mib >= _LEAST_MIB:
            found.append(SizeClass(name, vcpus, memory_mib, round(vcpus * core_mhz, 1)))
    return tuple(found)


def _round(memory_mib: float) -> int:
    """Down to whole GiB, where that is not most of it."""
    whole = min(_MOST_MIB, int(memory_mib))
    return whole - whole % _GIB if whole >= 4 * _GIB else whole - whole % (_GIB // 4)
