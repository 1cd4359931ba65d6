"""A probe: one machine on a resource that only observes, made by one of two replicas; it stays when that is lent."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from libs.boinc.signing import SigningKey
from libs.common.contracts.action import MachineDraining, MachineRequested
from libs.common.contracts.probe import ProbeMoved
from libs.common.contracts.resource import Mode
from services.workload.usecases.probing import NOBODY_HEARS
from tests.service.workload_house import House, open_house
from tests.service.workload_words import POLICY

KEY = SigningKey.generate().public
SHORT_GRACE = {"ladder": POLICY["ladder"] | {"drain_grace_s": 5}}


@pytest.fixture
async def house(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """Two replicas, and guests that have an agent."""
    monkeypatch.setenv("TIDES_BOINC_URL", "https://tides.example/boinc/")
    monkeypatch.setenv("TIDES_BOINC_SIGNING_KEY", KEY.text)
    async with open_house(database_url, replicas=2) as one:
        await one.tell(one.resource)
        yield one


async def furnish(house: House) -> None:
    await house.tell(house.template, house.contribution)
    await house.assign(**SHORT_GRACE)


async def begin(house: House, **changes: Any) -> UUID:
    probe_id = uuid4()
    until = house.clock.now() + timedelta(hours=1)
    await house.change_resource(**({"probe_id": probe_id, "probe_until": until} | changes))
    return probe_id


def told(house: House) -> list[tuple[str, str]]:
    """How far the probe was said to be, and why no further."""
    return [(event.step, event.reason) for event in house.heard(ProbeMoved)]


async def test_one_machine_is_made_and_becomes_the_first_one_that_is_lent(house: House) -> None:
    await furnish(house)
    await house.run(40)
    assert await house.states() == []
    probe_id = await begin(house)
    await house.run(80)

    assert await house.states() == ["running"]
    [requested] = house.heard(MachineRequested)
    assert (requested.probe_id, requested.reason.split(":")[0]) == (probe_id, "a probe")
    moved = house.heard(ProbeMoved)
    assert [event.step for event in moved][-2:] == ["requested", "running"]
    assert {event.machine_id for event in moved[-2:]} == {requested.machine_id}
    assert {event.probe_id for event in moved} == {probe_id}
    [machine] = await house.machines()
    assert machine["limit_mhz"] is not None  # it yields like any other

    await house.change_resource(
        mode=Mode.LEND, probe_id=None, probe_until=None, probe_outcome="passed: it works"
    )
    await house.run(60)
    assert await house.states() == ["running", "running"]
    assert (await house.machines())[0]["id"] == str(requested.machine_id)
    assert house.heard(MachineDraining) == []
    assert told(house)[-1] == ("closed", "passed: it works")
    shown = (await house.ask("GET", "/v1/events?limit=200")).body["items"]
    assert "action.probe_moved.v1" in {event["key"] for event in shown}


async def test_what_it_waits_for_is_said_and_a_failed_probe_is_taken_away(house: House) -> None:
    first = await begin(house)
    await house.run(60)
    assert told(house)[-1][0] == "waiting"
    assert "no policy" in told(house)[-1][1]
    await house.assign(**SHORT_GRACE)
    await house.tell(house.contribution)
    await house.run(60)
    assert "no approved template" in told(house)[-1][1]
    assert await house.states() == []
    await house.tell(house.template)
    await house.run(60)
    assert await house.states() == ["running"]

    # The next is not made before the first has left.
    await house.change_resource(probe_id=None, probe_until=None, probe_outcome="failed: its time is over")
    await house.run(20)
    second = await begin(house)
    assert second != first
    [draining] = house.heard(MachineDraining)
    assert "its probe is over" in draining.reason
    await house.run(120)
    assert await house.states(live=False) == ["destroyed", "running"]
    assert ("closed", "failed: its time is over") in told(house)
    await house.change_resource(probe_id=None, probe_until=None)
    await house.run(80)
    assert await house.states(live=False) == ["destroyed", "destroyed"]
    assert house.cloud.truth().machines == ()

    await begin(house)
    await house.run(80)
    await house.change_resource(
        mode=Mode.LEND, probe_id=None, probe_until=None, probe_outcome="passed: at last"
    )
    await house.run(60)
    assert await house.states() == ["running", "running"], "failed probes leave no host behind"
    hosts = {machine.host for machine in house.cloud.truth().machines}
    assert len(hosts) == 2


async def test_the_owner_comes_before_a_probe_and_a_machine_that_is_gone_ends_it(house: House) -> None:
    await furnish(house)
    house.own(0.65)
    await house.run(40)
    await begin(house)
    await house.run(40)
    assert await house.states() == []
    house.own(0.1)
    await house.run(240)
    assert await house.states() == ["running"], (await house.cluster())["reason"]
    [machine] = await house.machines()
    await house.act(f"/v1/machines/{machine['id']}/drain", {"reason": "smoke"})
    await house.run(60)
    assert await house.states() == []
    step, why = told(house)[-1]
    assert step == "ended"
    assert "smoke" in why
    assert len(house.heard(MachineRequested)) == 1


async def test_where_nobody_would_hear_of_it_a_probe_ends_at_once(database_url: str) -> None:
    async with open_house(database_url) as house:
        await house.tell(house.resource)
        await furnish(house)
        await house.run(20)
        await begin(house)
        await house.run(20)
        assert told(house) == [("ended", NOBODY_HEARS)]
        assert house.heard(MachineRequested) == []


async def test_a_decision_of_a_newer_release_makes_no_probe_and_breaks_nothing(house: House) -> None:
    await furnish(house)
    house.own(0.65)
    await house.run(40)
    await begin(house)
    await house.run(20)
    newer = "update cluster set decision = jsonb_set(decision, '{reason,code}', '\"tides_are_high\"')"
    await house.fetch(newer)
    with capture_logs() as logs:
        await house.be_silent(15)
    assert "probe.decision_not_read" in {each["event"] for each in logs}
    assert await house.states() == []
    assert told(house)[-1][0] == "waiting"
    house.own(0.1)
    await house.run(240)
    assert await house.states() == ["running"], "with a decision of its own it goes on"
