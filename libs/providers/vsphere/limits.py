"""Budgets, caps and shares: the newest wish wins, and only what really differs is changed."""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from pyVmomi import vim, vmodl

from libs.providers.base import Cause, Power, ProviderError, Rejected, Unavailable
from libs.providers.vsphere.actions import Yard
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.fleet import Machine, find_folders, read_fleet
from libs.providers.vsphere.hardware import limit_spec, make_shares
from libs.providers.vsphere.inventory import Cluster, find_cluster, find_folder, read_objects
from libs.providers.vsphere.keeping import Home, bring_home
from libs.providers.vsphere.pools import (
    Pool,
    Shares,
    ensure_pool,
    read_pools,
    remove_pool,
    update_pool,
    whole_mhz,
)

log = structlog.get_logger()


@dataclass(slots=True)
class Wishes:
    """The newest wanted limits of one cluster; whoever comes later overwrites what has not been applied yet."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    cap_mhz: float = 0.0
    machines: dict[str, float] = field(default_factory=dict)


class Limits:
    """Sets caps and limits, cluster by cluster."""

    def __init__(self, yard: Yard, shares: Callable[[Api, Cluster], Shares]) -> None:
        self._yard = yard
        self._shares = shares
        self._wishes: dict[str, Wishes] = {}
        self._homes: dict[str, Home] = {}

    async def set(self, cluster_id: str, cap_mhz: float, machines: Mapping[str, float]) -> int:
        """Number of objects changed. Raises NOT_FOUND for absent machines after all others were set."""
        for mhz in (cap_mhz, *machines.values()):
            if not math.isfinite(mhz) or mhz < 0:
                raise Rejected(Cause.INVALID, f"a limit must be a number of MHz, not {mhz}")
        wishes = self._wishes.setdefault(cluster_id, Wishes())
        wishes.cap_mhz = cap_mhz
        wishes.machines.update(machines)
        async with wishes.lock:
            wanted = {name: wishes.machines[name] for name in machines if name in wishes.machines}
            try:
                return await self._apply(cluster_id, wishes.cap_mhz, wanted)
            finally:
                for name, mhz in wanted.items():
                    if wishes.machines.get(name) == mhz:
                        del wishes.machines[name]

    async def _apply(self, cluster_id: str, cap_mhz: float, wanted: Mapping[str, float]) -> int:
        session = self._yard.session
        doing = f"setting limits of {cluster_id}"
        unsettled = await self._settle(wanted, doing)
        cluster, ours = await session.call(lambda api: self._look(api, cluster_id), doing)
        aims = {name: wanted.get(name, machine.limit_mhz) for name, machine in ours.items()}
        different = [
            machine
            for name, machine in ours.items()
            if name not in unsettled and _is_to_change(cluster, machine, aims[name])
        ]
        # Two cuts that belong together: machines first, since their limits act within seconds.
        results = await asyncio.gather(
            *(
                self._set_one(machine, aims[machine.name], least=_needs_least(cluster, machine))
                for machine in different
            ),
            self._set_cap(cluster, cap_mhz),
            return_exceptions=True,
        )
        for result in (*results, *unsettled.values()):
            if isinstance(result, BaseException):
                raise result
        brought = await self._bring_home(cluster, ours, aims)
        absent = sorted(set(wanted) - set(ours))
        if absent:
            raise Rejected(Cause.NOT_FOUND, f"no machine of ours in {cluster_id}: {', '.join(absent[:5])}")
        return sum(1 for result in results if result is True) + brought

    async def _settle(self, wanted: Mapping[str, float], doing: str) -> dict[str, ProviderError]:
        """Machines on which an earlier task of ours still runs; nobody waits for them, and the others go on."""
        unsettled: dict[str, ProviderError] = {}
        for name in wanted:
            try:
                await self._yard.session.tasks.settle(name, doing, 0.0)
            except Unavailable as refusal:
                if refusal.cause is not Cause.TIMEOUT:
                    raise
                unsettled[name] = refusal
        return unsettled

    def _look(self, api: Api, cluster_id: str) -> tuple[Cluster, dict[str, Machine]]:
        cluster = find_cluster(api, self._yard.settings, cluster_id)
        hosts = {host.id for host in cluster.hosts}
        fleet = read_fleet(api, find_folders(api, self._yard.settings, [cluster]), self._yard.labels)
        return cluster, {
            machine.name: machine
            for machine in fleet
            if machine.host_id in hosts and machine.label.mark.installation_id == self._yard.installation_id
        }

    async def _set_one(self, machine: Machine, mhz: float | None, *, least: bool) -> bool:
        doing = f"setting the limit of {machine.name}"
        session, spec = self._yard.session, limit_spec(mhz, make_shares(least=least))
        try:
            await session.do(lambda api: machine.ref.ReconfigVM_Task(spec), doing, about=machine.name)
        except ProviderError as refusal:
            log.info(
                "vsphere.limit_refused", machine=machine.name, cause=refusal.cause, reason=refusal.detail
            )
            raise
        return True

    async def _set_cap(self, cluster: Cluster, cap_mhz: float) -> bool:
        if not cluster.pools_possible:
            self._homes.pop(cluster.id, None)
            return False
        doing = f"setting the cap of {cluster.name}"
        return await self._yard.session.call(lambda api: self._cap(api, cluster, cap_mhz), doing)

    def _cap(self, api: Api, cluster: Cluster, cap_mhz: float) -> bool:
        shares = self._shares(api, cluster)
        pool = read_pools(api, [cluster], self._yard.settings).get(cluster.id)
        home = self._homes.setdefault(cluster.id, Home())
        if pool is None:
            home.note(ensure_pool(api, cluster, self._yard.settings, cap_mhz, shares).ref)
            log.warning("vsphere.pool_made", cluster=cluster.name, pool=self._yard.settings.pool)
            return True
        home.note(pool.ref)
        try:
            return update_pool(pool, cap_mhz, shares)
        except vim.fault.ConcurrentAccess:
            # Somebody else edited the pool between our look and our change: look again, once; then at the next beat.
            log.info("vsphere.pool_edited_meanwhile", cluster=cluster.id, pool=self._yard.settings.pool)
            pools = read_pools(api, [cluster], self._yard.settings)
            return cluster.id in pools and update_pool(pools[cluster.id], cap_mhz, shares)

    async def _bring_home(
        self, cluster: Cluster, ours: Mapping[str, Machine], aims: Mapping[str, float | None]
    ) -> int:
        """Machines of ours that lie elsewhere move into our pool, and have a machine's usual shares there."""
        home = self._homes.get(cluster.id)
        if home is None or home.pool is None:
            return 0
        moved = await bring_home(self._yard, cluster, home, ours.values())
        odd = [machine for machine in ours.values() if _may_change(machine) and not machine.has_low_shares]
        await asyncio.gather(*(self._set_one(each, aims[each.name], least=False) for each in odd))
        return moved + len(odd)


