"""Keeping our pool and what belongs into it together, whatever was done to either by hand."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog

from libs.providers.base import Rejected
from libs.providers.vsphere.actions import Yard
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.fleet import Machine
from libs.providers.vsphere.inventory import Cluster, Row, ref_id
from libs.providers.vsphere.pools import Pool, remove_pool

log = structlog.get_logger()


@dataclass(slots=True)
class Home:
    """Our pool of a cluster, and those that were it before: only what this session knew as ours is taken away."""

    pool: Any | None = None
    left: list[Any] = field(default_factory=list)

    def note(self, pool: Any) -> None:
        """Remember which pool it is now."""
        if self.pool is not None and ref_id(self.pool) != ref_id(pool):
            self.left.append(self.pool)
        self.pool = pool


async def bring_home(yard: Yard, cluster: Cluster, home: Home, machines: Iterable[Machine]) -> int:
    """Move machines of ours that lie elsewhere into our pool; how many. An old pool of ours that is empty then goes."""
    pool, about = home.pool, {"cluster": cluster.name, "pool": yard.settings.pool}
    strangers = [
        machine for machine in machines if pool is not None and machine.pool_id not in (None, ref_id(pool))
    ]
    if strangers and pool is not None:
        refs = [machine.ref for machine in strangers]
        doing = f"moving {len(refs)} machines into our pool of {cluster.name}"
        await yard.session.call(lambda api: pool.MoveIntoResourcePool(refs), doing)
        log.warning(
            "vsphere.machines_adopted", **about, machines=sorted(machine.name for machine in strangers)
        )
    while home.left:
        await _take_away(yard, home.left.pop(), about)
    return len(strangers)


async def _take_away(yard: Yard, old: Any, about: dict[str, str]) -> None:
    doing = "removing our old pool"
    try:
        task = await yard.session.call(lambda api: _remove(api, old), doing)
        if task is not None:
            await yard.session.finish(task, doing)
    except Rejected as refusal:
        log.warning("vsphere.pool_left", **about, old=ref_id(old), reason=refusal.detail)


def _remove(api: Api, old: Any) -> Any:
    return remove_pool(Pool(Row(old, {})), api)
