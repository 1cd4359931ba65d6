"""What a target can do, by what it is: vCenter or single host, DRS on or off, licence."""

from collections.abc import Sequence

from pyVmomi import vim

from libs.providers.base import Capability
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.inventory import Cluster
from libs.providers.vsphere.licence import is_read_only

LOOKING = frozenset({Capability.HOSTS_VISIBLE, Capability.BACKFILL})
_MACHINES = frozenset(
    {
        Capability.LIMITS,
        Capability.SUSPEND,
        Capability.GUEST_SHUTDOWN,
        Capability.PLACEMENT,
        Capability.DISK_IOPS,
    }
)
_VCENTER = frozenset(
    {
        Capability.CLONE,
        Capability.LINKED_CLONE,
        Capability.ATTRIBUTE,
        Capability.OVF_ENVIRONMENT,
        Capability.RECALL,
        Capability.TEMPLATES,
    }
)


def learn_capabilities(api: Api, clusters: Sequence[Cluster]) -> frozenset[Capability]:
    """Everything that one of the clusters can do; what API 6.5 to 9 have in common is not asked for."""
    if is_read_only(api):
        return LOOKING
    found = set(LOOKING | _MACHINES | (frozenset({Capability.DISK_COPY}) if api.on_host else _VCENTER))
    if any(cluster.pools_possible for cluster in clusters):
        found.add(Capability.POOLS)
    grouped = [cluster for cluster in clusters if isinstance(cluster.ref, vim.ClusterComputeResource)]
    if grouped:
        found.add(Capability.HA_OVERRIDE)
    if any(cluster.pools_possible for cluster in grouped):
        found.add(Capability.DRS_OVERRIDE)
    return frozenset(found)
