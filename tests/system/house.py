"""An installation of many processes on private parts, to which anything may happen."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import aiohttp

from tests.faultproxy import FaultProxy
from tests.support import until
from tests.system.accounts import Witness, rows_are_the_cloud
from tests.system.installing import POLICY, PROCESSES, Installed, install
from tests.system.lab import TICK_S, Lab, owners
from tests.system.processes import Deployment
from tools.parts.faketime import OwnClock, find_library
from tools.parts.postgres import PostgresServer
from tools.parts.rabbitmq import RabbitNode
from tools.parts.vcsim import Vcsim
from tools.parts.wire import Wire

FORGETFUL: dict[str, Any] = {**POLICY, "sigma": 1.0}
"""A busy spell is sooner forgotten."""
MOST_AHEAD_S = 50 * 60
"""Stats refuses what is more than an hour ahead of its own clock."""
FLOOR_MHZ = 2 * 200
TICK_REAL_S = 1.5
"""Slower than elsewhere: stats refuses what is more than an hour ahead of its own clock."""


@dataclass(frozen=True)
class Place:
    """Where one process stands: how it reaches the database and the bus, and the clock on its wall."""

    database: Wire
    bus: Wire
    clock: OwnClock

    @property
    def environment(self) -> dict[str, str]:
        """What its process is told."""
        wires = {"TIDES_DATABASE_URL": self.database.url, "TIDES_BUS_URL": self.bus.url}
        return {**wires, **self.clock.environment}


@dataclass
class House:
    """The installation, its cloud, what stands before it, its parts, and who keeps account."""

    installed: Installed
    lab: Lab
    proxy: FaultProxy
    rabbit: RabbitNode
    postgres: PostgresServer
    witness: Witness
    places: dict[str, Place]

    async def kill(self, name: str, ticks: int = 2) -> None:
        """kill -9 in the midst of things, and start again."""
        process = self.installed.deployment.processes[name]
        await process.kill()
        await self.ticks(ticks)
        await process.start()

    def calm(self) -> None:
        """The cloud and the network are well, and clocks are right."""
        self.proxy.rules.heal()
        for place in self.places.values():
            for wire in (place.database, place.bus):
                wire.mend()
                wire.delay_s = 0.0
            place.clock.step(0)

    async def ticks(self, count: int) -> None:
        """Let so many samples come and go."""
        seen = self.lab.ticks
        within_s = 60 + count * TICK_S  # at the latest then the cloud's time passes as ours
        await until(lambda: self.lab.ticks >= seen + count, timeout=within_s, what="the cloud's time")


@asynccontextmanager
async def open_house(
    folder: Path,
    vcsim: Vcsim,
    rabbit: RabbitNode,
    postgres: PostgresServer,
    tick_s: float = TICK_REAL_S,
    code: Path | None = None,
) -> AsyncIterator[House]:
    """An idle vCenter that lends three machines. `code` is another program than this one, for all processes."""
    database_url = await postgres.create_database("tides")
    deployment = Deployment(folder, database_url, rabbit.url, code)
    witness = Witness(rabbit.url)
    await witness.subscribe()
    await vcsim.start(flags=("-perf-default", "1"))
    async with AsyncExitStack() as stack:
        lab = await stack.enter_async_context(owners(vcsim))
        proxy = await stack.enter_async_context(FaultProxy.before(vcsim))
        lab.second_s, lab.most_ahead_s = tick_s, MOST_AHEAD_S
        places = await _places(stack, folder, database_url, rabbit.url)
        deployment.particular = {name: place.environment for name, place in places.items()}
        stack.push_async_callback(deployment.stop)
        stack.callback(proxy.rules.heal)
        await deployment.start_all(PROCESSES)
        installed = await install(deployment, lab, policy=FORGETFUL, url=proxy.url)
        await installed.set_mode("lend")
        await until(lambda: all_run(lab, 3), timeout=90, what="three machines")
        house = House(installed, lab, proxy, rabbit, postgres, witness, places)
        stack.callback(house.calm)
        yield house


async def _places(stack: AsyncExitStack, folder: Path, database_url: str, bus_url: str) -> dict[str, Place]:
    library, found = find_library(), {}
    for name in PROCESSES:
        database = await stack.enter_async_context(Wire.before(database_url))
        bus = await stack.enter_async_context(Wire.before(bus_url))
        found[name] = Place(database, bus, OwnClock(library, folder / f"{name}.clock"))
    return found


async def unrest(house: House) -> None:
    """Owners come and go, and a person scales up and down: there is always something to do."""
    loads = cycle([(0.1, 0.3, 0.2), (0.3, 0.1, 0.45), (0.2, 0.5, 0.1), (0.1, 0.2, 0.3)])
    for most, load in zip(cycle([1, None, 2, None]), loads, strict=False):
        house.lab.owner = dict(zip(house.lab.hosts, load, strict=True))
        with suppress(AssertionError, StopIteration, RuntimeError, aiohttp.ClientError, TimeoutError):
            await scale(house.installed, most)
        with suppress(AssertionError):
            await house.ticks(5)


async def the_loop_lends(house: House) -> None:
    """Three machines above their floor, and rows that are the cloud."""
    lab, installed = house.lab, house.installed
    slowness = max(1.0, lab.second_s / TICK_REAL_S)  # what is waited for goes by the cloud's clock
    lab.set_owner(0.1)
    await until(lambda: scale(installed, None), timeout=60, what="a person who is heard")
    await until(lambda: all_run(lab, 3), timeout=120 * slowness, what="three machines")
    await until(lambda: limits_between(lab, FLOOR_MHZ + 100, 10**6), timeout=90 * slowness, what="lent hosts")
    await until(lambda: rows_are_the_cloud(installed, lab), timeout=60, what="rows that are the cloud")


async def scale(installed: Installed, most: int | None) -> bool:
    """As a person; until so many machines run, this goes for every host otherwise."""
    path = f"/v1/clusters/{(await installed.cluster())['id']}/scale"
    answer: Any = await installed.deployment.ask("workload", "POST", path, {"most_machines": most})
    return bool(answer["most_machines"] == most)


async def all_run(lab: Lab, count: int) -> bool:
    """Whether so many machines are there, all on."""
    vms = await lab.ours()
    return len(vms) == count and all(vm.is_on for vm in vms)


async def limits_between(lab: Lab, least: float, most: float) -> bool:
    """Whether there are machines, and all limits lie between."""
    vms = await lab.ours()
    return bool(vms) and all(least <= vm.limit_mhz <= most for vm in vms)
