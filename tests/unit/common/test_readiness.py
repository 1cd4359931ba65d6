"""Who is asked whether a process is ready, how long, how often, and what is told."""

import asyncio
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from libs.common.bus.base import Bus, BusSeen, BusUnavailable
from libs.common.clock import SteppedClock
from libs.common.metrics import Metrics
from libs.common.readiness import Readiness
from tests.support import until

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Moody:
    """A bus that answers, refuses or hangs."""

    def __init__(self) -> None:
        self.mood, self.asked = "well", 0

    async def look(self, queues: Any = ()) -> BusSeen:
        self.asked += 1
        if self.mood == "hangs":
            await asyncio.Event().wait()
        if self.mood == "refuses":
            raise BusUnavailable("amqp://tides:hunter2@broker is away")
        return BusSeen(0)


class House:
    """A process with a bus and nothing else, in which no answer is kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("libs.common.readiness.READY_WITHIN_S", 0.05)
        monkeypatch.setattr("libs.common.readiness.KEPT_FOR_S", 0.0)
        self.bus, self.clock, self.registry = Moody(), SteppedClock(START), CollectorRegistry()
        self.ready = Readiness([], cast(Bus, self.bus), self.clock, Metrics(self.registry))

    def pass_time(self, seconds: float) -> None:
        self.clock.call_later(seconds, lambda: None)
        self.clock.advance()


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    return House(monkeypatch)


async def test_a_bus_that_is_away_or_hangs_is_missed_since_then_and_keeps_nobody_from_asking(
    house: House,
) -> None:
    house.ready.start()
    assert (await house.ready()).is_ready
    assert (await house.ready(work=True)).is_ready
    since = []
    for mood, why in (
        ("refuses", "it does not answer (BusUnavailable)"),
        ("hangs", "no answer within 0.05 s"),
    ):
        house.bus.mood = mood
        house.pass_time(60)
        report = await house.ready(work=True)
        assert (report.status, report.as_json()["missing"]) == ("not ready", [f"bus: {why}"])
        asked = house.bus.asked
        for_requests = await house.ready()
        assert (for_requests.status, for_requests.parts) == ("ready", report.parts)
        assert house.bus.asked == asked, "who answers requests does not wait for the bus"
        since.append(report.parts["bus"].since)
        assert house.registry.get_sample_value("tides_part_up", {"part": "bus"}) == 0
    assert since == [START + timedelta(seconds=60)] * 2
    house.bus.mood = "well"
    house.pass_time(60)
    assert (await house.ready(work=True)).as_json() == {
        "status": "ready",
        "version": version("tides"),
        "parts": {"bus": True},
        "since": {"bus": (START + timedelta(seconds=180)).isoformat()},
        "missing": [],
    }


async def test_before_the_start_and_from_the_order_to_stop_on_it_is_not_ready(house: House) -> None:
    assert (await house.ready()).status == "starting"
    house.ready.start()
    house.bus.mood = "hangs"
    waiting = asyncio.create_task(house.ready(work=True))
    await asyncio.sleep(0)
    house.ready.stopping.set()
    assert (await waiting).status == "stopping"
    asked = house.bus.asked
    assert (await house.ready()).status == "stopping"
    assert house.bus.asked == asked


async def test_who_asks_for_work_and_waits_keeps_no_request_waiting(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.readiness.READY_WITHIN_S", 60.0)
    house.ready.start()
    house.bus.mood = "hangs"
    waiting = asyncio.create_task(house.ready(work=True))
    await until(lambda: house.bus.asked == 1)
    assert (await house.ready()).is_ready
    assert not waiting.done()
    waiting.cancel()


async def test_many_who_ask_at_once_cost_one_question(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libs.common.readiness.KEPT_FOR_S", 60.0)
    await asyncio.gather(*(house.ready(work=True) for _ in range(50)))
    assert house.bus.asked == 1
