"""Our resource pool of a cluster: it gives way at once (shares), is capped, and reserves no CPU."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from libs.providers.base import Cause, Rejected
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.inventory import Cluster, Row, read_objects, read_related, ref_id
from libs.providers.vsphere.settings import VSphereSettings
from libs.providers.vsphere.soap import Leaves, Ref

SHARE_OF_SIBLINGS = 0.01
_KINDS = ("cpu", "memory")
# What the levels mean for pools, and per vCPU or MiB for machines; a server may leave the number out.
_POOL_LEVELS = {
    "cpu": {"low": 2000, "normal": 4000, "high": 8000},
    "memory": {"low": 81920, "normal": 163840, "high": 327680},
}
_MACHINE_LEVELS = {
    "cpu": {"low": 500, "normal": 1000, "high": 2000},
    "memory": {"low": 5, "normal": 10, "high": 20},
}
_ALLOCATION: Leaves = {
    "limit": int,
    "reservation": int,
    "expandableReservation": bool,
    "shares.level": str,
    "shares.shares": int,
}
POOL_LEAVES: Leaves = {
    "name": str,
    "parent": Ref,
    **{f"config.{kind}Allocation.{leaf}": holds for kind in _KINDS for leaf, holds in _ALLOCATION.items()},
}
_CHANGED: Leaves = {**POOL_LEAVES, "config.changeVersion": str}
"""With which change it has seen last: only who is about to change it asks."""
_MACHINE_LEAVES: Leaves = {
    "config.hardware.numCPU": int,
    "config.hardware.memoryMB": int,
    **{f"config.{kind}Allocation.shares.level": str for kind in _KINDS},
    **{f"config.{kind}Allocation.shares.shares": int for kind in _KINDS},
}
SIBLING_LEAVES: Mapping[str, Leaves] = {"ResourcePool": POOL_LEAVES, "VirtualMachine": _MACHINE_LEAVES}
OUTWEIGHS = 2
"""So many times what our pool may have is no longer a count that is some minutes old: somebody raised it."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Custom shares of our pool."""

    cpu: int
    memory: int


@dataclass(frozen=True, slots=True)
class Pool:
    """Our pool of a cluster as it is set now."""

    row: Row

    @property
    def ref(self) -> Any:
        return self.row.ref

    @property
    def version(self) -> str | None:
        """Which change it has seen last; a change that names an older one is refused."""
        found = self.row.properties.get("config.changeVersion")
        return None if found is None else str(found)

    @property
    def cap_mhz(self) -> float | None:
        """The CPU limit; None when there is none."""
        limit = self._get("cpu", "limit")
        return None if limit is None or limit < 0 else float(limit)

    @property
    def gives_way(self) -> bool:
        """Whether what is in it gives way, as far as one look tells; the number of its shares is a sum's business."""
        return (
            self.cap_mhz is not None
            and not any(self._get(kind, "reservation") for kind in _KINDS)
            and all(str(self._get(kind, "shares.level")) == "custom" for kind in _KINDS)
        )

    def outweighs(self, most: Shares) -> bool:
        """Whether somebody gave it far more shares than it may have beside its siblings."""
        pairs = (("cpu", most.cpu), ("memory", most.memory))
        return any((self._get(kind, "shares.shares") or 0) > OUTWEIGHS * allowed for kind, allowed in pairs)

    def fits(self, cap_mhz: int, shares: Shares) -> bool:
        """Whether it is set exactly so."""
        return (
            self._get("cpu", "limit") == cap_mhz
            and not self._get("cpu", "reservation")
            and not self._get("cpu", "expandableReservation")
            and not self._get("memory", "reservation")
            and bool(self._get("memory", "expandableReservation"))
            and all(
                str(self._get(kind, "shares.level")) == "custom"
                and self._get(kind, "shares.shares") == wanted
                for kind, wanted in (("cpu", shares.cpu), ("memory", shares.memory))
            )
        )

    def _get(self, kind: str, leaf: str) -> Any:
        return self.row.properties.get(f"config.{kind}Allocation.{leaf}")


def read_pools(api: Api, clusters: Iterable[Cluster], settings: VSphereSettings) -> dict[str, Pool]:
    """Our pools by cluster id, as far as they exist."""
    able = [cluster for cluster in clusters if cluster.pools_possible]
    roots = [cluster.root_pool for cluster in able]
    rows = read_related(api, "inventory", roots, "resourcePool", {vim.ResourcePool: _CHANGED})
    return choose_pools(rows, able, settings)


def choose_pools(
    rows: Iterable[Row], clusters: Iterable[Cluster], settings: VSphereSettings
) -> dict[str, Pool]:
    """Our pools by cluster id, out of the pools directly below the clusters' own."""
    roots = {ref_id(cluster.root_pool): cluster for cluster in clusters}
    return {
        roots[ref_id(row.properties["parent"])].id: Pool(row)
        for row in rows
        if row.properties.get("name") == settings.pool
        and not isinstance(row.ref, vim.VirtualApp)
        and row.properties.get("parent") is not None
        and ref_id(row.properties["parent"]) in roots
    }


