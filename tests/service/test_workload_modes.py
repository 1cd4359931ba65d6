"""A resource's mode holds at once, without a sample; and what was lent before is let go of to the last folder."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from libs.common.bus.messages import to_message
from libs.common.contracts.action import MachineRequested, ResourceReleased
from libs.common.contracts.resource import Mode
from libs.providers.simulated import ClusterDefinition, OwnerProfile
from tests.service.workload_house import House, open_house
from tests.service.workload_words import next_state
from tests.support import until

SLOW_S = 1.0
"""How long a call waits: less than the time between two beats."""
WIDE = ClusterDefinition(
    name="lab", hosts=11, owner=OwnerProfile.IDLE, cores=8, core_mhz=2500, memory_gib=64, datastore_gib=4096
)


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        await house.lend()
        await house.run(40)
        yield house


def limits_mhz(house: House) -> set[float]:
    return {machine.limit_mhz for machine in house.cloud.truth().machines}


def has_pool(house: House) -> bool:
    caps = house.cloud.state().clusters[0].cap
    return bool(caps) and caps[-1][1] is not None


async def say_mode(house: House, mode: Mode) -> None:
    """Change the mode while a call to the cloud waits: time stands still, so nobody waits for quiet."""
    house.resource = next_state(house.resource, mode=mode)
    await house.bus.publish(to_message(house.resource, "/tides/test"))

    async def is_known() -> bool:
        (row,) = await house.fetch("select mode from resource")
        return bool(row["mode"] == mode.value)

    await until(is_known)


async def wait_for_call(house: House) -> None:
    """Wait until the next thing to happen is the answer of a slow cloud."""
    answer_at = house.clock.now() + timedelta(seconds=SLOW_S)
    await until(lambda: house.clock.next_due() == answer_at, what="a call to the cloud")


async def test_paused_brings_the_floor_at_once(house: House) -> None:
    began = house.clock.now()
    await house.change_resource(mode=Mode.PAUSED)

    assert limits_mhz(house) == {800}
    assert house.clock.now() == began
    assert "the resource is paused" in (await house.cluster())["reason"]
    newest = (await house.ask("GET", "/v1/decisions?limit=1")).body["items"][0]
    assert "the resource is paused" in newest["reason"]
    assert house.limits() == ["applied"] * len(house.limits())

    await house.change_resource(mode=Mode.LEND)
    await house.run(60)
    assert min(limits_mhz(house)) > 15_000
    assert await house.states() == ["running", "running"]


async def test_observing_again_takes_everything_back_at_once(house: House) -> None:
    began = house.clock.now()
    await house.change_resource(mode=Mode.OBSERVE)

    assert limits_mhz(house) == {800}
    assert [machine["wanted"] for machine in await house.machines()] == ["gone", "gone"]
    assert await house.states() == ["draining", "draining"]
    assert house.clock.now() == began
    assert "the resource only observes again" in (await house.cluster())["reason"]
    assert all("only observes again" in machine["reason"] for machine in await house.machines())


async def test_draining_by_force_has_machines_off_and_deleted_at_once(house: House) -> None:
    began = house.clock.now()
    await house.change_resource(mode=Mode.DRAINING, force=True)

    assert house.clock.now() - began < timedelta(seconds=5)
    assert house.cloud.truth().machines == ()
    assert "released by force" in (await house.cluster())["reason"]


async def test_lending_begins_with_the_last_fresh_sample(house: House) -> None:
    await house.act(f"/v1/clusters/{house.cluster_id}/scale", {"most_machines": 0})
    await house.change_resource(mode=Mode.OBSERVE)
    await house.run(120)
    await house.act(f"/v1/clusters/{house.cluster_id}/scale", {"most_machines": None})
    await house.run(60)
    assert await house.states() == []
    assert (await house.cluster())["wanted"] == 2
    began, before = house.clock.now(), len(house.heard(MachineRequested))
    await house.change_resource(mode=Mode.LEND)

    assert len(house.heard(MachineRequested)) == before + 2
    assert house.clock.now() == began


async def test_what_was_only_observed_so_far_lends_as_soon_as_it_may(database_url: str) -> None:
    async with open_house(database_url) as house:
        await house.change_resource(mode=Mode.OBSERVE)
        await house.tell(house.template, house.contribution)
        await house.assign(cooldown_s=600)
        await house.run(180)
        observed = await house.cluster()
        assert (await house.states(), observed["wanted"]) == ([], 2), observed["reason"]
        began = house.clock.now()
        await house.change_resource(mode=Mode.LEND)

        assert len(house.heard(MachineRequested)) == 2
        assert house.clock.now() - began < timedelta(seconds=5)


async def test_lending_does_not_begin_with_an_old_sample(house: House) -> None:
    await house.change_resource(mode=Mode.OBSERVE)
    await house.run(120)
    assert await house.states() == []
    await house.be_silent(300)
    before = len(house.heard(MachineRequested))
    await house.change_resource(mode=Mode.LEND)
    await house.be_silent(20)
    assert len(house.heard(MachineRequested)) == before

    await house.run(120)
    assert await house.states() == ["running", "running"]


async def test_what_waits_for_its_turn_is_not_begun_once_the_resource_only_observes(
    database_url: str,
) -> None:
    async with open_house(database_url, clusters=(WIDE,)) as house:
        await house.lend(step_machines=11)
        await house.be_silent(20)
        samples = await house.measure()
        await house.begin_anew()
        house.cloud.control.set_fault("latency_s", SLOW_S)
        await house.bus.publish(to_message(house.round_of(*samples), "/tides/test"))
        await until(lambda: len(house.heard(MachineRequested)) == 11)
        for _ in ("login", "look"):
            await wait_for_call(house)
            house.clock.advance()
        await wait_for_call(house)  # the first four clones
        await say_mode(house, Mode.OBSERVE)
        house.cloud.control.clear_faults()
        house.clock.advance()
        await house.settle()

        made = len(house.cloud.state().machines)  # those that were under way, deleted by now
        assert 1 <= made <= 4
        await house.run(60)
        assert len(house.cloud.state().machines) == made
        assert house.cloud.truth().machines == ()
        assert await house.states() == []


async def test_what_was_switched_off_is_not_switched_on_once_the_resource_only_observes(
    database_url: str,
) -> None:
    async with open_house(database_url, clusters=(WIDE,)) as house:
        await house.lend(step_machines=11)
        await house.run(40)
        for machine in house.cloud.truth().machines:
            house.cloud.control.switch_off_machine(machine.name)
        house.cloud.control.set_fault("latency_s", SLOW_S)
        await say_mode(house, Mode.LEND)  # again: whatever is said of a resource leads to a look
        await wait_for_call(house)
        house.clock.advance()
        await wait_for_call(house)  # the first eight are being switched on
        await say_mode(house, Mode.OBSERVE)
        house.cloud.control.clear_faults()
        with capture_logs() as logs:
            house.clock.advance()
            await house.settle()

        acted = [line["act"] for line in logs if line["event"] == "machine.acted"]
        assert 1 <= acted.count("power_on") <= 8


async def test_after_observing_again_not_even_a_pool_is_left(house: House) -> None:
    assert has_pool(house)
    await house.change_resource(mode=Mode.OBSERVE)
    await house.run(120)

    assert not has_pool(house)
    assert house.heard(ResourceReleased) == []
    untouched = house.cloud.store.read()
    await house.run(60)
    assert house.cloud.store.read() == untouched


async def test_a_pool_that_could_not_be_removed_is_removed_later_also_after_a_restart(
    database_url: str,
) -> None:
    async with open_house(database_url, replicas=0) as house:
        async with house.replica():
            await house.lend()
            await house.run(40)
            (neighbour,) = await house.make_strangers(1, installation=uuid4())
            await house.change_resource(mode=Mode.OBSERVE)
            await house.run(160)
            assert await house.states() == []
            assert has_pool(house)
        async with house.replica():
            await house.run(60)
            assert has_pool(house)
            house.cloud.control.kill_machine(neighbour)
            await house.run(60)

            assert not has_pool(house)
            assert house.heard(ResourceReleased) == []


async def test_a_resource_that_is_lent_again_meanwhile_is_not_released(house: House) -> None:
    await house.act(f"/v1/clusters/{house.cluster_id}/scale", {"most_machines": 0})
    await house.run(120)
    assert house.cloud.truth().machines == ()
    assert has_pool(house)
    house.cloud.control.set_fault("latency_s", SLOW_S)
    house.resource = next_state(house.resource, mode=Mode.DRAINING)
    await house.bus.publish(to_message(house.resource, "/tides/test"))
    # The look that would end in the release waits for the slow cloud, when the resource is lent again.
    await wait_for_call(house)
    await say_mode(house, Mode.LEND)
    house.cloud.control.clear_faults()
    house.clock.advance()
    await house.settle()

    assert house.heard(ResourceReleased) == []
    assert has_pool(house)
    await house.act(f"/v1/clusters/{house.cluster_id}/scale", {"most_machines": None})
    await house.run(160)
    assert await house.states() == ["running", "running"]
