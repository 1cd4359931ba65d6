"""Samples: means over intervals that end on whole multiples of the interval on the cloud's clock.

A sample depends on the tracks alone, so asking again gives the same answer, and back-fill what would have
been seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from statistics import fmean

from libs.common.contracts.usage import Announced, Quality, Sample
from libs.providers.simulated.physics import (
    HostLoad,
    contention_percent,
    datastore_free_gib,
    is_on,
    limit_of,
    loads_at,
    machines_by_host,
    memory_mib,
    owner_mib,
    state_of,
)
from libs.providers.simulated.state import HISTORY_S, CloudState, ClusterRecord, MachineRecord, value_at

_POINTS = 4

ByHost = dict[str, list[MachineRecord]]


@dataclass(frozen=True, slots=True)
class Interval:
    """One interval, on the caller's clock; `at` is its end on the cloud's."""

    end_s: float
    length_s: float
    at: datetime

    def points(self) -> list[float]:
        """Moments that stand for the whole."""
        step_s = self.length_s / _POINTS
        return [self.end_s - self.length_s + step_s * (index + 0.5) for index in range(_POINTS)]


def take_samples(state: CloudState, since: datetime | None, now_s: float) -> list[Sample]:
    """All clusters, oldest first: the newest whole interval, and with `since` every one after it of the last
    hour."""
    by_host = machines_by_host(state.machines)
    intervals = due_intervals(state, since, now_s)
    samples = []
    for interval in intervals:
        quality = Quality.MEASURED if interval is intervals[-1] else Quality.BACKFILLED
        samples += [_sample(state, one, by_host, interval, quality) for one in state.clusters if not one.gone]
    return samples


def due_intervals(state: CloudState, since: datetime | None, now_s: float) -> list[Interval]:
    """Whole intervals that ended after `since`, oldest first; only the newest without it."""
    length_s = state.settings.interval_s
    offset_s = state.faults.clock_offset_s
    newest = math.floor((now_s + offset_s) / length_s)
    oldest = newest
    if since is not None:
        known = math.floor(since.timestamp() / length_s + 1e-6)
        oldest = max(known + 1, newest - int(HISTORY_S // length_s) + 1)
    return [
        Interval(number * length_s - offset_s, length_s, datetime.fromtimestamp(number * length_s, UTC))
        for number in range(oldest, newest + 1)
    ]


def _sample(
    state: CloudState, cluster: ClusterRecord, by_host: ByHost, interval: Interval, quality: Quality
) -> Sample:
    capacity_mhz = cluster.capacity_mhz
    # Just before the end: what is done at that very moment belongs to the next interval, whoever comes first.
    end_s = math.nextafter(interval.end_s, 0.0)
    rounds = [loads_at(state, cluster, by_host, moment) for moment in interval.points()]
    columns = [list(moments) for moments in zip(*rounds, strict=True)]
    ours = [fmean(load.ours_mhz for load in moments) for moments in columns]
    owner = [fmean(load.owner_mhz for load in moments) for moments in columns]
    memory_ours = [sum(memory_mib(one, end_s) for one in by_host.get(h.host, ())) for h in cluster.hosts]
    memory_owner = [owner_mib(state, cluster, host, end_s) for host in cluster.hosts]
    used = [theirs + own for theirs, own in zip(owner, ours, strict=True)]
    if state.faults.impossible_samples:
        ours = [1.5 * total + 100.0 for total in used]
    running = [_running(by_host, host.host, end_s) for host in cluster.hosts]
    width = len(cluster.hosts)
    return Sample(
        cluster=cluster.cluster,
        name=cluster.name,
        at=interval.at,
        interval_s=float(interval.length_s),
        hosts=tuple(host.host for host in cluster.hosts),
        host_names=tuple(host.name for host in cluster.hosts),
        states=tuple(state_of(host, end_s) for host in cluster.hosts),
        cpu_capacity_mhz=(capacity_mhz,) * width,
        cpu_used_mhz=tuple(used),
        cpu_ours_mhz=tuple(ours),
        cpu_limit_mhz=tuple(sum(limit_of(one, end_s) for one in machines) for machines in running),
        memory_capacity_mib=(cluster.memory_mib,) * width,
        memory_used_mib=tuple(
            min(cluster.memory_mib, theirs + own)
            for theirs, own in zip(memory_owner, memory_ours, strict=True)
        ),
        memory_ours_mib=tuple(memory_ours),
        contention_percent=tuple(_contention(moments, capacity_mhz) for moments in columns),
        machines=tuple(len(machines) for machines in running),
        cap_mhz=value_at(cluster.cap, end_s),
        datastore_capacity_gib=cluster.datastore_gib,
        datastore_free_gib=max(0.0, datastore_free_gib(state, cluster, end_s)),
        datastore_uncommitted_gib=0.0,  # its disks are thick
        quality=quality,
        coming=_coming(state, cluster) if quality is Quality.MEASURED else (),
    )


def _coming(state: CloudState, cluster: ClusterRecord) -> tuple[Announced, ...]:
    """What the owners of these hosts are about to do, on the cloud's clock."""
    hosts = {host.host for host in cluster.hosts}
    offset = timedelta(seconds=state.faults.clock_offset_s)
    return tuple(
        replace(told, begins_at=told.begins_at + offset) for told in state.announced if told.host in hosts
    )


def _running(by_host: ByHost, host: str, at_s: float) -> list[MachineRecord]:
    return [machine for machine in by_host.get(host, ()) if is_on(machine, at_s)]


def _contention(moments: Sequence[HostLoad], capacity_mhz: float) -> float | None:
    """Judged only while ours run there."""
    waits = [contention_percent(load, capacity_mhz) for load in moments if load.running]
    return fmean(waits) if waits else None
