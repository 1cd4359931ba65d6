"""Everything dies once: each process, the broker, the database, the monitors' word. Nothing is lost or doubled."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import until
from tests.system.accounts import all_accounts_agree
from tests.system.house import (
    FLOOR_MHZ,
    TICK_REAL_S,
    House,
    limits_between,
    open_house,
    the_loop_lends,
    unrest,
)
from tools.parts.postgres import PostgresServer
from tools.parts.rabbitmq import RabbitNode
from tools.parts.vcsim import Vcsim

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.xdist_group("chaos"),
]

OUTAGE_S = 30.0
TWO_SAMPLES_S = 40.0


@pytest.fixture
async def house(
    tmp_path: Path, vcsim: Vcsim, private_rabbitmq: RabbitNode, private_postgres: PostgresServer
) -> AsyncIterator[House]:
    """An idle vCenter that lends three machines."""
    async with open_house(tmp_path, vcsim, private_rabbitmq, private_postgres) as found:
        yield found


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


async def identity_dies(house: House) -> None:
    """Who has logged in works on; who has not can, once it is back."""
    deployment = house.installed.deployment
    token = await deployment.log_in()
    await deployment.processes["identity"].kill()
    shown = await deployment.ask("registry", "GET", "/v1/resources", token=token)
    assert [each["name"] for each in shown["items"]] == ["lab"]
    await deployment.processes["identity"].start()
    await deployment.log_in()


async def the_acting_replica_dies_as_the_owner_returns(house: House) -> None:
    """The other one cuts the limits within two samples of real time; then it dies, too."""
    replicas = [p for p in house.installed.deployment.processes.values() if "workload" in p.services]
    replicas.sort(key=lambda p: max((fact["timestamp"] for fact in p.facts("limits.applied")), default=""))
    idle, acting = replicas
    await acting.kill()
    house.lab.set_owner(0.75)
    await until(
        lambda: limits_between(house.lab, 0, FLOOR_MHZ + 300), timeout=TWO_SAMPLES_S, what="limits cut"
    )
    await acting.start()
    await house.kill(idle.name)


async def the_broker_is_away(house: House) -> None:
    """The red button works all the same, and what was said meanwhile is said afterwards."""
    await house.rabbit.stop()
    seen = house.lab.ticks
    await house.installed.press("pause")
    await until(
        lambda: limits_between(house.lab, 0, FLOOR_MHZ), timeout=20, what="the floor without a broker"
    )
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
    await until(lambda: limits_between(house.lab, 0, FLOOR_MHZ), timeout=120, what="the floor after silence")
    assert {vm.name for vm in await house.lab.ours()} == before, "machines stay"
    for name in ("monitor-1", "monitor-2"):
        await processes[name].start()
    house.lab.second_s = TICK_REAL_S
