"""How guests do, as others are told: what has held for long enough, once, with its reason."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from libs.common.contracts.action import MachineDeployed, MachineDraining
from libs.common.contracts.supply import GuestHealthChanged
from services.contribution.domain import ABSENT_AFTER, DWELL, HEARTBEAT_S, SILENT_AFTER, Health
from services.contribution.reconcile.watching import watch_guests
from tests.service.guest_house import MACHINES, SECRET, House, guest_house

WORKS: dict[str, Any] = {"tasks": [{"executing": True}]}


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with guest_house(database_url, boinc_url="https://tides.example/boinc/") as one:
        await one.say(MachineDeployed)
        yield one


async def told(house: House) -> list[tuple[str | None, str, str]]:
    """What was said so far: before, health and why."""
    await house.lone.settle()
    said = [event for event in house.lone.said if isinstance(event, GuestHealthChanged)]
    assert {event.machine_id for event in said} <= set(MACHINES)
    return [(event.before, event.health, event.why) for event in said]


async def watch(house: House, *, expects_agent: bool = True) -> None:
    """The beat."""
    database = house.lone.run.services[0].database
    await watch_guests(database, house.clock, expects_agent=expects_agent)


async def keep_telling(house: House, lasts: timedelta, **body: Any) -> None:
    """The same at every heartbeat for so long."""
    for _ in range(int(lasts.total_seconds() / HEARTBEAT_S) + 1):
        assert (await house.beat(**body)).status == 200
        house.clock.at += timedelta(seconds=HEARTBEAT_S)


async def test_what_is_good_is_said_at_once_and_what_is_bad_when_it_has_held(house: House) -> None:
    await house.enrol("token-0")
    await house.beat(**WORKS)
    for _ in range(3):  # a blink every other minute is nothing
        await keep_telling(house, DWELL[Health.BROKEN] - timedelta(minutes=2), boinc_error="away")
        await house.beat(**WORKS)
    assert await told(house) == [(None, "enrolled", ""), ("enrolled", "working", "")]

    await keep_telling(house, DWELL[Health.BROKEN], boinc_error="no answer")
    await keep_telling(house, DWELL[Health.BROKEN], boinc_error="no answer")
    await house.beat(**WORKS)
    assert (await told(house))[2:] == [("working", "broken", "no answer"), ("broken", "working", "")]
    [seen] = [
        item
        for item in (await house.lone.ask("GET", "/v1/guests")).body["items"]
        if item["machine_id"] == str(MACHINES[0])
    ]
    assert (seen["health"], seen["told"], seen["told_why"]) == ("working", "working", None)


async def test_a_starved_machine_says_why(house: House) -> None:
    await house.enrol("token-0")
    await keep_telling(house, DWELL[Health.STARVED], tasks=[])
    assert (await told(house))[1:] == [
        ("enrolled", "starved", "its BOINC client has never come to its account manager")
    ]
    await keep_telling(house, timedelta(minutes=1), task_count=3)  # none of them runs at this moment
    assert (await told(house))[2:] == [("starved", "working", "")]


async def test_silence_is_noticed_by_the_watch_once_and_not_one_lost_heartbeat(house: House) -> None:
    await house.enrol("token-0")
    await house.beat(**WORKS)
    house.clock.at += SILENT_AFTER - timedelta(seconds=1)
    await watch(house)
    assert len(await told(house)) == 2
    house.clock.at += timedelta(seconds=2)
    await watch(house)
    assert len(await told(house)) == 2  # it has not held yet
    house.clock.at += DWELL[Health.SILENT]
    for _ in range(3):
        await watch(house)
    assert (await told(house))[2:] == [("working", "silent", "its agent was last heard of 10 min ago")]
    await house.beat(**WORKS)
    assert (await told(house))[3:] == [("silent", "working", "")]


async def test_a_machine_whose_agent_never_came_is_absent_only_where_agents_are_given(
    database_url: str,
) -> None:
    async with guest_house(database_url) as house:
        await house.say(MachineDeployed)
        house.clock.at += ABSENT_AFTER + timedelta(seconds=1)
        await watch(house, expects_agent=False)
        assert await told(house) == []
        await watch(house)
        await watch(house)
        why = "it has run for 30 min and its agent has not enrolled"
        assert await told(house) == [(None, "absent", why)]
        await house.enrol("token-0")
        assert (await told(house))[1:] == [("absent", "enrolled", "")]


async def test_of_a_machine_that_is_to_go_nothing_is_said(house: House) -> None:
    await house.enrol("token-0")
    await house.say(MachineDraining, grace_s=60)
    await keep_telling(house, DWELL[Health.BROKEN], boinc_error="away")
    house.clock.at += timedelta(hours=1)
    await watch(house)
    assert await told(house) == [(None, "enrolled", "")]


async def test_another_machines_silence_is_its_own(house: House) -> None:
    await house.say(MachineDeployed, MACHINES[1])
    await house.enrol("token-0")
    await house.enrol("token-1", SECRET + "-other")
    await house.beat(**WORKS)
    house.clock.at += SILENT_AFTER + timedelta(seconds=1)
    await watch(house)
    house.clock.at += DWELL[Health.SILENT]
    await house.beat(**WORKS)
    await watch(house)
    await house.lone.settle()
    said = [event for event in house.lone.said if isinstance(event, GuestHealthChanged)]
    assert [event.machine_id for event in said if event.health == "silent"] == [MACHINES[1]]
