"""Everything dies once: each process, the broker, the database, the monitors' word. Nothing is lost or doubled."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support import until
from tests.system.accounts import Witness, all_accounts_agree, rows_are_the_cloud
from tests.system.installing import POLICY, PROCESSES, Installed, install
from tests.system.lab import Lab, owners
from tests.system.processes import Deployment
from tools.parts.postgres import PostgresServer
from tools.parts.rabbitmq import RabbitNode
from tools.parts.vcsim import Vcsim

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.xdist_group("chaos"),
]

FORGETFUL: dict[str, Any] = {**POLICY, "sigma": 1.0}
"""A busy spell is sooner forgotten."""
FLOOR_MHZ = 2 * 200
TICK_REAL_S = 1.5
"""Slower than elsewhere: stats refuses what is more than an hour ahead of its own clock."""
OUTAGE_S = 30.0
TWO_SAMPLES_S = 40.0


@dataclass
class House:
    """The installation, its cloud, its parts, and who keeps account."""

    installed: Installed
    lab: Lab
    rabbit: RabbitNode
    postgres: PostgresServer
    witness: Witness

    async def kill(self, name: str, ticks: int = 2) -> None:
        """kill -9 in the midst of things, and start again."""
        process = self.installed.deployment.processes[name]
        await process.kill()
        await self.ticks(ticks)
        await process.start()

    async def ticks(self, count: int) -> None:
        """Let so many samples come and go."""
        seen = self.lab.ticks
        await until(lambda: self.lab.ticks >= seen + count, timeout=60, what="the cloud's time")


@pytest.fixture
async def house(
    tmp_path: Path, vcsim: Vcsim, private_rabbitmq: RabbitNode, private_postgres: PostgresServer
) -> AsyncIterator[House]:
    """An idle vCenter that lends three machines."""
    database_url = await private_postgres.create_database("tides")
    deployment = Deployment(tmp_path, database_url, private_rabbitmq.url)
    witness = Witness(private_rabbitmq.url)
    await witness.subscribe()
    await vcsim.start(flags=("-perf-default", "1"))
    async with owners(vcsim) as lab:
        lab.second_s = TICK_REAL_S
        try:
            await deployment.start_all(PROCESSES)
            installed = await install(deployment, lab, policy=FORGETFUL)
            await installed.set_mode("lend")
            await until(lambda: _all_run(lab, 3), timeout=90, what="three machines")
            yield House(installed, lab, private_rabbitmq, private_postgres, witness)
        finally:
            await deployment.stop()


async def test_whatever_dies_nothing_is_lost_or_doubled(house: House) -> None:
    async with asyncio.TaskGroup() as group:
        weather = group.create_task(unrest(house))
        await house.kill("stats")
        await house.postgres.restart()
        for name in ("monitor-1", "monitor-2", "registry"):
            await house.kill(name)
        for name in ("policy", "templates", "contribution"):
            await house.kill(name, ticks=1)
        await identity_dies(house)
        weather.cancel()
    await the_loop_lends(house)
    await the_acting_replica_dies_as_the_owner_returns(house)
    await the_broker_is_away(house)
    await the_loop_lends(house)
    await the_monitors_fall_silent(house)
    await the_loop_lends(house)
    await all_accounts_agree(house.installed, house.lab, house.witness)


async def unrest(house: House) -> None:
    """Owners come and go, and a person scales up and down: there is always something to do."""
    loads = cycle([(0.1, 0.3, 0.2), (0.3, 0.1, 0.45), (0.2, 0.5, 0.1), (0.1, 0.2, 0.3)])
    for most, load in zip(cycle([1, None, 2, None]), loads, strict=False):
        house.lab.owner = dict(zip(house.lab.hosts, load, strict=True))
        with suppress(AssertionError, StopIteration, RuntimeError, aiohttp.ClientError, TimeoutError):
            await _scale(house.installed, most)
        await house.ticks(5)


async def identity_dies(house: House) -> None:
    """Who has logged in works on; who has not can, once it is back."""
    deployment = house.installed.deployment
    token = await deployment.log_in()
    await deployment.processes["identity"].kill()
    shown = await deployment.ask("registry", "GET", "/v1/resources", token=token)
    assert [each["name"] for each in shown["items"]] == ["lab"]
    await deployment.processes["identity"].start()
    await deployment.log_in()


async def the_loop_lends(house: House) -> None:
    """Three machines above their floor, and rows that are the cloud."""
    lab, installed = house.lab, house.installed
    lab.set_owner(0.1)
    await until(lambda: _scale(installed, None), timeout=60, what="a person who is heard")
    await until(lambda: _all_run(lab, 3), timeout=120, what="three machines")
    await until(lambda: _limits(lab, FLOOR_MHZ + 100, 10**6), timeout=90, what="lent hosts")
    await until(lambda: rows_are_the_cloud(installed, lab), timeout=60, what="rows that are the cloud")


async def the_acting_replica_dies_as_the_owner_returns(house: House) -> None:
    """The other one cuts the limits within two samples of real time; then it dies, too."""
    replicas = [p for p in house.installed.deployment.processes.values() if "workload" in p.services]
    replicas.sort(key=lambda p: max((fact["timestamp"] for fact in p.facts("limits.applied")), default=""))
    idle, acting = replicas
    await acting.kill()
    house.lab.set_owner(0.75)
    await until(lambda: _limits(house.lab, 0, FLOOR_MHZ + 300), timeout=TWO_SAMPLES_S, what="limits cut")
    await acting.start()
    await house.kill(idle.name)


async def the_broker_is_away(house: House) -> None:
    """The red button works all the same, and what was said meanwhile is said afterwards."""
    await house.rabbit.stop()
    seen = house.lab.ticks
    await house.installed.press("pause")
    await until(lambda: _limits(house.lab, 0, FLOOR_MHZ), timeout=20, what="the floor without a broker")
    await house.installed.press("resume")
    left = round(OUTAGE_S / TICK_REAL_S) - (house.lab.ticks - seen)
    await house.ticks(max(0, left))
    await house.rabbit.start()


async def the_monitors_fall_silent(house: House) -> None:
    """Three intervals of silence bring all limits to the floor."""
    processes, before = house.installed.deployment.processes, {vm.name for vm in await house.lab.ours()}
    house.lab.second_s = 5.0
    for name in ("monitor-1", "monitor-2"):
        await processes[name].kill()
    await until(lambda: _limits(house.lab, 0, FLOOR_MHZ), timeout=120, what="the floor after silence")
    assert {vm.name for vm in await house.lab.ours()} == before, "machines stay"
    for name in ("monitor-1", "monitor-2"):
        await processes[name].start()
    house.lab.second_s = TICK_REAL_S


async def _scale(installed: Installed, most: int | None) -> bool:
    path = f"/v1/clusters/{(await installed.cluster())['id']}/scale"
    answer: Any = await installed.deployment.ask("workload", "POST", path, {"most_machines": most})
    return bool(answer["most_machines"] == most)


async def _all_run(lab: Lab, count: int) -> bool:
    vms = await lab.ours()
    return len(vms) == count and all(vm.is_on for vm in vms)


async def _limits(lab: Lab, least: float, most: float) -> bool:
    vms = await lab.ours()
    return bool(vms) and all(least <= vm.limit_mhz <= most for vm in vms)
