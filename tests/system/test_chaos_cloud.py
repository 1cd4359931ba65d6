"""A vCenter that is slow, refuses, hangs up and loses answers; and a database that has forgotten everything."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.faultproxy import FaultProxy
from tests.support import until
from tests.system.accounts import Witness, all_accounts_agree, rows_are_the_cloud
from tests.system.house import TICK_REAL_S, all_run, scale
from tests.system.installing import POLICY, PROCESSES, Installed, install
from tests.system.lab import Lab, owners
from tests.system.processes import Deployment
from tools.parts.vcsim import Vcsim

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.xdist_group("chaos-cloud"),
]

IMPATIENT: dict[str, Any] = {**POLICY, "ladder": {**POLICY["ladder"], "drain_grace_s": 3.0}}
"""Scaling by hand gives grace in real time."""
LOST = (
    "CloneVM_Task",
    "ReconfigVM_Task",
    "RelocateVM_Task",
    "PowerOnVM_Task",
    "PowerOffVM_Task",
    "Destroy_Task",
)
"""Whose answers are lost: the call happens, and Tides does not know."""


@dataclass
class House:
    """The installation, its cloud, what stands between, and who keeps account."""

    installed: Installed
    lab: Lab
    proxy: FaultProxy
    witness: Witness
    database_url: str

    async def run_exactly(self, count: int, what: str) -> None:
        """Wait for so many machines, all on, and rows that say so."""
        await until(lambda: all_run(self.lab, count), timeout=120, what=what)
        await until(lambda: rows_are_the_cloud(self.installed, self.lab), timeout=60, what=f"rows: {what}")


@pytest.fixture
async def house(tmp_path: Path, vcsim: Vcsim, database_url: str, amqp_url: str) -> AsyncIterator[House]:
    """An idle vCenter that lends three machines, with something spiteful before it."""
    deployment = Deployment(tmp_path, database_url, amqp_url)
    witness = Witness(amqp_url)
    await witness.subscribe()
    await vcsim.start(flags=("-perf-default", "1"))
    async with owners(vcsim) as lab, FaultProxy.before(vcsim) as proxy:
        lab.second_s = TICK_REAL_S
        try:
            await deployment.start_all(PROCESSES)
            installed = await install(deployment, lab, policy=IMPATIENT, url=proxy.url)
            await installed.set_mode("lend")
            found = House(installed, lab, proxy, witness, database_url)
            await found.run_exactly(3, "three machines")
            yield found
        finally:
            proxy.rules.heal()
            await deployment.stop()


async def test_an_unreliable_cloud_and_a_forgetful_database(house: House) -> None:
    await answers_are_lost(house)
    await everything_is_slow(house)
    await everything_is_refused(house)
    await all_accounts_agree(house.installed, house.lab, house.witness)
    await an_empty_database_asks_a_person(house)
    assert house.lab.twice == set(), "a machine existed twice"


async def answers_are_lost(house: House) -> None:
    """Down to one machine and up again, while every kind of act happens twice without an answer."""
    rules, lost = house.proxy.rules, set()
    for most, count in ((1, 1), (None, 3)):
        rules.reset_after = Counter(dict.fromkeys(LOST, 2))
        rules.reset_before = Counter({"RetrievePropertiesEx": 1, "QueryPerf": 1})
        await scale(house.installed, most)
        await house.run_exactly(count, f"{count} machines although answers are lost")
        lost |= {name for name in LOST if rules.reset_after[name] < 2}
    assert lost >= {"CloneVM_Task", "ReconfigVM_Task", "PowerOnVM_Task", "Destroy_Task"}
    rules.heal()


async def everything_is_slow(house: House) -> None:
    house.proxy.rules.delay_s = {"*": 0.3}
    await scale(house.installed, 2)
    await house.run_exactly(2, "two machines although everything is slow")
    house.proxy.rules.heal()


async def everything_is_refused(house: House) -> None:
    """503 for some seconds, then nothing at all, in the midst of growing."""
    rules, lab = house.proxy.rules, house.lab
    await scale(house.installed, None)
    for name, value in (("status", {"*": 503}), ("down", True)):
        setattr(rules, name, value)
        seen = lab.ticks
        await until(lambda: lab.ticks >= seen + 4, timeout=30, what="the cloud's time")  # noqa: B023 - awaited here
        rules.heal()
    await house.run_exactly(3, "three machines after an outage")


async def an_empty_database_asks_a_person(house: House) -> None:
    """The sweeper stops and asks: nothing is deleted, nothing deployed, before a person allows it."""
    installed, lab, deployment = house.installed, house.lab, house.installed.deployment
    before = {vm.name for vm in await lab.ours()}
    workloads = [process for process in deployment.processes.values() if "workload" in process.services]
    await asyncio.gather(*(process.stop() for process in workloads))
    await _forget_everything(house.database_url)
    await asyncio.gather(*(process.start() for process in workloads))
    await deployment.processes["registry"].stop()
    await deployment.processes["registry"].start()
    await until(lambda: _has_stopped_sweeping(installed), timeout=60, what="a sweeper that asks")
    path = f"/v1/resources/{installed.resource['id']}"
    await until(lambda: _has_alarm(installed, path), timeout=20, what="an alarm at the registry")
    seen = lab.ticks
    await until(lambda: lab.ticks >= seen + 10, timeout=60, what="looks that change nothing")
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
