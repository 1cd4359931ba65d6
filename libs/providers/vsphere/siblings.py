"""What lies beside our pool, counted now and then: how many shares ours may have at most."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from libs.providers.vsphere.collection import make_rows, to_ref
from libs.providers.vsphere.fleet import Machine
from libs.providers.vsphere.inventory import Cluster
from libs.providers.vsphere.pools import SIBLING_LEAVES, Shares, give_way, sum_shares
from libs.providers.vsphere.settings import VSphereSettings
from libs.providers.vsphere.soap import Line, Step, write_start

KEEP = timedelta(minutes=5)
_WAYS = (Step("ResourcePool", "resourcePool"), Step("ResourcePool", "vm"))


class SiblingWatch:
    """Counts the owner's pools and machines of each cluster where ours run; their sum moves slowly."""

    def __init__(self, settings: VSphereSettings) -> None:
        self._settings = settings
        self._counted: dict[str, tuple[datetime, Shares]] = {}

    async def look(
        self, line: Line, clusters: Iterable[Cluster], machines: Iterable[Machine], now: datetime
    ) -> Mapping[str, Shares]:
        """By cluster id the shares that our pool may have; only of clusters where ours run in pools."""
        hosts = {machine.host_id for machine in machines}
        lent = [
            cluster
            for cluster in clusters
            if cluster.pools_possible and any(host.id in hosts for host in cluster.hosts)
        ]
        kept = {cluster.id for cluster in lent}
        self._counted = {key: known for key, known in self._counted.items() if key in kept}
        for cluster in lent:
            known = self._counted.get(cluster.id)
            if known is None or now - known[0] > KEEP:
                start = write_start(to_ref(cluster.root_pool), _WAYS)
                rows = make_rows(await line.retrieve("siblings", [start], SIBLING_LEAVES))
                self._counted[cluster.id] = (now, sum_shares(rows, self._settings))
        return {key: give_way(shares) for key, (_, shares) in self._counted.items()}
