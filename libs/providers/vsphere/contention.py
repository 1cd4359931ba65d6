"""What owners' machines go without on hosts where ours run: asked in turns, since nobody judges it fast.

Time that they waited for a CPU: ready time, and of machines of several vCPUs co-stop, what one waits because its
fellows cannot run. Memory that a balloon took from them or that was swapped out; and what of a host's memory is active.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from libs.providers.vsphere.perf import (
    ACTIVE_KIB,
    BALLOON_KIB,
    CPU_COSTOP_MS,
    CPU_READY_MS,
    SWAPPED_KIB,
    Counters,
    query,
)
from libs.providers.vsphere.settings import NATIVE_INTERVAL_S
from libs.providers.vsphere.soap import Found, Line, Paths, Readings, Ref, Step, write_start

HOSTS_PER_ROUND = 16
KEEP = timedelta(minutes=5)
_SAMPLES = 3
_HOST = "runtime.host"
_OWNERS: Paths = {"VirtualMachine": {"runtime.powerState": str, _HOST: Ref, "summary.config.numCpu": int}}


@dataclass(frozen=True, slots=True)
class Strain:
    """One host, as it was measured; None where nothing was."""

    percent: float | None = None
    """Of the time that owners' vCPUs could have run, waited."""
    balloon_mib: float | None = None
    swapped_mib: float | None = None
    active_mib: float | None = None


@dataclass(frozen=True, slots=True)
class _Value:
    strain: Strain
    at: datetime


class ContentionWatch:
    """Measures a few hosts each round and remembers the others for five minutes."""

    def __init__(self) -> None:
        self._values: dict[str, _Value] = {}

    async def look(
        self, line: Line, counters: Counters, hosts: Mapping[str, Ref], ours: set[str], now: datetime
    ) -> dict[str, Strain]:
        """By host id, over the hosts where ours run."""
        turn = sorted(
            hosts, key=lambda host: (self._values[host].at if host in self._values else now - KEEP, host)
        )
        asked = turn[:HOSTS_PER_ROUND]
        fresh = await _measure(line, counters, {host: hosts[host] for host in asked}, ours)
        for host in asked:
            self._values.pop(host, None)
        self._values.update({host: _Value(strain, now) for host, strain in fresh.items()})
        self._values = {
            host: value for host, value in self._values.items() if host in hosts and now - value.at <= KEEP
        }
        return {host: value.strain for host, value in self._values.items()}


async def _measure(
    line: Line, counters: Counters, hosts: Mapping[str, Ref], ours: set[str]
) -> dict[str, Strain]:
    starts = [write_start(host, [Step("HostSystem", "vm")]) for host in hosts.values()]
    owners = [
        found
        for found in await line.retrieve("contention", starts, _OWNERS)
        if found.ref.id not in ours and found.values.get("runtime.powerState") == "poweredOn"
    ]
    names = [CPU_READY_MS, *counters.known(CPU_COSTOP_MS, BALLOON_KIB, SWAPPED_KIB)]
    readings = await query(line, counters, names, [found.ref for found in owners], _SAMPLES)
    active = counters.known(ACTIVE_KIB)
    of_hosts = await query(line, counters, active, list(hosts.values()), 1) if active else Readings({})
    waited = _add_waits(owners, readings)
    balloon, swapped = (_add_newest(owners, readings, name) for name in (BALLOON_KIB, SWAPPED_KIB))
    return {
        host: Strain(
            waited.get(host),
            balloon.get(host),
            swapped.get(host),
            _newest_mib(of_hosts, host, ACTIVE_KIB),
        )
        for host in hosts
    }


def _add_waits(owners: Iterable[Found], readings: Readings) -> dict[str, float]:
    """Percent: time waited over the time that the owner's vCPUs on each host could have run."""
    waited_ms: Counter[str] = Counter()
    available_ms: Counter[str] = Counter()
    for found in owners:
        host, vcpus = found.values.get(_HOST), found.values.get("summary.config.numCpu", 1)
        values = readings.of(found.ref.id, CPU_READY_MS)
        if not isinstance(host, Ref) or not isinstance(vcpus, int) or not values:
            continue
        held = readings.of(found.ref.id, CPU_COSTOP_MS)
        waited_ms[host.id] += round(sum(value + held.get(at, 0.0) for at, value in values.items()))
        available_ms[host.id] += len(values) * max(1, vcpus) * NATIVE_INTERVAL_S * 1000
    return {host: 100 * waited_ms[host] / available for host, available in available_ms.items() if available}


def _add_newest(owners: Iterable[Found], readings: Readings, counter: str) -> dict[str, float]:
    """MiB by host, of those machines that were measured."""
    totals: dict[str, float] = {}
    for found in owners:
        host, mib = found.values.get(_HOST), _newest_mib(readings, found.ref.id, counter)
        if isinstance(host, Ref) and mib is not None:
            totals[host.id] = totals.get(host.id, 0.0) + mib
    return totals


def _newest_mib(readings: Readings, entity: str, counter: str) -> float | None:
    values = readings.of(entity, counter)
    return values[max(values)] / 1024.0 if values else None
