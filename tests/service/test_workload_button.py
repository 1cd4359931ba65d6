"""What a person does: the red button, scaling and draining by hand; and who may."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from libs.common.auth import Role
from libs.common.contracts.action import (
    ClusterDrainRequested,
    ClusterPaused,
    ClusterResumed,
    MachineDraining,
    MachineRequested,
)
from libs.common.contracts.resource import Mode
from tests.service.lone_service import THEIRS
from tests.service.workload_house import House, open_house


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        await house.lend()
        await house.run(40)
        yield house


def limits_mhz(house: House) -> set[float]:
    return {machine.limit_mhz for machine in house.cloud.truth().machines}


async def test_the_red_button_brings_the_floor_at_once_and_a_resume_what_was_lent(house: House) -> None:
    shown = await house.act(f"/v1/clusters/{house.cluster_id}/pause", {"reason": "audit"})
    await house.be_silent(5)

    assert limits_mhz(house) == {800}
    assert (shown["paused_by"], shown["paused_reason"], shown["budget_mhz"]) == ("Ada", "audit", 1_600)
    assert "paused: audit (by Ada)" in shown["reason"]
    paused = house.heard(ClusterPaused)
    assert [(event.actor, event.reason) for event in paused] == [("Ada", "audit")]

    await house.run(55)
    assert limits_mhz(house) == {800}

    await house.act(f"/v1/clusters/{house.cluster_id}/resume", {"reason": "done"})
    await house.run(60)
    assert min(limits_mhz(house)) > 15_000
    assert [event.actor for event in house.heard(ClusterResumed)] == ["Ada"]
    assert house.limits() == ["applied"] * len(house.limits())


async def test_the_red_button_holds_over_a_restart_and_nothing_new_is_made(database_url: str) -> None:
    async with open_house(database_url, replicas=0) as house:
        async with house.replica():
            await house.lend()
            await house.change_resource(mode=Mode.OBSERVE)
            await house.run(20)
            await house.act(f"/v1/clusters/{house.cluster_id}/pause", {"reason": "audit"})
            await house.change_resource(mode=Mode.LEND)
        async with house.replica():
            await house.run(40)
            assert (await house.cluster())["paused_reason"] == "audit"
            assert house.heard(MachineRequested) == []

            await house.act(f"/v1/clusters/{house.cluster_id}/resume", {"reason": "done"})
            await house.run(60)
            assert await house.states() == ["running", "running"]


async def test_scaling_by_hand_bounds_the_machines_until_the_bound_is_taken_away(house: House) -> None:
    shown = await house.act(f"/v1/clusters/{house.cluster_id}/scale", {"most_machines": 1})
    assert shown["most_machines"] == 1
    assert "by hand" in shown["reason"]
    await house.run(100)
    assert await house.states() == ["running"]

    await house.act(f"/v1/clusters/{house.cluster_id}/scale", {"most_machines": None})
    await house.run(60)
    assert await house.states() == ["running", "running"]


async def test_a_bound_of_none_at_all_holds_beside_other_bounds(house: House) -> None:
    await house.execute("update cluster set grow_after = $1", house.clock.now().replace(hour=23))
    await house.act(f"/v1/clusters/{house.cluster_id}/scale", {"most_machines": 0})
    await house.run(100)

    assert await house.states() == []


async def test_a_machine_drained_by_hand_goes_with_grace_and_is_replaced(house: House) -> None:
    first, second = await house.machines()
    shown = await house.act(f"/v1/machines/{first['id']}/drain", {"reason": "old kernel"})
    assert (shown["wanted"], shown["reason"]) == ("gone", "drained by hand by Ada: old kernel")
    await house.run(40)
    assert await house.states() == ["draining", "running"]
    assert [event.reason for event in house.heard(MachineDraining)] == ["drained by hand by Ada: old kernel"]

    await house.run(80)

    machines = await house.machines()
    assert [machine["state"] for machine in machines] == ["running", "running"]
    assert machines[0]["id"] == second["id"]
    assert machines[1]["host"] == first["host"]


async def test_a_machine_drained_by_hand_is_not_replaced_while_nothing_new_may_be_made(house: House) -> None:
    first, _ = await house.machines()
    await house.make_strangers(4)
    await house.act(f"/v1/machines/{first['id']}/drain", {"reason": "old kernel"})
    await house.run(120)

    assert "sweeper waits" in (await house.cluster())["reason"]
    assert await house.states() == ["running"]
    assert len(house.heard(MachineRequested)) == 2


async def test_a_cluster_drained_by_hand_gives_everything_back_until_resumed(house: House) -> None:
    await house.act(f"/v1/clusters/{house.cluster_id}/drain")
    await house.be_silent(5)
    assert await house.states() == ["draining", "draining"]
    await house.run(95)
    assert await house.states() == []
    assert house.cloud.truth().machines == ()
    assert len(house.heard(MachineRequested)) == 2

    await house.act(f"/v1/clusters/{house.cluster_id}/resume", {"reason": "done"})
    await house.run(120)
    assert await house.states() == ["running", "running"]


async def newest_decision(house: House) -> str:
    reason: str = (await house.ask("GET", "/v1/decisions?limit=1")).body["items"][0]["reason"]
    return reason


async def test_a_drain_by_hand_says_who_and_why_wherever_it_is_read(house: House) -> None:
    said = "drained by hand by Ada: moving out"
    with capture_logs() as logs:
        shown = await house.act(f"/v1/clusters/{house.cluster_id}/drain", {"reason": "moving out"})
        await house.run(20)

    assert shown["reason"] == f"{said}; machines draining"
    assert (await newest_decision(house)) == f"{said}; machines draining"
    assert [machine["reason"] for machine in await house.machines()] == [f"{said}; machines draining"] * 2
    assert {event.reason for event in house.heard(MachineDraining)} == {f"{said}; machines draining"}
    (line,) = [line for line in logs if line["event"] == "cluster.drained"]
    assert line.items() >= {"resource": "Lab", "cluster": "lab", "by": "Ada", "reason": "moving out"}.items()

    (asked,) = house.heard(ClusterDrainRequested)
    assert (asked.actor, asked.reason, asked.was_draining) == ("Ada", "moving out", False)

    await house.act(f"/v1/clusters/{house.cluster_id}/resume", {"reason": "we stay"})
    assert (await newest_decision(house)).startswith("resumed by hand by Ada: we stay; ")
    assert "drained" not in (await house.cluster())["reason"]


async def test_who_drains_without_a_reason_is_named_all_the_same(house: House) -> None:
    shown = await house.act(f"/v1/clusters/{house.cluster_id}/drain")

    assert shown["reason"].startswith("drained by hand by Ada: no reason given; ")


@pytest.mark.parametrize("most", [1, 5])
async def test_scaling_by_hand_is_kept_as_a_decision_with_who_and_why_even_where_it_changes_nothing(
    house: House, most: int
) -> None:
    scale = f"/v1/clusters/{house.cluster_id}/scale"
    with capture_logs() as logs:
        await house.act(scale, {"most_machines": most, "reason": "licence"})

    assert (await newest_decision(house)).startswith(f"scaled to at most {most} by hand by Ada: licence; ")
    (line,) = [line for line in logs if line["event"] == "cluster.scaled"]
    assert line.items() >= {"by": "Ada", "reason": "licence", "most_machines": most}.items()

    await house.act(scale, {"most_machines": None, "reason": "renewed"})
    await house.log_is_shown()
    events = (await house.ask("GET", "/v1/events?limit=50")).body["items"]
    scaled = [event["body"] for event in events if event["key"] == "action.cluster_scaled.v1"]
    assert [(body["most_before"], body["most_machines"]) for body in scaled] == [(None, most), (most, None)]
    assert [(body["actor"], body["reason"]) for body in scaled] == [("Ada", "licence"), ("Ada", "renewed")]
    assert (await newest_decision(house)).startswith("the bound is taken away by hand by Ada: renewed; ")
    assert "licence" not in (await house.cluster())["reason"]


async def test_a_viewer_may_look_and_touch_nothing(house: House) -> None:
    cluster, machine = f"/v1/clusters/{house.cluster_id}", f"/v1/machines/{uuid4()}"
    why = {"reason": "curious"}
    bodies: dict[str, Any] = {"pause": why, "resume": why, "drain": None, "scale": {"most_machines": 0}}

    for what, body in bodies.items():
        assert (await house.ask("POST", f"{cluster}/{what}", body, role=Role.VIEWER)).status == 403, what
        assert (await house.ask("POST", f"{cluster}/{what}", body, role=None)).status == 401, what
    assert (await house.ask("POST", f"{machine}/drain", why, role=Role.VIEWER)).status == 403
    sweep = f"/v1/sweeps/{house.resource.resource_id}/allow"
    assert (await house.ask("POST", sweep, {"names": ["x"]}, role=Role.OPERATOR)).status == 403
    assert (await house.ask("GET", cluster, role=Role.VIEWER)).status == 200
    assert await house.states() == ["running", "running"]


async def test_another_organisation_sees_and_touches_nothing(house: House) -> None:
    machine = (await house.machines())[0]["id"]
    paths = ("clusters", "workloads", "machines", "decisions", "events")

    for path in paths:
        assert (await house.ask("GET", f"/v1/{path}", organisation=THEIRS)).body["items"] == [], path
        assert (await house.ask("GET", f"/v1/{path}")).body["items"], path
        everything = await house.ask("GET", f"/v1/{path}", role=Role.ADMIN, organisation=THEIRS)
        assert everything.body["items"], path
    cluster, why = f"/v1/clusters/{house.cluster_id}", {"reason": "ours now"}
    asks: dict[str, Any] = {f"{cluster}/pause": why, f"{cluster}/resume": why, f"{cluster}/drain": None}
    asks |= {f"{cluster}/scale": {"most_machines": 0}, f"/v1/machines/{machine}/drain": why}
    for path, body in asks.items():
        assert (await house.ask("POST", path, body, organisation=THEIRS)).status == 404, path
    assert (await house.ask("GET", cluster, organisation=THEIRS)).status == 404
    assert (await house.ask("GET", cluster, organisation=THEIRS, role=Role.ADMIN)).status == 200
    assert await house.states() == ["running", "running"]
