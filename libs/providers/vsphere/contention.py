"""Time that the owner's machines waited for a CPU on hosts where ours run: asked in turns, since nobody judges it fast.

Ready time, and of machines of several vCPUs co-stop: what one waits because its fellows cannot run.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from libs.providers.vsphere.perf import CPU_COSTOP_MS, CPU_READY_MS, Counters, query
from libs.providers.vsphere.settings import NATIVE_INTERVAL_S
from libs.providers.vsphere.soap import Line, Paths, Ref, Step, write_start

HOSTS_PER_ROUND = 16
KEEP = timedelta(minutes=5)
_SAMPLES = 3
_OWNERS: Paths = {
    "VirtualMachine": {"runtime.powerState": str, "runtime.host": Ref, "summary.config.numCpu": int}
}


@dataclass(frozen=True, slots=True)
class _Value:
    percent: float
    at: datetime


class ContentionWatch:
    """Measures a few hosts each round and remembers the others for five minutes."""

    def __init__(self) -> None:
        self._values: dict[str, _Value] = {}

    async def look(
        self, line: Line, counters: Counters, hosts: Mapping[str, Ref], ours: set[str], now: datetime
    ) -> dict[str, float]:
        """Percent of the time that was waited, by host id, over the hosts where ours run."""
        turn = sorted(
            hosts, key=lambda host: (self._values[host].at if host in self._values else now - KEEP, host)
        )
        asked = turn[:HOSTS_PER_ROUND]
        fresh = await _measure(line, counters, {host: hosts[host] for host in asked}, ours)
        for host in asked:
            self._values.pop(host, None)
        self._values.update({host: _Value(percent, now) for host, percent in fresh.items()})
        self._values = {
            host: value for host, value in self._values.items() if host in hosts and now - value.at <= KEEP
        }
        return {host: value.percent for host, value in self._values.items()}


async def _measure(
    line: Line, counters: Counters, hosts: Mapping[str, Ref], ours: set[str]
) -> dict[str, float]:
    """Time waited over the time that the owner's vCPUs on each host could have run."""
    starts = [write_start(host, [Step("HostSystem", "vm")]) for host in hosts.values()]
    owners = [
        found
        for found in await line.retrieve("contention", starts, _OWNERS)
        if found.ref.id not in ours and found.values.get("runtime.powerState") == "poweredOn"
    ]
    waits = [CPU_READY_MS, *counters.known(CPU_COSTOP_MS)]
    readings = await query(line, counters, waits, [found.ref for found in owners], _SAMPLES)
    waited_ms: Counter[str] = Counter()
    available_ms: Counter[str] = Counter()
    for found in owners:
        host, vcpus = found.values.get("runtime.host"), found.values.get("summary.config.numCpu", 1)
        values = readings.of(found.ref.id, CPU_READY_MS)
        if not isinstance(host, Ref) or not isinstance(vcpus, int) or not values:
            continue
        held = readings.of(found.ref.id, CPU_COSTOP_MS)
        waited_ms[host.id] += round(sum(value + held.get(at, 0.0) for at, value in values.items()))
        available_ms[host.id] += len(values) * max(1, vcpus) * NATIVE_INTERVAL_S * 1000
    return {host: 100 * waited_ms[host] / available for host, available in available_ms.items() if available}
