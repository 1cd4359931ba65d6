"""Three minutes in which everything fails, and then what must still be so. Nothing is lost, doubled or left behind."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.support import until
from tests.system.accounts import all_accounts_agree, nothing_of_ours_stays
from tests.system.gusts import BLOWS
from tests.system.house import (
    FLOOR_MHZ,
    House,
    limits_between,
    open_house,
    the_loop_lends,
    unrest,
)
from tests.system.installing import Installed
from tests.system.lab import Lab
from tests.system.storm import Storm
from tools.parts.postgres import PostgresServer
from tools.parts.rabbitmq import RabbitNode
from tools.parts.vcsim import Vcsim

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("chaos"),
]

SEED, STORM_S = 228, 180.0
"""Of a storm in which everything that can fail does; `./dev bench chaos --seed` blows others."""
FEW = 0.1
"""Of the processes at a time: to start one takes seconds of two cores that others test on."""
STORMY_TICK_S, TICK_REAL_S = 6.0, 2.0
"""Slower than afterwards: in all of it the cloud's clock must not run an hour ahead of ours."""
TWO_SAMPLES_S = 40.0


@pytest.fixture
async def house(
    tmp_path: Path, vcsim: Vcsim, private_rabbitmq: RabbitNode, private_postgres: PostgresServer
) -> AsyncIterator[House]:
    """An idle vCenter that lends three machines."""
    async with open_house(tmp_path, vcsim, private_rabbitmq, private_postgres, STORMY_TICK_S) as found:
        yield found


async def test_whatever_happens_nothing_is_lost_doubled_or_left_behind(house: House) -> None:
    await a_storm(house)
    await the_loop_lends(house)
    await identity_dies(house)
    await the_acting_replica_dies_as_the_owner_returns(house)
    await the_broker_is_away(house)
    await the_loop_lends(house)
    await the_monitors_fall_silent(house)
    await the_loop_lends(house)
    await all_accounts_agree(house.installed, house.lab, house.witness)
    await an_empty_database_asks_a_person(house)
    await nothing_of_ours_stays(house.installed, house.lab)


async def a_storm(house: House) -> None:
    """Everything that can fail fails, each process included, while owners come and go."""
    storm = Storm(house, SEED, FEW)
    async with asyncio.TaskGroup() as group:
        weather = group.create_task(unrest(house))
        await storm.rage(STORM_S)
        weather.cancel()
    house.lab.second_s = TICK_REAL_S
    assert storm.count.keys() >= BLOWS.keys()
    assert storm.unhurt == set()


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
    await house.installed.press("pause")
    await until(
        lambda: limits_between(house.lab, 0, FLOOR_MHZ), timeout=20, what="the floor without a broker"
    )
    await house.installed.press("resume")
    await house.ticks(2)
    await house.rabbit.start()


async def the_monitors_fall_silent(house: House) -> None:
    """Three intervals of silence bring all limits to the floor."""
    processes, before = house.installed.deployment.processes, {vm.name for vm in await house.lab.ours()}
    house.lab.second_s = STORMY_TICK_S
    for name in ("monitor-1", "monitor-2"):
        await processes[name].kill()
    await until(lambda: limits_between(house.lab, 0, FLOOR_MHZ), timeout=120, what="the floor after silence")
    assert {vm.name for vm in await house.lab.ours()} == before, "machines stay"
    for name in ("monitor-1", "monitor-2"):
        await processes[name].start()
    house.lab.second_s = TICK_REAL_S


async def an_empty_database_asks_a_person(house: House) -> None:
    """The sweeper stops and asks: nothing is deleted, nothing deployed, before a person allows it."""
    installed, lab, deployment = house.installed, house.lab, house.installed.deployment
    before = {vm.name for vm in await lab.ours()}
    workloads = [process for process in deployment.processes.values() if "workload" in process.services]
    await asyncio.gather(*(process.stop() for process in workloads))
    await _forget_everything(deployment.database_url)
    await asyncio.gather(*(process.start() for process in workloads))
    await deployment.processes["registry"].stop()
    await deployment.processes["registry"].start()
    await until(lambda: _has_stopped_sweeping(installed), timeout=60, what="a sweeper that asks")
    path = f"/v1/resources/{installed.resource['id']}"
    await until(lambda: _has_alarm(installed, path), timeout=20, what="an alarm at the registry")
    await house.ticks(4)
    assert {vm.name for vm in await lab.ours()} == before, "nothing deleted, nothing deployed"
    assert await installed.machines() == []
    keys = {event["key"] for event in await installed.events()}
    assert "action.sweep_stopped.v1" in keys
    assert "action.machine_requested.v1" not in keys

    sweep = f"/v1/sweeps/{installed.resource['id']}"
    shown = await deployment.ask("workload", "GET", sweep)
    names = [machine["name"] for machine in shown["machines"]]
    assert set(names) == before
    answer = await deployment.ask("workload", "POST", f"{sweep}/allow", {"names": names})
    assert answer["allowed"] == len(before)
    await until(lambda: _are_gone(lab, before), timeout=60, what="strangers that are gone")
    assert lab.twice == set(), "a machine existed twice"


async def _forget_everything(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("drop schema workload cascade")
    finally:
        await connection.close()


async def _are_gone(lab: Lab, names: set[str]) -> bool:
    return not names & {vm.name for vm in await lab.ours()}


async def _has_stopped_sweeping(installed: Installed) -> bool:
    clusters = await installed.clusters()
    return bool(clusters and clusters[0]["sweep_stopped"])


async def _has_alarm(installed: Installed, path: str) -> bool:
    return bool((await installed.deployment.ask("registry", "GET", path))["alarm"])
