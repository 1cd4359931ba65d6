"""A vCenter with owners: vcsim, whose counters follow what owners want and what our machines' limits allow."""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import aiohttp
from pyVmomi import vmodl

from libs.common.clock import WallClock
from tests.contract.providers.vsphere_target import CPU_COUNTER, HOST_MHZ, MEMORY_COUNTER, READY_COUNTER
from tests.system.eye import Eye, Sight, Vm
from tools.parts.vcsim import Vcsim

TICK_S = 20
HOST_MEMORY_KIB = 512 * 1024


@dataclass
class Lab:
    """Owners by host, as fractions of a host; `run` makes a cloud's 20 seconds pass in one of ours."""

    vcsim: Vcsim
    eye: Eye
    http: aiohttp.ClientSession
    hosts: dict[str, str]
    """Name by reference."""
    owner: dict[str, float] = field(default_factory=dict)
    second_s: float = 1.0
    """Real seconds per tick of 20."""
    ticks: int = 0
    ahead_s: int = 0
    """How far the cloud's clock is ahead of ours."""
    most_ahead_s: float = math.inf
    """From there on the cloud's time passes as ours."""
    twice: set[str] = field(default_factory=set)
    """Names that two machines had at the same time, ever."""
    ever: set[str] = field(default_factory=set)
    """Names of all machines of ours that were seen."""
    counters: tuple[int, int, int] = (CPU_COUNTER, MEMORY_COUNTER, READY_COUNTER)
    """How this cloud numbers use, memory and ready time."""
    _known: dict[str, dict[int, int]] = field(default_factory=dict)

    def set_owner(self, fraction: float) -> None:
        """All hosts alike."""
        self.owner = dict.fromkeys(self.hosts, fraction)

    @property
    def now(self) -> datetime:
        """The cloud's clock."""
        return WallClock().now() + timedelta(seconds=self.ahead_s)

    async def look(self) -> Sight:
        """What there is now; keeps account of what must never be."""
        sight = await self.eye.look()
        self.twice.update(sight.twice)
        self.ever.update(vm.name for vm in sight.ours)
        return sight

    async def ours(self) -> list[Vm]:
        """Our machines, by name."""
        return (await self.look()).ours

    async def tick(self, *, jump: bool = True) -> None:
        """Let 20 seconds of the cloud's clock pass, with everybody's load as it must be; or without a jump."""
        vms = await self.ours()
        for host in self.hosts:
            mine = [vm for vm in vms if vm.host == host and vm.is_on]
            owner = self.owner.get(host, 0.1) * HOST_MHZ
            used = {vm.ref: min(float(vm.limit_mhz), (HOST_MHZ - owner) / len(mine)) for vm in mine}
            for ref, mhz in used.items():
                await self._measure(ref, int(mhz), 1024)
            await self._measure(host, int(owner + sum(used.values())), HOST_MEMORY_KIB)
        if jump:
            await self.step(TICK_S)
        self.ticks += 1

    async def step(self, seconds: int) -> None:
        """Put the cloud's clock forward, or back."""
        await self._post("/lab/ahead", {"seconds": seconds})
        self.ahead_s += seconds

    async def _measure(self, ref: str, mhz: int, memory_kib: int) -> None:
        counters = dict(zip(self.counters, (mhz, memory_kib, 0), strict=True))
        if self._known.get(ref) != counters:
            await self._post("/lab/perf", {"entity": ref, "counters": counters})
            self._known[ref] = counters

    async def _post(self, path: str, body: dict[str, Any]) -> None:
        url = f"https://{self.vcsim.host}:{self.vcsim.port}{path}"
        async with self.http.post(url, json=body) as answer:
            assert answer.status == 200, await answer.text()

    async def run(self) -> None:
        """Tick until cancelled; a cloud that is away is tried again."""
        while True:
            with suppress(OSError, aiohttp.ClientError, TimeoutError, vmodl.MethodFault):
                await self.tick(jump=self.ahead_s < self.most_ahead_s)
            await asyncio.sleep(self.second_s if self.ahead_s < self.most_ahead_s else TICK_S)


@asynccontextmanager
async def owners(vcsim: Vcsim, *, running: bool = True) -> AsyncIterator[Lab]:
    """A lab on a started vcsim, with time running; or standing still but for its ticks."""
    context = ssl.create_default_context(cafile=str(vcsim.ca_file))
    timeout, eye = aiohttp.ClientTimeout(total=10), Eye(vcsim)
    async with aiohttp.ClientSession(
        timeout=timeout, connector=aiohttp.TCPConnector(ssl=context, limit=4)
    ) as http:
        lab = Lab(vcsim, eye, http, await eye.hosts())
        tasks = [asyncio.create_task(lab.run())] if running else []
        try:
            yield lab
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await eye.aclose()
