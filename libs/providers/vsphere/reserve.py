"""What HA's admission control keeps free in a cluster: read now and then, since administrators seldom change it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from pyVmomi import vim

from libs.providers.vsphere.api import Api
from libs.providers.vsphere.inventory import Cluster, Host, read_objects, ref_id
from libs.providers.vsphere.seldom import Seldom
from libs.providers.vsphere.session import Session

_PATH = "configurationEx.dasConfig"
_Policies = vim.cluster


@dataclass(frozen=True, slots=True)
class Reserve:
    """How much of a cluster is kept free: shares of all of it, or so many of its largest hosts; and hosts set aside."""

    cpu_share: float = 0.0
    memory_share: float = 0.0
    largest_hosts: int = 0
    named_hosts: frozenset[str] = frozenset()
    """Hosts that stand by for a failure, by id: nothing runs there, and nothing of what the others have is kept."""

    def of(self, hosts: Sequence[Host]) -> tuple[float, float]:
        """MHz and MiB kept free of these hosts, which are all of the cluster's, beside those that are set aside."""
        cpu_mhz, memory_mib = [host.cpu_mhz for host in hosts], [host.memory_mib for host in hosts]
        kept_mhz, kept_mib = _largest(cpu_mhz, self.largest_hosts), _largest(memory_mib, self.largest_hosts)
        return kept_mhz + self.cpu_share * sum(cpu_mhz), kept_mib + self.memory_share * sum(memory_mib)


class ReserveWatch:
    """What is kept free; a cluster whose configuration cannot be read any more keeps what was known last."""

    def __init__(self, session: Session) -> None:
        self._known: dict[str, Reserve] = {}
        self._kept: Seldom[dict[str, Reserve]] = Seldom(session, "what HA keeps free", {})

    async def look(self, clusters: Sequence[Cluster], now: datetime) -> dict[str, Reserve]:
        """By cluster id."""
        self._known |= await self._kept.look(partial(_read, clusters), now)
        return self._known


def _read(clusters: Sequence[Cluster], api: Api) -> dict[str, Reserve]:
    refs = [each.ref for each in clusters if isinstance(each.ref, vim.ClusterComputeResource)]
    rows = read_objects(api, "reserve", refs, {vim.ClusterComputeResource: (_PATH,)})
    found = {row.id: read_reserve(row.properties.get(_PATH)) for row in rows}
    return {cluster: reserve for cluster, reserve in found.items() if reserve is not None}


def read_reserve(config: Any) -> Reserve | None:
    """What a cluster's HA configuration keeps free; None where it does not say."""
    if config is None or config.enabled is None:
        return None
    if not config.enabled or config.admissionControlEnabled is False:
        return Reserve()
    policy = config.admissionControlPolicy
    if isinstance(policy, _Policies.FailoverResourcesAdmissionControlPolicy):
        return Reserve(
            _share(policy.cpuFailoverResourcesPercent), _share(policy.memoryFailoverResourcesPercent)
        )
    if isinstance(policy, _Policies.FailoverHostAdmissionControlPolicy):
        return Reserve(named_hosts=frozenset(map(ref_id, policy.failoverHosts or ())))
    level = getattr(policy, "failoverLevel", None) or config.failoverLevel
    return None if level is None else Reserve(largest_hosts=max(0, int(level)))


def _share(percent: int | None) -> float:
    return min(1.0, max(0.0, (percent or 0) / 100.0))


def _largest(sizes: Iterable[float], count: int) -> float:
    return sum(sorted(sizes, reverse=True)[:count])
