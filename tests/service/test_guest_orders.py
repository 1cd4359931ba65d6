"""What guests are told besides their drain: wished for by a person or workload, fetched, acknowledged, over in time."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from libs.common.auth import Role
from libs.common.contracts.action import GuestsThrottled, MachineDeployed, MachineDestroyed, MachineRequested
from libs.common.contracts.supply import GuestHealthChanged
from services.contribution.models import EarlyCap, GuestOrder
from services.contribution.usecases.lending import learn_machine
from services.contribution.usecases.ordering import AGAIN_AFTER, STOP_FETCHED_WITHIN, cap
from tests.service.guest_house import MACHINES, House, guest_house
from tests.service.lone_service import THEIRS, Answer
from tests.support import until

FIRST = MACHINES[0]


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with guest_house(database_url) as one:
        await one.say(MachineDeployed)
        await one.enrol("token-0")
        yield one


async def order(house: House, what: str, body: dict[str, Any], **more: Any) -> Answer:
    machine_id = more.pop("machine_id", FIRST)
    return await house.lone.ask("POST", f"/v1/guests/{machine_id}/{what}", body, **more)


async def commands(house: House, **outcomes: Any) -> list[dict[str, Any]]:
    """What one heartbeat fetches; it tells these outcomes, names with `_` for `-`."""
    told = {name.replace("_", "-"): outcome for name, outcome in outcomes.items()}
    found: list[dict[str, Any]] = (await house.beat(outcomes=told)).body["commands"]
    return found


async def seen(house: House) -> dict[str, Any]:
    items = (await house.lone.ask("GET", "/v1/guests")).body["items"]
    found: dict[str, Any] = next(item for item in items if item["machine_id"] == str(FIRST))["orders"]
    return found


async def test_a_throttle_is_fetched_until_it_is_acknowledged_and_lifted_when_its_time_is_over(
    house: House,
) -> None:
    asked = await order(house, "throttle", {"percent": 35, "for_s": 600, "reason": "fans"})
    assert asked.status == 202
    wanted = {"id": "throttle-35-0", "do": "throttle", "percent": 35.0}
    assert await commands(house) == [wanted]
    assert await commands(house) == [wanted]
    assert (await seen(house))["applied_percent"] is None
    for _ in range(2):  # the answer to the outcome was lost
        assert await commands(house, throttle_35_0={"done": True}) == []
    order_ = await seen(house)
    assert (order_["applied_percent"], order_["throttle_by"], order_["throttle_reason"]) == (
        35.0, "someone", "fans",
    )  # fmt: skip

    house.clock.at += timedelta(seconds=599)
    assert await commands(house) == []
    house.clock.at += timedelta(seconds=2)
    assert await commands(house) == [{"id": "throttle-100-1", "do": "throttle", "percent": 100.0}]
    assert await commands(house, throttle_100_1={"done": True}) == []
    assert (await seen(house))["applied_percent"] == 100.0


async def test_what_was_obeyed_is_undone_though_something_else_was_wished_meanwhile(house: House) -> None:
    await order(house, "throttle", {"percent": 0, "reason": "noise"})
    assert [each["percent"] for each in await commands(house)] == [0.0]
    await order(house, "throttle", {"percent": 100, "reason": "it is over"})
    assert await commands(house, throttle_0_0={"done": True}) == [
        {"id": "throttle-100-1", "do": "throttle", "percent": 100.0}
    ]


async def test_a_throttle_that_nobody_fetched_in_time_is_void(house: House) -> None:
    await order(house, "throttle", {"percent": 35, "for_s": 60, "reason": "fans"})
    house.clock.at += timedelta(seconds=61)
    assert await commands(house) == []


async def test_what_a_guest_could_not_do_is_told_again_a_minute_later(house: House) -> None:
    await order(house, "throttle", {"percent": 50, "reason": "fans"})
    await commands(house)
    assert await commands(house, throttle_50_0={"error": "BOINC is not there\n"}) == []
    assert (await seen(house))["error"] == "BOINC is not there"
    house.clock.at += AGAIN_AFTER
    assert [each["id"] for each in await commands(house)] == ["throttle-50-1"]
    assert await commands(house, throttle_50_1={"done": True}) == []
    assert (await seen(house))["error"] is None


def capped(house: House, percent: float, *, late: timedelta = timedelta(0)) -> GuestsThrottled:
    return GuestsThrottled(
        at=house.clock.at - late, resource_id=uuid4(), cluster_id=uuid4(), percent={FIRST: percent, uuid4(): 1.0},
        reason="the owner needs it",
    )  # fmt: skip


async def test_workloads_cap_holds_without_end_and_a_person_can_only_ask_for_less(house: House) -> None:
    await house.lone.tell(capped(house, 20.0))
    await house.lone.tell(capped(house, 90.0, late=timedelta(seconds=1)))  # an old word
    assert [each["percent"] for each in await commands(house)] == [20.0]
    await commands(house, throttle_20_0={"done": True})
    await order(house, "throttle", {"percent": 80, "reason": "more, please"})
    assert await commands(house) == []
    await order(house, "throttle", {"percent": 5, "for_s": 60, "reason": "less"})
    assert [each["percent"] for each in await commands(house)] == [5.0]
    await commands(house, throttle_5_1={"done": True})
    house.clock.at += timedelta(days=30)
    assert [each["percent"] for each in await commands(house)] == [20.0]


async def test_a_stop_is_acknowledged_and_makes_its_machine_be_given_up(house: House) -> None:
    await order(house, "stop", {"reason": "smoke"})
    [command] = await commands(house)
    assert command["do"] == "stop"
    for _ in range(2):
        assert (await house.beat(outcomes={command["id"]: {"done": True}})).body["commands"] == []
    await house.lone.settle()
    said = [event for event in house.lone.said if isinstance(event, GuestHealthChanged)]
    assert [event.why for event in said if event.health == "stopped"] == [
        "its guest was stopped by someone: smoke"
    ]

    await order(house, "stop", {"reason": "again"})
    house.clock.at += STOP_FETCHED_WITHIN
    assert await commands(house) == []  # nobody fetched it in time


@pytest.mark.parametrize(
    ("what", "body", "field"),
    [
        ("throttle", {"percent": 101, "reason": "x"}, "percent"),
        ("throttle", {"percent": -1, "reason": "x"}, "percent"),
        ("throttle", {"percent": 50}, "reason"),
        ("throttle", {"percent": 50, "reason": "x\n"}, "reason"),
        ("throttle", {"percent": 50, "reason": "x", "for_s": 1}, "for_s"),
        ("stop", {"reason": ""}, "reason"),
    ],
)
async def test_an_order_that_makes_no_sense_names_its_field(
    house: House, what: str, body: dict[str, Any], field: str
) -> None:
    answer = await order(house, what, body)
    assert (answer.status, answer.field) == (422, field)


async def test_only_guests_that_would_hear_of_it_and_are_ones_own_take_orders(house: House) -> None:
    body = {"reason": "x"}
    assert (await order(house, "stop", body, machine_id=UUID(int=1))).status == 404
    assert (await order(house, "stop", body, organisation=THEIRS)).status == 404
    assert (await order(house, "stop", body, role=Role.VIEWER)).status == 403
    assert (await order(house, "stop", body, machine_id=MACHINES[1])).status == 409  # never enrolled
    await house.say(MachineDestroyed)
    assert (await order(house, "throttle", {"percent": 1, **body})).status == 409


async def test_what_workload_allows_a_guest_holds_also_where_it_is_heard_before_the_machine(
    house: House,
) -> None:
    early, token = uuid4(), "token-early"
    for percent in (40.0, 30.0):
        await house.lone.tell(
            GuestsThrottled(
                at=house.clock.now(), percent={early: percent}, resource_id=uuid4(), cluster_id=uuid4(), reason="owner"
            )
        )  # fmt: skip
        house.clock.at += timedelta(seconds=1)
    await house.say(MachineRequested, early, guest_token_sha256=sha256(token.encode()).hexdigest())
    await house.enrol(token, "another-secret-0123456789-0123456789")

    told = await house.beat("another-secret-0123456789-0123456789")
    assert [(each["do"], each["percent"]) for each in told.body["commands"]] == [("throttle", 30.0)]


@pytest.mark.parametrize("is_capped_first", [True, False])
async def test_a_cap_and_the_last_word_of_a_machine_that_are_heard_at_once_do_not_miss_each_other(
    house: House, is_capped_first: bool
) -> None:
    """After an outage all of it waits: neither sees the other's rows, and nothing more is said of either."""
    early, database = uuid4(), house.lone.run.services[0].database
    said = GuestsThrottled(
        at=house.clock.now(), percent={early: 30.0}, resource_id=uuid4(), cluster_id=uuid4(), reason="owner"
    )
    acts = [partial(cap, event=said), partial(learn_machine, event=house.fact(MachineDeployed, early))]
    first, second = acts if is_capped_first else reversed(acts)

    async def hear_second() -> None:
        async with database.transaction() as session:
            await second(session)

    async def is_met() -> bool:
        mine = "database = (select oid from pg_database where datname = current_database())"
        async with database.transaction() as session:
            waits = await session.scalar(text(f"select count(*) from pg_locks where not granted and {mine}"))
        return hearing.done() or bool(waits)

    async with database.transaction() as session:
        await first(session)
        hearing = asyncio.create_task(hear_second())
        await until(is_met, what="the second to wait, or not to")
    await hearing

    async with database.transaction() as session:
        assert await session.scalar(select(GuestOrder.cap_percent).filter_by(machine_id=early)) == 30.0
        assert (await session.scalars(select(EarlyCap.machine_id).filter_by(machine_id=early))).all() == []
