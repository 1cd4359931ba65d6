"""What a host is good for, by what it is made of."""

from dataclasses import dataclass
from enum import StrEnum

MANY_GPUS = 4
"""So many GPUs in one host make it one for high-performance computing."""


class HostClass(StrEnum):
    """What a host is good for."""

    LOW = "low"
    """No GPU: control planes, and work for CPUs."""
    MEDIUM_GPU = "medium_gpu"
    """A few GPUs."""
    HPC_GPU = "hpc_gpu"
    """As many as models are trained on."""


@dataclass(frozen=True, slots=True)
class Metal:
    """One host's hardware; None: not known."""

    cores: int
    memory_mib: float
    gpus: int | None


def classify(host: Metal) -> HostClass | None:
    """The class of a host; None while it is not known whether it has GPUs.

    A GPU without a core and a GiB to feed it does not count.
    """
    if host.gpus is None:
        return None
    fed = min(host.gpus, host.cores, int(host.memory_mib // 1024))
    if fed <= 0:
        return HostClass.LOW
    return HostClass.HPC_GPU if fed >= MANY_GPUS else HostClass.MEDIUM_GPU
