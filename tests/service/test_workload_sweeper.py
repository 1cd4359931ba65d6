"""The sweeper: machines with our mark that no row knows. A few go after a grace, many wait for a person."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from libs.common.auth import Role
from libs.common.contracts.action import MachineRequested, SweepStopped
from libs.common.contracts.resource import Mode
from libs.providers.simulated import ClusterDefinition, OwnerProfile
from tests.service.workload_house import House, open_house

GRACE_S = 600
WIDE = ClusterDefinition(
    name="lab", hosts=11, owner=OwnerProfile.IDLE, cores=8, core_mhz=2500, memory_gib=64, datastore_gib=4096
)


@pytest.fixture
async def wide(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url, clusters=(WIDE,)) as house:
        await house.lend(step_machines=11)
        await house.run(40)
        assert await house.states() == ["running"] * 11
        yield house


def names(house: House) -> set[str]:
    return {machine.name for machine in house.cloud.truth().machines}


async def allow(house: House) -> int:
    answer = await house.ask("POST", f"/v1/sweeps/{house.resource.resource_id}/allow", role=Role.ADMIN)
    assert answer.status == 200, answer.body
    allowed: int = answer.body["allowed"]
    return allowed


async def test_one_stranger_among_many_machines_goes_after_its_grace(wide: House) -> None:
    ours = names(wide)
    (stranger,) = await wide.make_strangers(1)
    await wide.be_silent(15)
    wide.clock.leap(GRACE_S - 60)
    await wide.be_silent(20)
    assert names(wide) == ours | {stranger}

    await wide.be_silent(60)
    assert names(wide) == ours
    assert wide.heard(SweepStopped) == []
    assert (await wide.cluster())["sweep_stopped"] is None


async def test_four_strangers_stop_the_sweeper_which_says_so_once_and_nothing_new_is_made(
    wide: House,
) -> None:
    strangers = set(await wide.make_strangers(4))
    await wide.be_silent(15)
    wide.clock.leap(2 * GRACE_S)
    await wide.run(40)

    assert names(wide) >= strangers
    (stopped,) = wide.heard(SweepStopped)
    assert (stopped.orphans, stopped.machines) == (4, 11)
    assert "4 machines" in (await wide.cluster())["sweep_stopped"]

    wide.cloud.control.kill_machine(next(iter(names(wide) - strangers)))
    await wide.run(80)
    assert len(wide.heard(MachineRequested)) == 11

    assert await allow(wide) == 4
    await wide.run(80)
    assert names(wide).isdisjoint(strangers)
    assert len(wide.heard(SweepStopped)) == 1
    assert (await wide.cluster())["sweep_stopped"] is None
    assert len(wide.heard(MachineRequested)) == 12


async def test_one_stranger_in_ten_is_too_many_and_what_comes_after_the_permission_has_none(
    database_url: str,
) -> None:
    async with open_house(database_url) as house:
        await house.lend()
        await house.run(40)
        first = await house.make_strangers(1)
        await house.be_silent(15)
        assert len(house.heard(SweepStopped)) == 1

        assert await allow(house) == 1
        later = await house.make_strangers(1)
        await house.be_silent(30)
        house.clock.leap(2 * GRACE_S)
        await house.be_silent(30)

        assert names(house).isdisjoint(first)
        assert names(house) >= set(later)
        assert len(house.heard(SweepStopped)) == 2


async def test_an_empty_database_before_a_cloud_full_of_our_machines_stops_and_asks(
    database_url: str,
) -> None:
    async with open_house(database_url) as house:
        strangers = set(await house.make_strangers(2))
        await house.lend()
        await house.run(20)
        house.clock.leap(2 * GRACE_S)
        await house.run(60)

        assert names(house) == strangers
        assert len(house.heard(SweepStopped)) == 1
        assert "sweeper waits" in (await house.cluster())["reason"]


async def test_what_is_not_ours_is_never_touched(database_url: str) -> None:
    async with open_house(database_url) as house:
        await house.lend()
        neighbours = set(await house.make_strangers(5, installation=uuid4()))
        lookalike = f"tides-{uuid4()}"
        house.cloud.control.add_foreign(lookalike, "domain-c1")
        await house.run(40)
        house.clock.leap(2 * GRACE_S)
        await house.run(40)
        await house.change_resource(mode=Mode.OBSERVE)
        await house.run(100)

        assert names(house) == neighbours
        assert house.cloud.truth().foreign == (lookalike,)
        assert house.heard(SweepStopped) == []
