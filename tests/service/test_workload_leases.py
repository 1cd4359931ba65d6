"""Who acts on a cloud: one replica at a time, by the database's clock; whoever comes late changes nothing."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from libs.common.bus.messages import to_message
from libs.common.contracts.action import LimitsRequested, MachineDeployed, MachineRequested
from libs.common.contracts.resource import Mode
from libs.common.runner import Running
from libs.providers.base import MachineSpec, Mark, Power, Unavailable
from libs.providers.simulated import ClusterDefinition, OwnerProfile, driver
from libs.providers.simulated.session import SimulatedProvider
from services.workload.reconcile.hands import Hands
from services.workload.usecases.leasing import LeaseLost, guard
from tests.service.workload_house import LAB, House, open_house
from tests.service.workload_words import HALF_MHZ
from tests.support import until

SLOW_S = 1.0
"""How long a call waits: less than the time between two beats."""
WIDE = ClusterDefinition(
    name="lab", hosts=11, owner=OwnerProfile.IDLE, cores=8, core_mhz=2500, memory_gib=64, datastore_gib=4096
)


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        yield house


def hands_of(run: Running) -> Hands:
    """What a replica acts with."""
    hands = getattr(run.services[0].closes[0], "__self__", None)
    assert isinstance(hands, Hands)
    return hands


async def holder(house: House) -> UUID | None:
    """Who acts on the cloud."""
    (row,) = await house.fetch("select lease_token from resource where id = $1", house.resource.resource_id)
    found: UUID | None = row["lease_token"]
    return found


def limits_mhz(house: House) -> set[float]:
    return {machine.limit_mhz for machine in house.cloud.truth().machines}


async def wait_for_call(house: House) -> None:
    """Wait until the next thing to happen is the answer of a slow cloud."""
    answer_at = house.clock.now() + timedelta(seconds=SLOW_S)
    await until(lambda: house.clock.next_due() == answer_at, what="a call to the cloud")


async def test_one_of_two_replicas_acts_and_the_other_takes_over_when_it_stops(database_url: str) -> None:
    async with open_house(database_url) as house:
        staying = hands_of(house.replicas[0])
        async with house.replica() as second:
            leaving = hands_of(second)
            await house.change_resource()
            await house.give_lease_to(leaving.replica)
            await house.lend()
            await house.run(40)

            assert await house.states() == ["running", "running"]
            assert await holder(house) == leaving.replica
            assert leaving.looked_at.keys() == {house.resource.resource_id}
            assert staying.looked_at == {}

        assert await holder(house) is None
        house.own(0.5)
        await house.run(20)
        assert await holder(house) == staying.replica
        assert limits_mhz(house) == {HALF_MHZ}


async def test_a_replica_that_dies_is_replaced_when_its_lease_has_ended(house: House) -> None:
    await house.lend()
    await house.run(40)
    await house.give_lease_to(uuid4())
    house.own(0.5)
    await house.run(20)
    assert limits_mhz(house) == {16_000}
    assert house.limits()[-1] == "open"

    await house.execute("update resource set lease_until = clock_timestamp() - interval '1 second'")
    await house.be_silent(5)

    assert limits_mhz(house) == {HALF_MHZ}
    assert await holder(house) == hands_of(house.replicas[0]).replica


async def test_a_cloud_that_was_handed_over_and_does_not_say_goodbye_holds_up_no_act(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.lend()
    await house.be_silent(20)
    goodbye, ended = asyncio.Event(), []

    async def close(_session: SimulatedProvider) -> None:
        try:
            await goodbye.wait()
        finally:
            ended.append(goodbye.is_set())

    monkeypatch.setattr(SimulatedProvider, "aclose", close)
    await house.give_lease_to(uuid4())
    hands = hands_of(house.replicas[0])
    hands.claimed_at = None
    assert await hands.claim() == []
    assert ended == [], "nobody has waited for it"
    goodbye.set()
    await house.settle()
    assert ended == [True]


async def test_a_mode_of_a_newer_replica_is_taken_for_paused_and_fails_no_beat(house: House) -> None:
    await house.lend()
    await house.run(40)
    await house.execute("update resource set mode = 'borrow'")
    (claimed,) = await hands_of(house.replicas[0]).claim()
    assert claimed.mode is Mode.PAUSED
    await house.run(40)

    shown = await house.cluster()
    assert shown["mode"] == "borrow"
    assert "the resource is paused" in shown["reason"]
    assert limits_mhz(house) == {800}
    assert await house.states() == ["running", "running"]


async def test_who_comes_late_changes_nothing_and_the_next_holder_goes_on(house: House) -> None:
    await house.lend()
    await house.be_silent(20)
    samples = await house.measure()
    await house.begin_anew()
    house.cloud.control.set_fault("latency_s", 3.0)
    await house.bus.publish(to_message(house.round_of(*samples), "/tides/test"))
    await until(lambda: len(house.heard(MachineRequested)) == 2)
    # The look waits for the slow cloud, when another replica takes the lease.
    answer_at = house.clock.now() + timedelta(seconds=3)
    await until(lambda: house.clock.next_due() == answer_at, what="a call to the cloud")
    await house.give_lease_to(uuid4())
    house.cloud.control.clear_faults()
    house.clock.advance()
    await house.settle()

    assert await house.states() == ["requested", "requested"]
    assert house.cloud.truth().machines == ()
    with pytest.raises(LeaseLost):
        async with hands_of(house.replicas[0]).database.transaction() as session:
            await guard(session, hands_of(house.replicas[0]).replica, house.resource.resource_id)

    await house.give_lease_to(None)
    await house.run(40)
    assert await house.states() == ["running", "running"]


async def test_after_a_lost_lease_what_waits_for_its_turn_is_not_begun(database_url: str) -> None:
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
        await house.give_lease_to(uuid4())
        house.cloud.control.clear_faults()
        house.clock.advance()
        await house.settle()
        assert 1 <= len(house.cloud.truth().machines) <= 4

        await house.give_lease_to(None)
        await house.run(80)
        assert await house.states() == ["running"] * 11
        assert len(house.cloud.state().machines) == 11


async def test_limits_of_further_clusters_are_not_set_after_a_lost_lease(database_url: str) -> None:
    async with open_house(database_url, clusters=(LAB, LAB.model_copy(update={"name": "annex"}))) as house:
        await house.lend()
        await house.run(60)
        house.own(0.5)
        await house.be_silent(20)
        samples = await house.measure()
        house.cloud.control.set_fault("latency_s", SLOW_S)
        requested = len(house.heard(LimitsRequested))
        await house.bus.publish(to_message(house.round_of(*samples), "/tides/test"))
        await until(lambda: len(house.heard(LimitsRequested)) == requested + 2)
        await wait_for_call(house)  # the first cluster's limits
        await house.give_lease_to(uuid4())
        house.cloud.control.clear_faults()
        house.clock.advance()
        await house.settle()

        by_cluster = {machine.cluster: machine.limit_mhz for machine in house.cloud.truth().machines}
        assert sorted(by_cluster.values()) == [HALF_MHZ, 16_000]
        await house.give_lease_to(None)
        await house.run(20)
        assert limits_mhz(house) == {HALF_MHZ}


async def test_who_loses_the_lease_while_it_logs_in_calls_nothing(house: House) -> None:
    await house.lend()
    await house.run(60)
    house.own(0.5)
    await house.be_silent(20)
    samples = await house.measure()
    await house.begin_anew()
    house.cloud.control.set_fault("latency_s", SLOW_S)
    requested = len(house.heard(LimitsRequested))
    await house.bus.publish(to_message(house.round_of(*samples), "/tides/test"))
    await until(lambda: len(house.heard(LimitsRequested)) == requested + 1)
    await wait_for_call(house)  # the login
    await house.give_lease_to(uuid4())
    house.cloud.control.clear_faults()
    house.clock.advance()
    await house.settle()
    assert limits_mhz(house) == {16_000}

    await house.give_lease_to(None)
    await house.be_silent(5)
    assert limits_mhz(house) == {HALF_MHZ}


async def test_a_call_ends_with_its_turn_and_is_not_begun_where_the_lease_ends_before(house: House) -> None:
    await house.lend()
    await house.run(60)
    hands = hands_of(house.replicas[0])
    (claimed,) = await hands.claim()
    turn = await hands.begin(claimed)
    assert 0 < turn.left_s <= hands.pace.call_s
    await house.give_lease_to(hands.replica, seconds=5)
    with pytest.raises(LeaseLost):
        async with hands.starting(claimed, turn):
            raise AssertionError("the lease ends before the turn")

    short = replace(turn, ends_at=turn.ends_at - turn.left_s + 0.05)
    async with hands.starting(claimed, short):
        pass
    with pytest.raises(Unavailable, match="no answer"):
        await hands.call(short, asyncio.Event().wait())


async def test_a_machine_that_was_made_before_a_crash_is_found_and_not_made_again(house: House) -> None:
    await house.lend(max_machines=1)
    await house.give_lease_to(uuid4())
    await house.run(20)
    (row,) = await house.machines()
    assert row["state"] == "requested"
    connection = house.connection()
    dead = await driver.open(connection, house.settings.vault(), house.clock)
    mark = Mark(connection.installation_id, UUID(row["id"]))
    spec = MachineSpec(row["name"], mark, "domain-c1", row["host"], "vm-9001", 4, 4096, 10, 800, "")
    await dead.create(spec)
    await house.give_lease_to(None)
    await house.run(40)

    assert await house.states() == ["running"]
    assert [machine.name for machine in house.cloud.truth().machines] == [row["name"]]
    assert len(house.heard(MachineRequested)) == len(house.heard(MachineDeployed)) == 1


async def test_a_replica_that_is_stopped_in_the_middle_leaves_no_machine_twice(database_url: str) -> None:
    async with open_house(database_url, replicas=0) as house:
        house.cloud.control.set_fault("lose_answers", True)
        for _ in range(4):
            async with house.replica():
                await house.lend()
                await house.run(20)
        house.cloud.control.clear_faults()
        async with house.replica():
            await house.run(60)

            assert await house.states() == ["running", "running"]
            assert len(house.cloud.truth().machines) == 2
            assert all(machine.power is Power.ON for machine in house.cloud.truth().machines)
            assert len(house.heard(MachineRequested)) == 2


async def test_a_database_of_another_installation_is_not_acted_from(house: House) -> None:
    await house.execute("update installation set id = $1", uuid4())
    hands_of(house.replicas[0]).is_ours = False
    await house.lend()
    await house.run(40)

    assert await house.states() == []
    assert house.cloud.truth().machines == ()