def sum_siblings(api: Api, cluster: Cluster, settings: VSphereSettings) -> Shares:
    """Shares of everything beside our pool under the cluster's root."""
    pools = read_related(
        api, "inventory", [cluster.root_pool], "resourcePool", {vim.ResourcePool: POOL_LEAVES}
    )
    machines = read_related(
        api, "inventory", [cluster.root_pool], "vm", {vim.VirtualMachine: _MACHINE_LEAVES}
    )
    return sum_shares([*pools, *machines], settings)


def sum_shares(rows: Sequence[Row], settings: VSphereSettings) -> Shares:
    """Shares of these pools and machines, all but our pool's."""
    machines = [row for row in rows if isinstance(row.ref, vim.VirtualMachine)]
    pools = [
        row
        for row in rows
        if isinstance(row.ref, vim.ResourcePool) and row.properties.get("name") != settings.pool
    ]
    cpu, memory = (_sum(kind, pools, machines) for kind in _KINDS)
    return Shares(cpu, memory)


def _sum(kind: str, pools: Sequence[Row], machines: Sequence[Row]) -> int:
    size = "config.hardware.numCPU" if kind == "cpu" else "config.hardware.memoryMB"
    return sum(_shares_of(row, kind, _POOL_LEVELS, 1) for row in pools) + sum(
        _shares_of(row, kind, _MACHINE_LEVELS, int(row.properties.get(size) or 0)) for row in machines
    )


def _shares_of(row: Row, kind: str, levels: dict[str, dict[str, int]], size: int) -> int:
    level = str(row.properties.get(f"config.{kind}Allocation.shares.level"))
    given = int(row.properties.get(f"config.{kind}Allocation.shares.shares") or 0)
    return given or levels[kind].get(level, 0) * size


def give_way(siblings: Shares) -> Shares:
    """Our shares beside such siblings: at most 1 % of their sum, and never none."""
    return Shares(*(max(1, int(total * SHARE_OF_SIBLINGS)) for total in (siblings.cpu, siblings.memory)))


def ensure_pool(
    api: Api, cluster: Cluster, settings: VSphereSettings, first_cap_mhz: float, shares: Shares
) -> Pool:
    """Our pool, made with this cap where it does not exist yet."""
    found = read_pools(api, [cluster], settings).get(cluster.id)
    if found is not None:
        return found
    try:
        ref = cluster.root_pool.CreateResourcePool(
            settings.pool, _make_spec(whole_mhz(first_cap_mhz), shares)
        )
    except vim.fault.DuplicateName as taken:
        ref = taken.object
    rows = read_objects(api, "inventory", [ref], {vim.ResourcePool: _CHANGED})
    if not rows:
        raise Rejected(Cause.CONFLICT, f"the pool {settings.pool!r} went away while it was made")
    return Pool(rows[0])


def update_pool(pool: Pool, cap_mhz: float, shares: Shares) -> bool:
    """Set cap and shares; True when something really changed. Raises ConcurrentAccess where somebody was quicker."""
    cap = whole_mhz(cap_mhz)
    if pool.fits(cap, shares):
        return False
    spec = _make_spec(cap, shares)
    spec.changeVersion = pool.version
    pool.ref.UpdateConfig(None, spec)
    return True


def remove_pool(pool: Pool, api: Api) -> Any:
    """Start to remove the pool. Raises Rejected(CONFLICT) while anything is in it."""
    rows = read_objects(api, "inventory", [pool.ref], {vim.ResourcePool: ("vm", "resourcePool")})
    if not rows:
        return None
    if rows[0].properties.get("vm") or rows[0].properties.get("resourcePool"):
        raise Rejected(Cause.CONFLICT, "something is still in our resource pool")
    return pool.ref.Destroy_Task()


def whole_mhz(mhz: float) -> int:
    """A limit as vSphere takes it: whole MHz, and never 0 or less, which would read as none or unlimited."""
    return max(1, round(mhz))


def _make_spec(cap_mhz: int, shares: Shares) -> Any:
    return vim.ResourceConfigSpec(
        cpuAllocation=vim.ResourceAllocationInfo(
            reservation=0, expandableReservation=False, limit=cap_mhz, shares=_custom(shares.cpu)
        ),
        # Powering on needs memory for overhead: it is borrowed from the parent, CPU never is.
        memoryAllocation=vim.ResourceAllocationInfo(
            reservation=0, expandableReservation=True, limit=-1, shares=_custom(shares.memory)
        ),
    )


def _custom(number: int) -> Any:
    return vim.SharesInfo(level=vim.SharesInfo.Level.custom, shares=number)