def _may_change(machine: Machine) -> bool:
    """A suspended machine is left alone: what is wrong with its shares is seen again when it wakes up."""
    return machine.power is not Power.SUSPENDED


def _needs_least(cluster: Cluster, machine: Machine) -> bool:
    """Without a pool it has to give way alone; one that does so goes on until it is in our pool again."""
    return not cluster.pools_possible or machine.has_least_shares


def _is_to_change(cluster: Cluster, machine: Machine, mhz: float | None) -> bool:
    if mhz is not None and machine.limit_mhz != whole_mhz(mhz):
        return True
    return not cluster.pools_possible and _may_change(machine) and not machine.has_least_shares


async def release_cluster(yard: Yard, cluster_id: str) -> None:
    """Remove our pool, and our empty folder where we may. Raises Rejected(CONFLICT) while a machine is there."""
    doing = f"releasing {cluster_id}"
    task = await yard.session.call(lambda api: _remove_pool(api, yard, cluster_id), doing)
    if task is not None:
        await yard.session.finish(task, doing)
    try:
        task = await yard.session.call(lambda api: _remove_folder(api, yard, cluster_id), doing)
        if task is not None:
            await yard.session.finish(task, doing)
    except Rejected as refusal:
        # A folder that was made for us is not ours to take away: removing it asks for a right on what is above it.
        if refusal.cause is not Cause.PERMISSION:
            raise
        log.info(
            "vsphere.folder_left", folder=yard.settings.folder, cluster=cluster_id, reason=refusal.detail
        )


def _remove_pool(api: Api, yard: Yard, cluster_id: str) -> Any:
    cluster = find_cluster(api, yard.settings, cluster_id)
    hosts = {host.id for host in cluster.hosts}
    fleet = read_fleet(api, find_folders(api, yard.settings, [cluster]), yard.labels)
    if any(machine.host_id in hosts for machine in fleet):
        raise Rejected(Cause.CONFLICT, f"machines of ours are still in cluster {cluster.name}")
    pool: Pool | None = read_pools(api, [cluster], yard.settings).get(cluster_id)
    return remove_pool(pool, api) if pool is not None else None


def _remove_folder(api: Api, yard: Yard, cluster_id: str) -> Any:
    cluster = find_cluster(api, yard.settings, cluster_id)
    folder = find_folder(api, cluster.vm_folder, yard.settings.folder)
    if folder is None or api.on_host:
        return None
    rows = read_objects(api, "machines", [folder], {type(folder): ("childEntity",)})
    if not rows or rows[0].properties.get("childEntity"):
        return None
    return _take_away(folder)


def _take_away(folder: Any) -> Any:
    # Destroying a folder destroys what was put into it this very moment; unregistering only takes it off the list.
    try:
        return folder.UnregisterAndDestroy_Task()
    except (vmodl.fault.MethodNotFound, vmodl.fault.NotSupported):
        return folder.Destroy_Task()
