"""Whether our machines give way by themselves: in our pool, or, where there can be none, by shares of their own."""

from collections.abc import Iterable

from libs.common.contracts.usage import Exposure
from libs.providers.base import Power
from libs.providers.vsphere.fleet import Machine
from libs.providers.vsphere.inventory import Cluster, ref_id
from libs.providers.vsphere.pools import Pool, Shares


def find_exposure(
    cluster: Cluster, machines: Iterable[Machine], pool: Pool | None, most: Shares | None = None
) -> Exposure | None:
    """Why a running machine of ours in this cluster would compete with the owner's as an equal; None: none would.

    `most` are the shares that our pool may have, where that was counted.
    """
    hosts = {host.id for host in cluster.hosts}
    home = ref_id(pool.ref) if pool is not None else None
    gives_way = pool is not None and pool.gives_way and not (most is not None and pool.outweighs(most))
    exposed = [
        machine
        for machine in machines
        if machine.power is Power.ON
        and machine.host_id in hosts
        and not machine.has_least_shares
        and not (gives_way and machine.pool_id == home)
    ]
    if not exposed:
        return None
    if not cluster.pools_possible:
        return Exposure.NO_POOLS
    if pool is None:
        return Exposure.POOL_GONE
    return Exposure.POOL_ALTERED if not gives_way else Exposure.OUTSIDE_POOL
