"""A round of sampling: inventory, our machines and their counters in a few bulk calls, for all clusters at once."""

import math
from collections.abc import Sequence
from datetime import datetime

from libs.common.contracts.usage import Sample
from libs.providers.base import Power
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.contention import ContentionWatch
from libs.providers.vsphere.fleet import Labels, Machine, find_folders, read_fleet
from libs.providers.vsphere.inventory import Cluster, choose_datastore, read_clusters
from libs.providers.vsphere.perf import CPU_MHZ, MEMORY_KIB, Counters, Readings, query, read_counters
from libs.providers.vsphere.pools import read_pools
from libs.providers.vsphere.settings import NATIVE_INTERVAL_S, VSphereSettings
from libs.providers.vsphere.usage import Surroundings, is_measured, make_samples

_SPARE = 3
"""Intervals asked for beyond the newest: hosts hand in their values up to a minute late."""


class Rounds:
    """Samples all clusters in scope; remembers counter ids and slow measurements."""

    def __init__(self, settings: VSphereSettings, labels: Labels) -> None:
        self._settings = settings
        self._labels = labels
        self._counters: Counters | None = None
        self._contention = ContentionWatch()

    def sample(self, api: Api, since: datetime | None) -> Sequence[Sample]:
        """One round; blocking. With `since` also every whole interval that ended after it, up to an hour back."""
        now = api.now()
        clusters = read_clusters(api, self._settings)
        machines = read_fleet(api, find_folders(api, self._settings, clusters), self._labels)
        pools = read_pools(api, clusters, self._settings)
        readings = self._read(api, clusters, machines, since)
        contention = self._contend(api, clusters, machines, now)
        samples: list[Sample] = []
        for cluster in clusters:
            pool = pools.get(cluster.id)
            around = Surroundings(
                cap_mhz=pool.cap_mhz if pool is not None else None,
                datastore=choose_datastore(cluster, self._settings),
                contention_percent=contention,
                now=now,
                interval_s=self._settings.interval_s,
            )
            samples.extend(make_samples(cluster, machines, readings, around, since))
        return sorted(samples, key=lambda sample: (sample.at, sample.cluster))

    def _count(self, api: Api) -> Counters:
        if self._counters is None:
            self._counters = read_counters(api)
        return self._counters

    def _read(
        self, api: Api, clusters: Sequence[Cluster], machines: Sequence[Machine], since: datetime | None
    ) -> Readings:
        counters = self._count(api).named([CPU_MHZ, MEMORY_KIB])
        hosts = {host.id: host for cluster in clusters for host in cluster.hosts if is_measured(host)}
        refs = [host.ref for host in hosts.values()]
        refs += [each.ref for each in machines if each.power is Power.ON and each.host_id in hosts]
        enough = self._settings.interval_s // NATIVE_INTERVAL_S + _SPARE
        readings = query(api, counters, refs, enough)
        newest = max(readings.times(), default=None)
        if since is None or newest is None:
            return readings
        missed = math.ceil((newest - since.timestamp()) / NATIVE_INTERVAL_S)
        return readings if missed <= enough else query(api, counters, refs, missed)

    def _contend(
        self, api: Api, clusters: Sequence[Cluster], machines: Sequence[Machine], now: datetime
    ) -> dict[str, float]:
        lent = {machine.host_id for machine in machines if machine.power is Power.ON}
        hosts = {
            host.id: host.ref
            for cluster in clusters
            for host in cluster.hosts
            if host.id in lent and is_measured(host)
        }
        ours = {machine.id for machine in machines}
        return self._contention.look(api, self._count(api), hosts, ours, now) if hosts else {}
