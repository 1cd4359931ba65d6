"""A vCenter with owners: vcsim, whose counters follow what owners want and what our machines' limits allow.

It looks at vcsim through a pyvmomi session of its own: what it says is what the cloud has, not what our rows say.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from pyVmomi import vim

from tests.contract.providers.vsphere_target import (
    CPU_COUNTER,
    HOST_MHZ,
    MEMORY_COUNTER,
    READY_COUNTER,
    BackDoor,
)
from tools.parts.vcsim import Vcsim

TICK_S = 20
OURS = "tides-"


@dataclass(frozen=True)
class Vm:
    """One of our machines as vcsim has it."""

    name: str
    ref: str
    host: str
    power: str
    limit_mhz: int
    pool: str

    @property
    def is_on(self) -> bool:
        """Powered on."""
        return self.power == "poweredOn"


@dataclass
class Lab:
    """Owners by host, as fractions of a host; `run` makes a cloud's 20 seconds pass in one of ours."""

    vcsim: Vcsim
    hosts: dict[str, str]
    """Name by reference."""
    owner: dict[str, float] = field(default_factory=dict)
    second_s: float = 1.0
    """Real seconds per tick of 20."""

    def __post_init__(self) -> None:
        self.back_door = BackDoor(self.vcsim)

    async def ours(self) -> list[Vm]:
        """Our machines, by name."""
        return sorted(await self.back_door.run(_ours), key=lambda vm: vm.name)

    async def all_names(self) -> list[str]:
        """Names of all machines, as often as they exist."""
        return await self.back_door.names()

    async def tick(self) -> None:
        """Let 20 seconds of the cloud's clock pass, with everybody's load as it must be."""
        vms = await self.ours()
        for host in self.hosts:
            mine = [vm for vm in vms if vm.host == host and vm.is_on]
            owner = self.owner.get(host, 0.1) * HOST_MHZ
            used = {vm.ref: min(float(vm.limit_mhz), (HOST_MHZ - owner) / len(mine)) for vm in mine}
            for ref, mhz in used.items():
                await self.vcsim.set_perf(
                    ref, {CPU_COUNTER: int(mhz), MEMORY_COUNTER: 1024, READY_COUNTER: 0}
                )
            total = int(owner + sum(used.values()))
            await self.vcsim.set_perf(
                host, {CPU_COUNTER: total, MEMORY_COUNTER: 512 * 1024, READY_COUNTER: 0}
            )
        await self._post("/lab/ahead", {"seconds": TICK_S})

    async def _post(self, path: str, body: dict[str, Any]) -> None:
        context = ssl.create_default_context(cafile=str(self.vcsim.ca_file))
        url = f"https://{self.vcsim.host}:{self.vcsim.port}{path}"
        timeout = aiohttp.ClientTimeout(total=10)
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.post(url, json=body, ssl=context) as answer,
        ):
            assert answer.status == 200, await answer.text()

    async def run(self) -> None:
        """Tick until cancelled; a cloud that is away is tried again."""
        while True:
            with suppress(OSError, aiohttp.ClientError, TimeoutError):
                await self.tick()
            await asyncio.sleep(self.second_s)


def _ours(content: Any) -> list[Vm]:
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    found = []
    for vm in view.view:
        if vm.name.startswith(OURS):
            limit = vm.config.cpuAllocation.limit if vm.config.cpuAllocation else -1
            pool = vm.resourcePool.name if vm.resourcePool else ""
            host = vm.runtime.host._GetMoId()
            found.append(
                Vm(vm.name, vm._GetMoId(), host, vm.runtime.powerState, limit if limit > 0 else 10**9, pool)
            )
    view.DestroyView()
    return found


def _hosts(content: Any) -> dict[str, str]:
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True)
    hosts = {host._GetMoId(): host.name for host in view.view}
    view.DestroyView()
    return hosts


@asynccontextmanager
async def owners(vcsim: Vcsim) -> AsyncIterator[Lab]:
    """A lab on a started vcsim, with time running."""
    lab = Lab(vcsim, await BackDoor(vcsim).run(_hosts))
    task = asyncio.create_task(lab.run())
    try:
        yield lab
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
