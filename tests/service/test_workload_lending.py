"""Observing and lending, from the first sample to limits that follow the owner."""

from collections.abc import AsyncIterator

import pytest

from libs.common.contracts.action import LimitsApplied, LimitsRequested, MachineDeployed, MachineRequested
from libs.common.contracts.resource import ClusterFacts, HostFacts, InventoryChanged, Mode
from libs.providers.base import Power
from tests.service.workload_house import House, open_house


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        yield house


def limits_mhz(house: House) -> dict[str, float]:
    """CPU limits that the cloud has, by host."""
    return {machine.host: machine.limit_mhz for machine in house.cloud.truth().machines}


async def test_an_observed_cluster_is_judged_and_shown_and_its_cloud_is_left_alone(house: House) -> None:
    await house.lend()
    await house.change_resource(mode=Mode.OBSERVE)
    untouched = house.cloud.store.read()
    await house.run(40)

    cluster = await house.cluster()
    assert (cluster["verdict"], cluster["mode"], cluster["machines"]) == ("idle", "observe", {})
    assert cluster["budget_mhz"] == 32_000
    assert cluster["owner_mhz"] == pytest.approx(4_000)
    decisions = (await house.ask("GET", "/v1/decisions")).body["items"]
    assert decisions[0]["observation"]["hosts"] == ["host-1001", "host-1002"]
    assert decisions[0]["decision"]["wanted"] == 2
    assert "may be lent" in decisions[0]["reason"]
    assert house.cloud.store.read() == untouched
    assert house.said == []


async def test_a_lent_cluster_gets_machines_within_its_placements(house: House) -> None:
    await house.lend()
    await house.run(40)

    assert await house.states() == ["running", "running"]
    machines = house.cloud.truth().machines
    assert sorted(machine.host for machine in machines) == ["host-1001", "host-1002"]
    assert all(machine.power is Power.ON for machine in machines)
    assert all("https://boinc.example.org/" in machine.user_data for machine in machines)
    assert len(house.heard(MachineRequested)) == len(house.heard(MachineDeployed)) == 2
    assert {event.machine_id for event in house.heard(MachineDeployed)} == {
        event.machine_id for event in house.heard(MachineRequested)
    }


async def test_a_machine_starts_at_the_floor_and_is_raised_to_its_hosts_budget_with_an_event(
    house: House,
) -> None:
    await house.lend()
    await house.run(40)

    tracks = [[limit for _, limit in machine.limit] for machine in house.cloud.state().machines]
    assert tracks == [[800, 16_000], [800, 16_000]]
    assert "may be lent" in house.heard(LimitsRequested)[0].reason
    assert sum(event.changes for event in house.heard(LimitsApplied)) == 3
    assert house.limits() == ["applied"] * len(house.limits())


async def test_limits_follow_the_owner_of_each_host(house: House) -> None:
    await house.lend()
    await house.run(40)
    house.cloud.control.set_owner_load("host-1001", 0.4)
    await house.run(20)

    assert limits_mhz(house) == {"host-1001": 9_400, "host-1002": 16_000}
    applied = house.heard(LimitsApplied)[-1]
    assert applied.budgets_mhz == {"host-1001": 9_400, "host-1002": 16_000}
    assert (applied.changes, applied.cap_mhz) == (2, 25_400)

    house.cloud.control.set_owner_load("host-1001", 0.1)
    await house.run(60)

    assert limits_mhz(house)["host-1001"] > 12_000
    assert house.limits() == ["applied"] * len(house.limits())


async def test_a_busy_owner_has_the_limits_at_the_floor_within_one_sample(house: House) -> None:
    await house.lend()
    await house.run(40)
    house.own(0.95)
    await house.run(20)

    assert set(limits_mhz(house).values()) == {800}
    assert "owner CPU" in house.heard(LimitsApplied)[-1].reason


async def test_without_a_policy_nothing_is_decided_and_the_reason_says_so(house: House) -> None:
    await house.change_resource(mode=Mode.LEND)
    await house.tell(house.template, house.contribution)
    await house.run(20)

    cluster = await house.cluster()
    assert (cluster["verdict"], cluster["machines"]) == ("unknown", {})
    assert "no policy" in cluster["reason"]
    assert (await house.ask("GET", "/v1/decisions")).body["items"] == []
    assert house.said == []


@pytest.mark.parametrize(
    ("what", "why"), [("template", "no approved template"), ("contribution", "no active contribution")]
)
async def test_without_goods_nothing_is_made_and_the_reason_says_so(
    house: House, what: str, why: str
) -> None:
    await house.change_resource(mode=Mode.LEND)
    await house.tell(house.contribution if what == "template" else house.template)
    await house.assign()
    await house.run(20)

    assert why in (await house.cluster())["reason"]
    assert await house.machines() == []


async def test_a_cluster_is_shown_from_its_inventory_on(house: House) -> None:
    await house.change_resource(mode=Mode.LEND)
    host = HostFacts("host-1001", "esx1", 20_000, 65_536, 8)
    known = ClusterFacts(house.cluster_id, "domain-c1", "lab", (host,))
    event = {"at": house.clock.now(), "revision": 1, "resource_id": house.resource.resource_id}
    await house.tell(InventoryChanged.model_validate(event | {"clusters": (known,)}))

    assert (await house.cluster())["reason"] == "not judged yet"


async def test_the_nearest_policy_wins(house: House) -> None:
    await house.lend(max_machines=0)
    await house.assign_to_cluster(max_machines=1)
    await house.run(40)

    assert await house.states() == ["running"]
