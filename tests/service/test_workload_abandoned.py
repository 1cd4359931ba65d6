"""A cloud that is gone for good is written off without being asked.

What becomes of it when it is met again: `test_abandonment.py`.
"""

from uuid import UUID

from structlog.testing import capture_logs

from libs.common.contracts.action import (
    LimitsRequested,
    LimitsSuperseded,
    MachineAbandoned,
    MachineDestroyed,
    ResourceAbandoned,
)
from services.workload.usecases.projections import remember_resource
from tests.service.workload_house import House, open_house
from tests.service.workload_words import next_state

WHY = "abandoned by Ada: the cloud was not asked, it is degraded since 2026-11-20 02:00 UTC (unreachable)"


def names(house: House) -> set[str]:
    return {machine.name for machine in house.cloud.truth().machines}


def check_written_off(house: House, ours: dict[str, str], asked: set[UUID]) -> None:
    (abandoned,) = house.heard(ResourceAbandoned)
    assert {left.name: left.host for left in abandoned.machines} == ours
    assert {(left.cluster, left.state, left.power) for left in abandoned.machines} == {
        ("lab", "running", "on")
    }
    told = house.heard(MachineAbandoned)
    assert ({event.name for event in told}, {event.reason for event in told}) == (set(ours), {WHY})
    superseded = house.heard(LimitsSuperseded)[-1]
    assert (superseded.action_id in asked, superseded.reason) == (True, WHY)


async def test_what_is_written_off_is_listed_said_once_and_left_alone(database_url: str) -> None:
    async with open_house(database_url, replicas=2) as house:
        await house.lend()
        await house.run(40)
        ours = {machine["name"]: machine["host"] for machine in await house.machines()}
        assert (await house.states(), len(ours)) == (["running", "running"], 2)
        house.cloud.control.set_fault("unavailable", True)
        house.own(0.5)
        await house.act(f"/v1/clusters/{house.cluster_id}/pause", {"reason": "it is dead"})
        assert house.limits()[-1] in ("open", "failed")
        asked = {event.action_id for event in house.heard(LimitsRequested)}
        destroyed_before = len(house.heard(MachineDestroyed))

        with capture_logs() as logs:
            await house.change_resource(gone=True, abandoned=WHY, sealed_secret="")
            await house.tell(house.resource)  # the same message again

        check_written_off(house, ours, asked)
        assert await house.fetch("select lease_token from resource") == [{"lease_token": None}]
        assert await house.states() == []
        assert await house.states(live=False) == ["abandoned", "abandoned"]
        lines = [line for line in logs if line["event"] == "machine.abandoned"]
        assert {(line["machine"], line["reason"]) for line in lines} == {(name, WHY) for name in ours}

        house.cloud.control.clear_faults()
        await house.be_silent(30)
        assert names(house) == set(ours)
        assert house.heard(MachineDestroyed)[destroyed_before:] == []


async def test_a_clone_that_is_under_way_is_written_off_and_nothing_more_is_asked_of_its_cloud(
    database_url: str,
) -> None:
    async with open_house(database_url, clone_s=60) as house:
        await house.lend()
        await house.run(20)
        assert await house.states() == ["creating", "creating"]
        await house.change_resource(gone=True, abandoned=WHY, sealed_secret="")
        (abandoned,) = house.heard(ResourceAbandoned)
        assert {left.state for left in abandoned.machines} == {"creating"}

        await house.be_silent(90)
        assert {machine.name for machine in abandoned.machines} == names(house)
        assert {machine.power for machine in house.cloud.truth().machines} == {"off"}
        assert await house.states(live=False) == ["abandoned", "abandoned"]


async def test_what_an_older_process_passed_over_is_written_off_when_it_is_told_again(
    database_url: str,
) -> None:
    async with open_house(database_url) as house:
        await house.lend()
        await house.run(40)
        gone = next_state(house.resource, gone=True, abandoned=WHY, sealed_secret="")
        # It takes the news, and knows nothing of machines that are left.
        async with house.replicas[0].services[0].database.transaction() as session:
            assert await remember_resource(session, gone)
        await house.be_silent(10)
        assert (await house.states(), house.heard(ResourceAbandoned)) == (["running", "running"], [])

        for _ in range(2):  # registry answers each hour whoever asks
            await house.tell(gone)

        (abandoned,) = house.heard(ResourceAbandoned)
        assert {left.name for left in abandoned.machines} == names(house)
        assert await house.states(live=False) == ["abandoned", "abandoned"]
