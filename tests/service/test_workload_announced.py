"""Announced load: the cloud says what owners are about to do, and budgets step back before it is there."""

from collections.abc import AsyncIterator

import pytest

from libs.common.contracts.usage import Coming, Drs
from services.cli.watching import _tell_decision
from tests.service.workload_house import House, open_house


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        await house.lend()
        house.own(0.1)
        await house.run(60)
        yield house


def limits_mhz(house: House) -> dict[str, float]:
    return {machine.host: machine.limit_mhz for machine in house.cloud.truth().machines}


async def owners_mhz(house: House) -> dict[str, float]:
    return {host["host"]: host["owner_mhz"] for host in (await house.cluster())["hosts"]}


async def test_budgets_step_back_for_announced_load_before_it_comes_and_why_says_so(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    assert limits_mhz(house) == {"host-1001": 16_000, "host-1002": 16_000}
    house.cloud.control.announce_owner_load("host-1001", Coming.POWER_ON, 180, 0.9)
    await house.run(40)
    assert limits_mhz(house)["host-1001"] == 16_000, "it is too early"
    await house.run(60)
    before = limits_mhz(house)
    assert (await owners_mhz(house))["host-1001"] == pytest.approx(2_000), "it has not come yet"
    assert before["host-1001"] <= 16_000 - 0.15 * 20_000
    assert before["host-1002"] == 16_000
    assert "a machine's start is announced on lab-esx01" in (await house.cluster())["reason"]

    answer = await house.ask("GET", f"/v1/decisions?cluster_id={house.cluster_id}&limit=1")
    _tell_decision(answer.body["items"][0])
    shown = capsys.readouterr().out
    assert "announced: power on on lab-esx01.example.org from 2026-11-20 02:0" in shown

    await house.be_silent(30)
    assert limits_mhz(house)["host-1001"] <= before["host-1001"], "silence takes nothing of it back"
    await house.run(120)
    assert limits_mhz(house)["host-1001"] < 2_000, "it has come"

    await house.be_silent(20)
    await house.tamper(
        memory_active_mib=(512.0, None),
        owner_balloon_mib=(0.0, 64.0),
        drs=Drs.PARTIAL,
        ha_reserve_memory_mib=1e4,
    )
    cluster = await house.cluster()
    assert (cluster["drs"], cluster["ha_reserve_memory_mib"], cluster["ha_reserve_cpu_mhz"]) == (
        "partial", 1e4, None,
    )  # fmt: skip
    told = [(host["memory_active_mib"], host["owner_balloon_mib"]) for host in cluster["hosts"]]
    assert told == [(512, 0), (None, 64)]
    assert cluster["hosts"][0]["owner_swapped_mib"] is None
