"""The sweeper: machines with our mark that no row knows. A few go after a grace, many wait for a person."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from libs.common.auth import Role
from libs.common.contracts.action import MachineRequested, ResourceReleased, SweepAllowed, SweepStopped
from libs.common.contracts.resource import Mode
from libs.providers.simulated import ClusterDefinition, OwnerProfile
from tests.service.lone_service import THEIRS, Answer
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


async def ask_allow(house: House, *strangers: str) -> Answer:
    path = f"/v1/sweeps/{house.resource.resource_id}/allow"
    return await house.ask("POST", path, {"names": strangers}, role=Role.ADMIN)


async def allow(house: House, *strangers: str) -> None:
    answer = await ask_allow(house, *strangers)
    assert (answer.status, answer.body["names"]) == (200, sorted(strangers)), answer.body


async def shown(house: House) -> dict[str, Any]:
    found: dict[str, Any] = (await house.ask("GET", f"/v1/sweeps/{house.resource.resource_id}")).body
    return found


async def check_shown(house: House, strangers: set[str]) -> None:
    seen = await shown(house)
    assert (seen["strangers"], seen["known"], "4 machines" in seen["stopped"]) == (4, 11, True)
    assert {machine["name"] for machine in seen["machines"]} == strangers
    assert {(machine["cluster"], machine["goes_at"]) for machine in seen["machines"]} == {("lab", None)}
    for machine in seen["machines"]:
        assert machine["mark"] == {
            "installation_id": str(house.settings.installation_id),
            "machine_id": machine["name"].removeprefix("tides-"),
        }


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


async def test_after_a_restore_even_one_stranger_waits_for_a_person(wide: House) -> None:
    await wide.fetch("update resource set sweep_stopped = 'restored from a backup' returning id")
    first, stranger = await wide.make_strangers(2)
    await wide.be_silent(15)
    (stopped,) = wide.heard(SweepStopped)
    assert stopped.reason.startswith("restored from a backup: 2 machines with our mark")
    await allow(wide, first)
    await wide.be_silent(15)
    wide.clock.leap(2 * GRACE_S)
    await wide.be_silent(20)

    assert first not in names(wide)
    assert stranger in names(wide)
    assert (await shown(wide))["stopped"].startswith("restored from a backup: 1 machines")
    await allow(wide, stranger)
    await wide.be_silent(60)
    assert stranger not in names(wide)
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

    await check_shown(wide, strangers)
    one, *others = sorted(strangers)
    for refused in ((), (one, "tides-nobody"), (one, next(iter(names(wide) - strangers)))):
        assert ((await ask_allow(wide, *refused)).field or "").startswith("names")
    await allow(wide, one)
    await wide.run(20)
    assert names(wide) & strangers == set(others)
    assert "3 machines" in (await shown(wide))["stopped"]

    await allow(wide, *others)
    await wide.run(60)
    assert names(wide).isdisjoint(strangers)
    said = wide.heard(SweepAllowed)
    assert [(event.machines, event.actor) for event in said] == [((one,), "Ada"), (tuple(others), "Ada")]
    assert (await wide.ask("GET", "/v1/sweeps")).body["items"] == []
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

        (listed,) = (await house.ask("GET", "/v1/sweeps")).body["items"]
        assert (listed["resource"], listed["strangers"]) == ("Lab", 1)
        assert (await house.ask("GET", "/v1/sweeps", organisation=THEIRS)).body["items"] == []
        path = f"/v1/sweeps/{house.resource.resource_id}"
        assert (await house.ask("GET", path, organisation=THEIRS)).status == 404
        await allow(house, *first)
        later = await house.make_strangers(1)
        await house.be_silent(30)
        house.clock.leap(2 * GRACE_S)
        await house.be_silent(30)

        assert names(house).isdisjoint(first)
        assert names(house) >= set(later)
        assert len(house.heard(SweepStopped)) == 2


async def test_of_a_cloud_that_was_anothers_nobody_is_shown_what_they_said_of_it(database_url: str) -> None:
    async with open_house(database_url) as house:
        await house.lend()
        await house.run(40)
        theirs = "update machine set state = 'abandoned', organisation_id = $1, reason = 'their words'"
        await house.execute(theirs, THEIRS)
        await house.be_silent(15)
        path = f"/v1/sweeps/{house.resource.resource_id}"
        for role, was in ((Role.VIEWER, None), (Role.OPERATOR, None), (Role.ADMIN, "their words")):
            seen = (await house.ask("GET", path, role=role)).body["machines"]
            assert [machine["was"] for machine in seen] == [was, was], role


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


async def test_of_a_cloud_that_the_database_forgot_not_even_a_pool_is_left(database_url: str) -> None:
    async with open_house(database_url, replicas=0) as house:
        async with house.replica():
            await house.lend()
            await house.run(40)
        forgotten = names(house)
        await house.fetch("delete from machine returning id")
        await house.fetch("update cluster set occupied = false returning id")
        async with house.replica():
            await house.change_resource(mode=Mode.PAUSED)
            await house.run(20)
            await allow(house, *forgotten)
            await house.run(40)
            assert names(house) == set()
            await house.change_resource(mode=Mode.DRAINING, force=True)
            await house.run(60)
        assert len(house.heard(ResourceReleased)) == 1
        assert house.cloud.state().clusters[0].cap[-1][1] is None, "a pool is left"


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
