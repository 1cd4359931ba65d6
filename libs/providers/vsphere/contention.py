"""Ready time of the owner's machines on hosts where ours run: asked in turns, since nobody judges it fast."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pyVmomi import vim

from libs.providers.vsphere.api import Api
from libs.providers.vsphere.inventory import read_related, ref_id
from libs.providers.vsphere.perf import CPU_READY_MS, Counters, query
from libs.providers.vsphere.settings import NATIVE_INTERVAL_S

HOSTS_PER_ROUND = 8
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
        for host in turn[:HOSTS_PER_ROUND]:
            percent = _measure(api, counters, hosts[host], ours)
            if percent is None:
                self._values.pop(host, None)
            else:
                self._values[host] = _Value(percent, now)
        self._values = {
            host: value for host, value in self._values.items() if host in hosts and now - value.at <= KEEP
        }
        return {host: value.percent for host, value in self._values.items()}


def _measure(api: Api, counters: Counters, host: Any, ours: set[str]) -> float | None:
    """Ready time over the time that the owner's vCPUs there could have run."""
    paths = {vim.VirtualMachine: ("runtime.powerState", "summary.config.numCpu")}
    owners = {
        row.id: row
        for row in read_related(api, "contention", [host], "vm", paths)
        if row.id not in ours and str(row.properties.get("runtime.powerState")) == "poweredOn"
    }
    refs: Sequence[Any] = [row.ref for row in owners.values()]
    readings = query(api, counters.named([CPU_READY_MS]), refs, _SAMPLES)
    ready_ms = available_ms = 0.0
    for ref in refs:
        values = readings.of(ref_id(ref), CPU_READY_MS).values()
        vcpus = int(owners[ref_id(ref)].properties.get("summary.config.numCpu") or 1)
        ready_ms += sum(values)
        available_ms += len(values) * vcpus * NATIVE_INTERVAL_S * 1000
    return 100 * ready_ms / available_ms if available_ms else None
