"""Samples out of readings: ours and total at the same ticks, every interval once, the newest one measured."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter

from libs.common.contracts.usage import Announced, Exposure, HostState, Quality, Sample
from libs.providers.base import Power
from libs.providers.vsphere.announced import on_clock_of
from libs.providers.vsphere.contention import Strain
from libs.providers.vsphere.fleet import Machine
from libs.providers.vsphere.inventory import Cluster, Datastore, Host
from libs.providers.vsphere.perf import CPU_MHZ, MEMORY_KIB
from libs.providers.vsphere.reserve import Reserve
from libs.providers.vsphere.settings import NATIVE_INTERVAL_S
from libs.providers.vsphere.soap import Readings, Series

KIB_PER_MIB = 1024.0
_LATE_TICKS = 2
"""A host whose values come this many intervals late no longer holds up its cluster."""
_MEASURED = frozenset({HostState.CONNECTED, HostState.MAINTENANCE})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a sample says beside the counters, as it is now."""

    cap_mhz: float | None
    datastore: Datastore | None
    strain: Mapping[str, Strain]
    """By host, of those where ours run."""
    now: datetime
    interval_s: int
    exposed: Exposure | None = None
    coming: tuple[Announced, ...] = ()
    """On vCenter's clock."""
    reserve: Reserve | None = None


def is_measured(host: Host) -> bool:
    """Whether a host has real-time statistics just now."""
    return host.state in _MEASURED


def make_samples(
    cluster: Cluster,
    machines: Sequence[Machine],
    readings: Readings,
    around: Surroundings,
    since: datetime | None,
) -> list[Sample]:
    """Samples after `since`, oldest first: the newest one measured, those before it back-filled."""
    grid = _Grid(readings, around.interval_s)
    measured = [host.id for host in cluster.hosts if is_measured(host)]
    series = {host: grid.of(host, CPU_MHZ) for host in measured}
    complete = set.intersection(*(set(each) for each in series.values())) if series else set()
    newest = max((at for each in series.values() for at in each), default=None)
    after = int(since.timestamp()) if since is not None else None
    columns = _Columns(cluster, [machine for machine in machines if machine.power is Power.ON], grid, around)
    if complete and newest is not None and newest - max(complete) < _LATE_TICKS * around.interval_s:
        last = max(complete)
        seen = sorted({at for each in series.values() for at in each if at <= last})
        wanted = [last] if after is None else [at for at in seen if at > after]
        return [columns.at(at, Quality.MEASURED if at == last else Quality.BACKFILLED) for at in wanted]
    at = newest if newest is not None else _ended(around)
    return [] if after is not None and at <= after else [columns.at(at, Quality.PARTIAL)]


def _ended(around: Surroundings) -> int:
    """The end of the last whole interval on the cloud's clock."""
    tick = int(around.now.timestamp() + 1) // NATIVE_INTERVAL_S * NATIVE_INTERVAL_S
    return tick // around.interval_s * around.interval_s


