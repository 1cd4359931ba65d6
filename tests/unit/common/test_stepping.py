"""Stepping: time moves only when nothing is left to do, and then a run repeats exactly."""

import asyncio
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import cast

from libs.common.bus.base import Bus
from libs.common.clock import SteppedClock
from libs.common.lanes import Lanes
from libs.common.stepping import settle, step_until
from libs.common.wake import Activity, Wake

START = datetime(2026, 3, 1, tzinfo=UTC)


class Town:
    """Two beats, a queue between them and a lane behind it; everything takes a few turns of the event loop."""

    def __init__(self) -> None:
        self.clock, self.activity = SteppedClock(START), Activity()
        self.lanes = Lanes(self.activity)
        self.diary: list[tuple[int, str]] = []
        self.waiting: deque[str] = deque()
        self.arrived = asyncio.Event()
        self.collected = Wake(self.activity)
        self.tasks = [
            asyncio.create_task(self._beat("collect", 20, Wake(self.activity))),
            asyncio.create_task(self._beat("judge", 30, self.collected)),
            asyncio.create_task(self._consume()),
        ]

    async def depth(self) -> int:
        """The bus's part of it."""
        await _turns(2)
        return len(self.waiting)

    @property
    def bus(self) -> Bus:
        return cast(Bus, self)

    def note(self, what: str) -> None:
        self.diary.append((round((self.clock.now() - START).total_seconds()), what))

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        await self.lanes.aclose()

    async def _beat(self, name: str, every_s: float, wake: Wake) -> None:
        with self.activity.busy():
            while True:
                await _turns(3)
                self.note(name)
                if name == "collect":
                    self.waiting.append("sample")
                    self.arrived.set()
                await wake.wait(self.clock, every_s)

    async def _consume(self) -> None:
        while True:
            await self.arrived.wait()
            self.arrived.clear()
            await _turns(5)
            with self.activity.busy():
                await _turns(4)
                self.note("handle")
                self.lanes.start("apply", self._apply)
                self.collected.set()
            self.waiting.popleft()

    async def _apply(self) -> None:
        await _turns(7)
        self.note("apply")


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _run(seconds: float) -> list[tuple[int, str]]:
    town = Town()
    stepping = step_until(town.clock, town.activity, town.bus, START + timedelta(seconds=seconds))
    await asyncio.wait_for(stepping, 10)
    assert town.activity.is_idle
    assert not town.waiting
    await town.close()
    return town.diary


async def test_a_run_repeats_exactly() -> None:
    first = await _run(300)
    assert first == await _run(300)
    assert first[-1][0] == 300
    assert [at for at, what in first if what == "collect"] == list(range(0, 301, 20))


async def test_what_a_moment_causes_is_done_before_the_next() -> None:
    diary = await _run(100)
    for at in range(0, 100, 20):
        caused = [what for when, what in diary if when == at]
        assert sorted(set(caused)) == ["apply", "collect", "handle", "judge"], (at, caused)
        assert caused.index("collect") < caused.index("handle") < len(caused) - caused[::-1].index("judge")


async def test_time_stops_before_what_is_due_later() -> None:
    town = Town()
    await step_until(town.clock, town.activity, town.bus, START + timedelta(seconds=59))
    assert town.clock.now() <= START + timedelta(seconds=59)
    due = town.clock.next_due()
    assert due is not None
    assert due > START + timedelta(seconds=59)
    await town.close()


async def test_settling_waits_for_the_queue_and_for_work() -> None:
    class Slow:
        """A bus with something in it."""

        left = 1

        async def depth(self) -> int:
            return self.left

    bus, activity = Slow(), Activity()
    activity.begin()
    settling = asyncio.create_task(settle(activity, cast(Bus, bus)))
    await asyncio.sleep(0.01)
    assert not settling.done()
    activity.end()
    await asyncio.sleep(0.01)
    assert not settling.done(), "the queue is not empty"
    bus.left = 0
    await asyncio.wait_for(settling, 1)


async def test_work_that_begins_while_the_queue_is_counted_is_waited_for() -> None:
    activity = Activity()

    class Sly:
        """Its last message is taken in the very moment of counting."""

        async def depth(self) -> int:
            if not counted:
                counted.append(True)
                activity.begin()
            return 0

    counted: list[bool] = []
    settling = asyncio.create_task(settle(activity, cast(Bus, Sly())))
    await asyncio.sleep(0.02)
    assert not settling.done()
    activity.end()
    await asyncio.wait_for(settling, 1)


async def test_a_clock_on_which_nobody_waits_does_not_move() -> None:
    town = Town()
    await town.close()
    town.waiting.clear()
    await step_until(town.clock, town.activity, town.bus, START + timedelta(days=1))
    assert town.clock.now() == START
