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
    lends: bool = True
    """False: it should not be there any more, and gets the floor at most."""
    dozes: bool = False
    """It is being written to disk, which takes CPU of its own: it gets the floor at least, whatever the budget is."""


def share_budgets(
    budgets_mhz: Mapping[str, float], machines: Sequence[Limited], floor_mhz_per_vcpu: float
) -> dict[str, float]:
    """CPU limit in whole MHz per machine name: its host's budget by vCPUs; the floor where the host is not known.

    Rounded down, so the sum on a host never exceeds its budget (but for the 1 MHz a cloud needs, and the floor of
    what is falling asleep).
    """
    by_host: dict[str | None, list[Limited]] = {}
    for machine in machines:
        by_host.setdefault(machine.host, []).append(machine)
    limits: dict[str, float] = {}
    for host, there in by_host.items():
        known = host is not None and host in budgets_mhz
        floor_mhz = floor_mhz_per_vcpu * sum(machine.vcpus for machine in there)
        limits |= _share(budgets_mhz[host] if known and host is not None else floor_mhz, there, floor_mhz)
    for machine in machines:
        if machine.dozes:
            limits[machine.name] = max(limits[machine.name], _whole(floor_mhz_per_vcpu * machine.vcpus))
    return limits


def _share(budget_mhz: float, machines: Sequence[Limited], floor_mhz: float) -> dict[str, float]:
    """One host's budget: what should not be there any more first gets the floor or less, the others what is left."""
    least = min(budget_mhz, floor_mhz) / _vcpus(machines)
    lending = [machine for machine in machines if machine.lends]
    leaving = [machine for machine in machines if not machine.lends]
    left = budget_mhz - least * _vcpus(leaving)
    most = left / _vcpus(lending) if lending else 0.0
    return {machine.name: _whole((most if machine.lends else least) * machine.vcpus) for machine in machines}


def _vcpus(machines: Sequence[Limited]) -> int:
    return sum(machine.vcpus for machine in machines)


def _whole(mhz: float) -> float:
    return max(LOWEST_MHZ, float(floor(mhz))) if isfinite(mhz) else LOWEST_MHZ


FASTEST_CORE_MHZ = 5000.0
"""What a core is taken for whose speed is not known: who is wrong then uses less than allowed."""
LEAST_CHANGE_PERCENT = 2.0


def throttle_percent(limit_mhz: float, vcpus: int, core_mhz: float | None) -> float:
    """A limit in MHz as what a guest may use of its virtual processors, in whole percent, rounded down."""
    whole_mhz = max(1, vcpus) * (core_mhz or FASTEST_CORE_MHZ)
    share = limit_mhz / whole_mhz if isfinite(limit_mhz) and whole_mhz > 0 else 0.0
    return float(floor(100.0 * min(1.0, max(0.0, share))))


def must_be_told(percent: float, told: float | None) -> bool:
    """Whether a guest has to hear of it: a cut always, a rise when it is worth a heartbeat's answer."""
    if told is None:
        return True
    return percent < told or percent >= told + LEAST_CHANGE_PERCENT or (percent != told and percent == 100.0)


def differs(wanted_mhz: float, actual_mhz: float | None) -> bool:
    """Whether a limit has to be set. None: the cloud has none, which never stays so."""
    return actual_mhz is None or abs(wanted_mhz - actual_mhz) > TOLERANCE_MHZ
