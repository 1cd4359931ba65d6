"""A round of sampling: inventory, our machines and their counters in a few bulk calls, for all clusters at once."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from libs.common.contracts.usage import Sample
from libs.providers.base import Power
from libs.providers.vsphere.announced import ComingWatch
from libs.providers.vsphere.collection import collect_clusters, collect_machines, collect_pools, to_ref
from libs.providers.vsphere.contention import ContentionWatch, Strain
from libs.providers.vsphere.fleet import Labels, Machine
from libs.providers.vsphere.inventory import Cluster, choose_datastore
from libs.providers.vsphere.perf import CPU_MHZ, MEMORY_KIB, Counters, query, read_counters
from libs.providers.vsphere.pools import Pool
from libs.providers.vsphere.reserve import ReserveWatch
from libs.providers.vsphere.session import Session
from libs.providers.vsphere.settings import NATIVE_INTERVAL_S, VSphereSettings
from libs.providers.vsphere.siblings import SiblingWatch
from libs.providers.vsphere.soap import Line, Readings
from libs.providers.vsphere.usage import Surroundings, is_measured, make_samples
from libs.providers.vsphere.yielding import find_exposure

log = structlog.get_logger()

_SPARE = 3
"""Intervals asked for beyond the newest: hosts hand in their values up to a minute late."""


class Rounds:
    """Samples all clusters in scope; remembers counter ids and slow measurements."""

    def __init__(self, session: Session, settings: VSphereSettings, labels: Labels) -> None:
        self._session = session
        self._settings = settings
        self._labels = labels
        self._counted: tuple[Line, Counters] | None = None
        self._contention = ContentionWatch()
        self._siblings = SiblingWatch(settings)
        self._coming = ComingWatch(session)
        self._reserves = ReserveWatch(session)

    async def sample(self, line: Line, since: datetime | None) -> Sequence[Sample]:
        """One round. With `since` also every whole interval that ended after it, up to an hour back."""
        began = time.monotonic()
        try:
            samples = await self._sample(line, since)
        except BaseException:
            # One that failed early says nothing of how fast the server is; one that took its time does.
            line.pace.note(
                max(time.monotonic() - began, self._settings.interval_s / 4), self._settings.interval_s
            )
            raise
        line.pace.note(time.monotonic() - began, self._settings.interval_s)
        return samples

    async def _sample(self, line: Line, since: datetime | None) -> Sequence[Sample]:
        now = await line.now()
        clusters = await collect_clusters(line, self._settings)
        machines = await collect_machines(line, self._session, clusters, self._settings, self._labels)
        coming = await self._coming.look(line, clusters, {machine.id for machine in machines}, now)
        pools = await collect_pools(line, clusters, self._settings)
        readings = await self._read(line, clusters, machines, since)
        strain = await self._contend(line, clusters, machines, now)
        reserves = await self._reserves.look(clusters, now)
        most = await self._siblings.look(line, clusters, machines, now)
        _tell_left_out(line, readings)
        exposed = {
            cluster.id: find_exposure(cluster, machines, pools.get(cluster.id), most.get(cluster.id))
            for cluster in clusters
        }
        views = [
            (
                cluster,
                replace(
                    self._look_around(cluster, pools.get(cluster.id), strain, now),
                    exposed=exposed[cluster.id],
                    coming=coming[cluster.id],
                    reserve=reserves.get(cluster.id),
                ),
            )
            for cluster in clusters
        ]
        # An hour of many hosts takes a while: the loop goes on meanwhile.
        return await asyncio.to_thread(_judge, views, machines, readings, since)

    def _look_around(
        self,
        cluster: Cluster,
        pool: Pool | None,
        strain: dict[str, Strain],
        now: datetime,
    ) -> Surroundings:
        return Surroundings(
            cap_mhz=pool.cap_mhz if pool is not None else None,
            datastore=choose_datastore(cluster, self._settings),
            strain=strain,
            now=now,
            interval_s=self._settings.interval_s,
        )

    async def _count(self, line: Line) -> Counters:
        """The counters' numbers, read once in each session: a vCenter that was upgraded may have given new ones."""
        if self._counted is None or self._counted[0] is not line:
            self._counted = line, await self._session.call(read_counters, "reading the counters")
        return self._counted[1]

    async def _read(
        self, line: Line, clusters: Sequence[Cluster], machines: Sequence[Machine], since: datetime | None
    ) -> Readings:
        counters = await self._count(line)
        hosts = {host.id: host for cluster in clusters for host in cluster.hosts if is_measured(host)}
        refs = [to_ref(host.ref) for host in hosts.values()]
        refs += [to_ref(each.ref) for each in machines if each.power is Power.ON and each.host_id in hosts]
        names = (CPU_MHZ, MEMORY_KIB)
        enough = self._settings.interval_s // NATIVE_INTERVAL_S + _SPARE
        readings = await query(line, counters, names, refs, enough)
        newest = max(readings.times(), default=None)
        if since is None or newest is None:
            return readings
        missed = math.ceil((newest - since.timestamp()) / NATIVE_INTERVAL_S)
        return readings if missed <= enough else await query(line, counters, names, refs, missed)

    async def _contend(
        self, line: Line, clusters: Sequence[Cluster], machines: Sequence[Machine], now: datetime
    ) -> dict[str, Strain]:
        lent = {machine.host_id for machine in machines if machine.power is Power.ON}
        hosts = {
            host.id: to_ref(host.ref)
            for cluster in clusters
            for host in cluster.hosts
            if host.id in lent and is_measured(host)
        }
        ours = {machine.id for machine in machines}
        counters = await self._count(line)
        return await self._contention.look(line, counters, hosts, ours, now) if hosts else {}


def _judge(
    views: Sequence[tuple[Cluster, Surroundings]],
    machines: Sequence[Machine],
    readings: Readings,
    since: datetime | None,
) -> list[Sample]:
    samples = [
        sample
        for cluster, around in views
        for sample in make_samples(cluster, machines, readings, around, since)
    ]
    return sorted(samples, key=lambda sample: (sample.at, sample.cluster))


def _tell_left_out(line: Line, readings: Readings) -> None:
    """Values that made no sense are not guessed, and not passed over in silence either."""
    left_out = +(line.left_out + readings.left_out)
    line.left_out.clear()
    if left_out:
        log.warning("vsphere.values_left_out", **{"count": left_out.total(), "reasons": dict(left_out)})
