"""Ready time of the owner's machines on hosts where ours run: asked in turns, since nobody judges it fast."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pyVmomi import vim

from libs.providers.vsphere.api import Api
from libs.providers.vsphere.inventory import read_related, ref_id
from libs.providers.vsphere.perf import CPU_READY_MS, Counters, query
from libs.providers.vsphere.settings import NATIVE_INTERVAL_S

HOSTS_PER_ROUND = 16
KEEP = timedelta(minutes=5)
_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class _Value:
    percent: float
    at: datetime


class ContentionWatch:
    """Measures a few hosts each round and remembers the others for five minutes."""

    def __init__(self) -> None:
        self._values: dict[str, _Value] = {}

    def look(
        self, api: Api, counters: Counters, hosts: Mapping[str, Any], ours: set[str], now: datetime
    ) -> dict[str, float]:
        """Percent of ready time by host id, over the hosts where ours run."""
        turn = sorted(
            hosts, key=lambda host: (self._values[host].at if host in self._values else now - KEEP, host)
        )
        asked = turn[:HOSTS_PER_ROUND]
        fresh = _measure(api, counters, {host: hosts[host] for host in asked}, ours)
        for host in asked:
            self._values.pop(host, None)
        self._values.update({host: _Value(percent, now) for host, percent in fresh.items()})
        self._values = {
            host: value for host, value in self._values.items() if host in hosts and now - value.at <= KEEP
        }
        return {host: value.percent for host, value in self._values.items()}


def _measure(api: Api, counters: Counters, hosts: Mapping[str, Any], ours: set[str]) -> dict[str, float]:
    """Ready time over the time that the owner's vCPUs on each host could have run."""
    paths = {vim.VirtualMachine: ("runtime.powerState", "runtime.host", "summary.config.numCpu")}
    owners = [
        row
        for row in read_related(api, "contention", list(hosts.values()), "vm", paths)
        if row.id not in ours and str(row.properties.get("runtime.powerState")) == "poweredOn"
    ]
    readings = query(api, counters.named([CPU_READY_MS]), [row.ref for row in owners], _SAMPLES)
    ready_ms: Counter[str] = Counter()
    available_ms: Counter[str] = Counter()
    for row in owners:
        host = row.properties.get("runtime.host")
        values = readings.of(row.id, CPU_READY_MS).values()
        if host is None or not values:
            continue
        vcpus = int(row.properties.get("summary.config.numCpu") or 1)
        ready_ms[ref_id(host)] += round(sum(values))
        available_ms[ref_id(host)] += len(values) * vcpus * NATIVE_INTERVAL_S * 1000
    return {host: 100 * ready_ms[host] / available for host, available in available_ms.items() if available}
