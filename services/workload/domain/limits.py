"""How the budget of a host is shared among our machines on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, isfinite

LOWEST_MHZ = 1.0
TOLERANCE_MHZ = 1.0
"""Clouds keep whole MHz: a smaller difference is none."""


@dataclass(frozen=True, slots=True)
class Limited:
    """A machine whose CPU limit is to be set."""

    name: str
    host: str | None
    vcpus: int


def share_budgets(
    budgets_mhz: Mapping[str, float], machines: Sequence[Limited], floor_mhz_per_vcpu: float
) -> dict[str, float]:
    """CPU limit in whole MHz per machine name: its host's budget by vCPUs; the floor where the host is not known.

    Rounded down, so the sum on a host never exceeds its budget (but for the 1 MHz a cloud needs).
    """
    vcpus: dict[str | None, int] = {}
    for machine in machines:
        vcpus[machine.host] = vcpus.get(machine.host, 0) + machine.vcpus
    limits: dict[str, float] = {}
    for machine in machines:
        known = machine.host is not None and machine.host in budgets_mhz
        budget = budgets_mhz[machine.host] if known and machine.host is not None else 0.0
        share = budget * machine.vcpus / vcpus[machine.host] if known else floor_mhz_per_vcpu * machine.vcpus
        limits[machine.name] = max(LOWEST_MHZ, float(floor(share)) if isfinite(share) else LOWEST_MHZ)
    return limits


def differs(wanted_mhz: float, actual_mhz: float | None) -> bool:
    """Whether a limit has to be set. None: the cloud has none, which never stays so."""
    return actual_mhz is None or abs(wanted_mhz - actual_mhz) > TOLERANCE_MHZ
