"""When clones fail, hosts leave, machines vanish and the inventory lies."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from libs.common.contracts.action import (
    MachineDestroyed,
    MachineFailed,
    MachineLost,
    MachineRequested,
    MachineResumed,
    ResourceReleased,
    SweepStopped,
)
from libs.common.contracts.base import Event
from libs.common.contracts.resource import Mode
from libs.common.contracts.usage import HostState
from libs.providers.base import Power
from tests.service.workload_house import LAB, House, open_house


@pytest.fixture
async def fresh(database_url: str) -> AsyncIterator[House]:
    """Nothing has been made yet."""
    async with open_house(database_url) as house:
        yield house


@pytest.fixture
async def house(fresh: House) -> House:
    await fresh.lend()
    await fresh.run(40)
    return fresh


def count(house: House, kind: type[Event]) -> int:
    return len(house.heard(kind))


def names(house: House) -> set[str]:
    return {machine.name for machine in house.cloud.truth().machines}


async def test_a_clone_that_never_ends_fails_is_taken_back_and_growth_rests(database_url: str) -> None:
    async with open_house(database_url, clone_s=3600) as house:
        await house.lend(max_machines=1)
        await house.run(20)
        assert await house.states() == ["creating"]
        house.clock.leap(900)
        await house.run(40)

        (failed,) = house.heard(MachineFailed)
        assert (failed.stage, failed.reason) == ("creating", "creating took too long")
        assert count(house, MachineDestroyed) == 1
        assert names(house) == set()
        assert "last deployment failed" in (await house.cluster())["reason"]
        assert count(house, MachineRequested) == 1

        await house.run(60)
        assert count(house, MachineRequested) == 2


async def test_every_failure_doubles_the_rest(fresh: House) -> None:
    fresh.cloud.control.set_fault("create_full", True)
    await fresh.lend(max_machines=1)
    rests: list[timedelta] = []
    for _ in range(3):
        failures = len(rests)
        while count(fresh, MachineFailed) == failures:
            await fresh.run(20)
        (row,) = await fresh.fetch("select grow_after from cluster")
        rests.append(row["grow_after"] - fresh.heard(MachineFailed)[-1].at)
        await fresh.run(rests[-1].total_seconds())

    assert rests == [timedelta(seconds=60), timedelta(seconds=120), timedelta(seconds=240)]
    assert "no room" in fresh.heard(MachineFailed)[0].reason
    assert names(fresh) == set()

    fresh.cloud.control.clear_faults()
    await fresh.run(600)
    assert await fresh.states() == ["running"]
    (row,) = await fresh.fetch("select deploy_failures from cluster")
    assert row["deploy_failures"] == 0


async def test_a_template_that_vanishes_during_a_clone_fails_it_and_nothing_is_left(fresh: House) -> None:
    fresh.cloud.control.set_fault("half_clone", True)
    await fresh.lend(max_machines=1)
    await fresh.run(20)
    assert len(names(fresh)) == 1
    fresh.cloud.control.remove_template("boinc-worker")
    await fresh.run(40)

    (failed,) = fresh.heard(MachineFailed)
    assert "no template" in failed.reason
    assert names(fresh) == set()
    assert count(fresh, MachineDestroyed) == 1


async def test_a_half_made_clone_is_taken_up_again(fresh: House) -> None:
    fresh.cloud.control.set_fault("half_clone", True)
    await fresh.lend()
    await fresh.run(20)
    half = names(fresh)
    fresh.cloud.control.clear_faults()
    await fresh.run(40)

    assert await fresh.states() == ["running", "running"]
    assert names(fresh) == half
    assert count(fresh, MachineFailed) == 0


async def test_maintenance_has_our_machine_off_within_a_minute_and_back_afterwards(house: House) -> None:
    house.cloud.control.set_host_state("host-1001", HostState.MAINTENANCE)
    await house.run(40)
    on = {machine.host for machine in house.cloud.truth().machines if machine.power is Power.ON}
    assert on == {"host-1002"}

    house.cloud.control.repair_host("host-1001")
    await house.run(120)
    assert await house.states() == ["running", "running"]
    assert count(house, MachineRequested) == 2


async def test_maintenance_does_not_wait_for_a_drain(house: House) -> None:
    machine = next(row for row in await house.machines() if row["host"] == "host-1001")
    await house.assign(
        ladder={"stop_new_after_s": 20, "suspend_after_s": 20, "drain_after_s": 40, "drain_grace_s": 3600}
    )
    await house.run(20)
    await house.act(f"/v1/machines/{machine['id']}/drain", {"reason": "old kernel"})
    await house.run(20)
    assert machine["name"] in names(house)
    house.cloud.control.set_host_state("host-1001", HostState.MAINTENANCE)
    await house.run(40)

    assert machine["name"] not in names(house)


async def test_a_host_that_fails_costs_its_own_budget_alone_and_its_machine_waits_for_it(
    house: House,
) -> None:
    async def hosts() -> dict[str, dict[str, object]]:
        return {host["host"]: host for host in (await house.cluster())["hosts"]}

    before = await hosts()
    machine = next(row for row in await house.machines() if row["host"] == "host-1001")
    house.cloud.control.fail_host("host-1001")
    await house.run(40)  # two ticks
    after = await hosts()
    assert (after["host-1001"]["state"], after["host-1001"]["budget_mhz"]) == ("failed", 0)
    for key in ("state", "budget_mhz", "limit_mhz", "machines"):
        assert after["host-1002"][key] == before["host-1002"][key]
    fate = next(row for row in await house.machines() if row["id"] == machine["id"])
    assert (fate["state"], fate["host"]) == ("suspended", "host-1001")
    await house.run(300)
    assert names(house) >= {machine["name"]}, "it is not given up with its host"

    house.cloud.control.repair_host("host-1001")
    await house.run(120)
    assert await house.states() == ["running", "running"]
    assert (await hosts())["host-1001"]["budget_mhz"] == before["host-1001"]["budget_mhz"]
    assert count(house, MachineRequested) == 2, "nothing was made in its place beyond what remains"


async def test_a_machine_that_somebody_deletes_is_lost_after_three_looks_and_replaced(house: House) -> None:
    victim = house.cloud.truth().machines[0]
    house.cloud.control.kill_machine(victim.name)
    await house.be_silent(15)
    assert await house.states() == ["running", "running"]

    await house.run(65)

    (lost,) = house.heard(MachineLost)
    assert lost.name == victim.name
    assert count(house, MachineRequested) == 3
    await house.run(60)
    assert sorted(await house.states()) == ["lost", "running", "running"]
    assert count(house, SweepStopped) == 0


async def test_a_machine_that_somebody_switches_off_is_switched_on_again(house: House) -> None:
    house.cloud.control.switch_off_machine(house.cloud.truth().machines[0].name)
    await house.run(40)

    assert await house.states() == ["running", "running"]
    assert all(machine.power is Power.ON for machine in house.cloud.truth().machines)
    assert count(house, MachineResumed) == 1


async def test_an_inventory_that_is_suddenly_empty_is_no_absence(house: House) -> None:
    ours = names(house)
    house.cloud.control.remove_cluster("domain-c1")
    await house.be_silent(100)
    assert await house.states() == ["running", "running"]

    house.cloud.control.restore_cluster("domain-c1")
    await house.run(80)
    assert await house.states() == ["running", "running"]
    assert names(house) == ours
    assert count(house, MachineLost) == 0


async def test_an_inventory_that_stays_empty_loses_machines_and_finds_them_again(house: House) -> None:
    ours = names(house)
    house.cloud.control.remove_cluster("domain-c1")
    await house.be_silent(180)
    assert await house.states() == ["lost", "lost"]

    house.cloud.control.restore_cluster("domain-c1")
    await house.run(80)
    assert await house.states() == ["running", "running"]
    assert names(house) == ours
    assert count(house, MachineDestroyed) == 0


async def test_an_inventory_that_is_empty_for_long_makes_no_strangers_and_all_is_found_again(
    house: House,
) -> None:
    ours = names(house)
    house.cloud.control.remove_cluster("domain-c1")
    await house.be_silent(20 * 60)
    assert await house.states() == ["lost", "lost"]
    assert {event.reason for event in house.heard(MachineLost)} == {"15 looks in a row did not show it"}

    house.cloud.control.restore_cluster("domain-c1")
    await house.run(120)
    assert await house.states() == ["running", "running"]
    assert names(house) == ours
    assert (count(house, MachineDestroyed), count(house, SweepStopped)) == (0, 0)
    assert count(house, MachineRequested) == 2


async def test_a_cluster_that_is_out_of_sight_for_long_is_waited_for_while_others_are_seen(
    database_url: str,
) -> None:
    async with open_house(database_url, clusters=(LAB, LAB.model_copy(update={"name": "annex"}))) as house:
        await house.lend()
        await house.run(60)
        ours = names(house)
        assert len(ours) == 4
        house.cloud.control.remove_cluster("domain-c1")
        await house.run(60)
        house.clock.leap(20 * 60)
        await house.run(60)
        assert sorted(await house.states()) == ["lost", "lost", "running", "running"]

        house.cloud.control.restore_cluster("domain-c1")
        await house.run(120)
        assert await house.states() == ["running"] * 4
        assert names(house) == ours
        assert (count(house, MachineDestroyed), count(house, SweepStopped)) == (0, 0)


async def test_a_machine_that_is_back_after_it_was_given_up_is_no_stranger_and_goes_at_once(
    house: House,
) -> None:
    first, second = await house.machines()
    await house.execute(
        "update machine set state = 'destroyed', reason = 'lost' where name = $1", first["name"]
    )
    with capture_logs() as logs:
        await house.be_silent(15)

    assert names(house) == {second["name"]}
    assert count(house, SweepStopped) == 0
    (deleting,) = [line for line in logs if line["event"] == "machine.deleting"]
    assert deleting["reason"] == "it is back after it was given up: lost"


async def test_machines_deleted_by_somebody_do_not_keep_a_resource_from_its_release(house: House) -> None:
    for name in names(house):
        house.cloud.control.kill_machine(name)
    await house.change_resource(mode=Mode.DRAINING)
    await house.run(180)
    assert await house.states() == ["lost", "lost"]
    house.clock.leap(600)
    await house.run(60)

    assert await house.states() == []
    assert count(house, ResourceReleased) == 1


async def test_a_lost_machine_is_given_up_in_the_end(house: House) -> None:
    victim = house.cloud.truth().machines[0].name
    house.cloud.control.kill_machine(victim)
    await house.run(40)
    assert "lost" in await house.states()
    house.clock.leap(600)
    await house.run(100)

    assert await house.states() == ["running", "running"]
    assert [event.name for event in house.heard(MachineDestroyed)].count(victim) == 1


async def test_a_machine_that_is_being_destroyed_is_not_gone_because_the_inventory_is_empty(
    house: House,
) -> None:
    first, second = await house.machines()
    house.cloud.control.set_fault("lose_answers", True)  # it stops after the first act
    await house.execute("update machine set state = 'destroying' where name = $1", first["name"])
    house.cloud.control.remove_cluster("domain-c1")
    await house.be_silent(60)
    assert count(house, MachineDestroyed) == 0

    house.cloud.control.restore_cluster("domain-c1")
    house.cloud.control.clear_faults()
    await house.be_silent(60)
    assert count(house, MachineDestroyed) == 1
    assert names(house) == {second["name"]}


async def test_one_look_without_a_draining_machine_does_not_cost_it_its_grace(house: House) -> None:
    machine = (await house.machines())[0]
    house.cloud.control.remove_cluster("domain-c1")
    await house.act(f"/v1/machines/{machine['id']}/drain", {"reason": "old kernel"})
    await house.be_silent(15)
    house.cloud.control.restore_cluster("domain-c1")
    await house.be_silent(30)

    assert machine["name"] in names(house)
    await house.be_silent(60)
    assert machine["name"] not in names(house)


async def test_an_unreadable_inventory_changes_nothing(house: House) -> None:
    house.cloud.control.set_fault("inventory_unreadable", True)
    await house.run(120)
    assert await house.states() == ["running", "running"]

    house.cloud.control.clear_faults()
    await house.run(60)
    assert await house.states() == ["running", "running"]
    assert count(house, MachineLost) == 0


async def test_a_cloud_that_is_away_is_drained_when_it_is_back(house: House) -> None:
    house.cloud.control.set_fault("unavailable", True)
    await house.change_resource(mode=Mode.DRAINING, force=True)
    await house.run(120)
    assert len(names(house)) == 2
    assert count(house, ResourceReleased) == 0

    house.cloud.control.clear_faults()
    await house.run(80)
    assert names(house) == set()
    assert count(house, ResourceReleased) == 1