class _Grid:
    """Readings as means over intervals of the sample's length."""

    def __init__(self, readings: Readings, interval_s: int) -> None:
        self._readings = readings
        self._interval_s = interval_s
        self._newest = max(readings.times(), default=0)
        self._means: dict[tuple[str, str], Series] = {}

    def of(self, entity: str, counter: str) -> Series:
        if (entity, counter) not in self._means:
            self._means[entity, counter] = self._mean(entity, counter)
        return self._means[entity, counter]

    def _mean(self, entity: str, counter: str) -> Series:
        parts: dict[int, list[float]] = {}
        for at, value in self._readings.of(entity, counter).items():
            parts.setdefault(-(-at // self._interval_s) * self._interval_s, []).append(value)
        return {at: sum(values) / len(values) for at, values in parts.items() if at <= self._newest}


class _Columns:
    """The columns of a cluster's samples."""

    def __init__(
        self, cluster: Cluster, running: Sequence[Machine], grid: _Grid, around: Surroundings
    ) -> None:
        self._cluster = cluster
        self._grid = grid
        self._around = around
        self._running = {
            host.id: [machine for machine in running if machine.host_id == host.id] for host in cluster.hosts
        }

    def at(self, tick: int, quality: Quality) -> Sample:
        hosts = self._cluster.hosts
        strain = self._around.strain if quality is not Quality.BACKFILLED else {}
        strains = [strain.get(host.id, Strain()) for host in hosts]
        store, around = self._around.datastore, self._around
        ended_at = datetime.fromtimestamp(tick, UTC)
        coming = around.coming if quality is not Quality.BACKFILLED else ()
        kept_mhz, kept_mib = (None, None) if around.reserve is None else around.reserve.of(hosts)
        return Sample(
            cluster=self._cluster.id,
            name=self._cluster.name,
            at=ended_at,
            interval_s=float(self._around.interval_s),
            hosts=tuple(host.id for host in hosts),
            host_names=tuple(host.name for host in hosts),
            states=tuple(map(self._state, hosts)),
            cpu_capacity_mhz=tuple(host.cpu_mhz for host in hosts),
            cpu_used_mhz=tuple(self._cpu_used(host, tick, quality) for host in hosts),
            cpu_ours_mhz=tuple(self._cpu_ours(host, tick) for host in hosts),
            cpu_limit_mhz=tuple(self._limit(host) for host in hosts),
            memory_capacity_mib=tuple(host.memory_mib for host in hosts),
            memory_used_mib=tuple(self._memory_used(host, tick, quality) for host in hosts),
            memory_ours_mib=tuple(self._memory_ours(host, tick) for host in hosts),
            contention_percent=tuple(each.percent for each in strains),
            machines=tuple(len(self._running[host.id]) for host in hosts),
            cap_mhz=self._around.cap_mhz,
            datastore_capacity_gib=store.capacity_gib if store else None,
            datastore_free_gib=store.free_gib if store else None,
            quality=quality,
            exposed=around.exposed if quality is not Quality.BACKFILLED else None,
            coming=on_clock_of(coming, ended_at, around.now, around.interval_s),
            memory_active_mib=tuple(each.active_mib for each in strains),
            owner_balloon_mib=tuple(each.balloon_mib for each in strains),
            owner_swapped_mib=tuple(each.swapped_mib for each in strains),
            drs=self._cluster.drs,
            ha_reserve_cpu_mhz=kept_mhz,
            ha_reserve_memory_mib=kept_mib,
        )

    def _state(self, host: Host) -> HostState:
        """A host that HA was told to keep for a failure stands by, though it is connected."""
        is_set_aside = self._around.reserve is not None and host.id in self._around.reserve.named_hosts
        return HostState.STANDBY if is_set_aside and host.state is HostState.CONNECTED else host.state

    def _cpu_used(self, host: Host, tick: int, quality: Quality) -> float:
        return _used(host, quality, self._grid.of(host.id, CPU_MHZ).get(tick), host.quick_cpu_mhz)

    def _memory_used(self, host: Host, tick: int, quality: Quality) -> float:
        found = self._grid.of(host.id, MEMORY_KIB).get(tick)
        return _used(host, quality, None if found is None else found / KIB_PER_MIB, host.quick_memory_mib)

    def _limit(self, host: Host) -> float:
        limits = (machine.limit_mhz for machine in self._running[host.id])
        return sum((host.cpu_mhz if limit is None else limit for limit in limits), 0.0)

    def _cpu_ours(self, host: Host, tick: int) -> float:
        return self._ours(host, tick, CPU_MHZ, 1.0, attrgetter("quick_cpu_mhz"))

    def _memory_ours(self, host: Host, tick: int) -> float:
        return self._ours(host, tick, MEMORY_KIB, KIB_PER_MIB, attrgetter("quick_memory_mib"))

    def _ours(
        self, host: Host, tick: int, counter: str, unit: float, quick: Callable[[Machine], float]
    ) -> float:
        # With the host's value at hand, a machine without one was not running then: both come from the host.
        if tick in self._grid.of(host.id, counter):
            mine = (self._grid.of(machine.id, counter).get(tick, 0.0) for machine in self._running[host.id])
            return sum(mine, 0.0) / unit
        return sum((quick(machine) for machine in self._running[host.id]), 0.0)


def _used(host: Host, quality: Quality, found: float | None, quick: float | None) -> float:
    """The counter's value; where it is missing the host's own summary, which is only true of now; else NaN."""
    if host.state is HostState.STANDBY:
        return 0.0
    if not is_measured(host):
        return math.nan
    if found is None and quality is not Quality.BACKFILLED:
        found = quick
    return math.nan if found is None else found
