"""Limits: every request has one outcome, whatever the cloud answers and whoever meddles."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from libs.common.contracts.action import (
    LimitsApplied,
    LimitsFailed,
    LimitsRequested,
    LimitsSuperseded,
    MachineRequested,
)
from libs.common.contracts.resource import Mode
from tests.service.workload_house import House, open_house
from tests.service.workload_words import HALF_MHZ, MORE_MHZ


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        await house.lend()
        await house.run(40)
        yield house


def limits_mhz(house: House) -> set[float]:
    return {machine.limit_mhz for machine in house.cloud.truth().machines}


async def test_a_limit_that_somebody_changed_is_set_again_and_said(house: House) -> None:
    before = len(house.heard(LimitsApplied))
    house.cloud.control.tamper_limit(house.cloud.truth().machines[0].name, 19_999)
    await house.be_silent(15)

    assert limits_mhz(house) == {16_000}
    requested, applied = house.heard(LimitsRequested)[-1], house.heard(LimitsApplied)[-1]
    assert len(house.heard(LimitsApplied)) == before + 1
    assert (applied.action_id, applied.changes) == (requested.action_id, 1)
    assert "the cloud had other limits" in applied.reason


async def test_a_lost_answer_is_read_back_and_said_as_one_outcome(house: House) -> None:
    house.cloud.control.set_fault("lose_answers", True)
    house.own(0.5)
    await house.run(20)
    assert limits_mhz(house) == {HALF_MHZ}
    (failed,) = house.heard(LimitsFailed)
    assert failed.cause == "timeout"
    assert house.limits()[-1] == "failed"

    await house.run(20)
    assert len(house.heard(LimitsFailed)) == 1
    house.cloud.control.clear_faults()
    await house.run(20)

    (outcome,) = [event for event in house.heard(LimitsApplied) if event.action_id == failed.action_id]
    assert outcome.changes == 0
    tracks = [[limit for _, limit in machine.limit] for machine in house.cloud.state().machines]
    assert tracks == [[800, 16_000, HALF_MHZ]] * 2


async def test_a_newer_decision_supersedes_what_was_not_applied(house: House) -> None:
    await house.give_lease_to(uuid4())
    house.own(0.5)
    await house.run(20)
    house.own(0.6)
    await house.run(20)
    first, second = house.heard(LimitsRequested)[-2:]
    (superseded,) = house.heard(LimitsSuperseded)
    assert superseded.action_id == first.action_id
    assert superseded.budgets_mhz == first.budgets_mhz

    await house.give_lease_to(None)
    await house.be_silent(5)

    assert house.heard(LimitsApplied)[-1].action_id == second.action_id
    assert limits_mhz(house) == {MORE_MHZ}
    assert house.limits()[-2:] == ["superseded", "applied"]


async def test_a_request_whose_machines_are_gone_is_closed(house: House) -> None:
    house.cloud.control.set_fault("lose_answers", True)
    house.own(0.5)
    await house.run(20)
    assert house.limits()[-1] == "failed"
    await house.change_resource(mode=Mode.DRAINING, force=True)
    await house.run(100)

    assert house.cloud.truth().machines == ()
    assert "open" not in house.limits()
    assert house.limits()[-1] in ("superseded", "applied")


async def test_a_machine_more_on_a_host_shares_its_budget(house: House) -> None:
    await house.assign(machines_per_host=2, max_machines=4)
    await house.run(120)

    assert len(house.heard(MachineRequested)) == 4
    by_host: dict[str, float] = {}
    for machine in house.cloud.truth().machines:
        by_host[machine.host] = by_host.get(machine.host, 0) + machine.limit_mhz
    assert by_host == {"host-1001": 16_000, "host-1002": 16_000}


async def measured(house: House) -> dict[str, float]:
    """What the replica shows at `/metrics`, by name and labels."""
    lines = (await house.ask("GET", "/metrics")).body.splitlines()
    shown = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in shown}


async def test_a_cloud_that_refuses_is_asked_again_and_the_failure_is_said_once(house: House) -> None:
    house.own(0.5)
    await house.be_silent(20)
    samples = await house.measure()
    house.cloud.control.set_fault("auth_failure", True)
    await house.publish(*samples)
    await house.be_silent(40)
    (failed,) = house.heard(LimitsFailed)
    assert failed.cause == "auth"
    assert limits_mhz(house) == {16_000}
    cloud = (await house.cluster())["cloud"]
    assert (cloud["state"], cloud["cause"], cloud["failures"] >= 1) == ("open", "auth", True)
    assert cloud["since"] < house.clock.now().isoformat() < cloud["next_try_at"]
    lab = str(house.resource.resource_id)
    shown = await measured(house)
    assert shown[f'tides_limit_failures_total{{cause="auth",resource="{lab}"}}'] >= 1
    assert shown[f'tides_limit_changes_total{{resource="{lab}"}}'] >= 2
    assert shown['tides_decisions_total{verdict="idle"}'] >= 1
    assert shown[f'tides_sweep_stopped{{resource="{lab}",service="workload"}}'] == 0
    running = f'cluster="{house.cluster_id}",resource="{lab}",service="workload",state="running"'
    assert shown[f"tides_machines{{{running}}}"] == 2
    circuit = f'cause="auth",resource="{lab}",service="workload",state="open"'
    assert shown[f"tides_provider_circuit{{{circuit}}}"] == 1

    house.cloud.control.clear_faults()
    await house.run(360)
    assert (await house.cluster())["cloud"]["state"] == "closed"
    assert limits_mhz(house) == {HALF_MHZ}
    assert house.limits()[-1] == "applied"
