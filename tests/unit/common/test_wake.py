"""Activity and wakes: busy until nothing is pending, and a wake set twice is one."""

import asyncio
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.clock import SteppedClock
from libs.common.wake import Activity, Errands, Wake

START = datetime(2026, 3, 1, tzinfo=UTC)


class Waiter:
    """A beat: busy while it works, not while it waits."""

    def __init__(self, activity: Activity, wake: Wake, clock: SteppedClock) -> None:
        self.beats = 0
        self._activity, self._wake, self._clock = activity, wake, clock

    async def run(self, every_s: float = 60) -> None:
        with self._activity.busy():
            while True:
                self.beats += 1
                await self._wake.wait(self._clock, every_s)


class World:
    """One waiter on a stepped clock."""

    def __init__(self) -> None:
        self.clock, self.activity = SteppedClock(START), Activity()
        self.wake = Wake(self.activity)
        self.waiter = Waiter(self.activity, self.wake, self.clock)
        self.task = asyncio.create_task(self.waiter.run())

    async def idle(self) -> int:
        """Beats so far, once nothing goes on."""
        if not self.waiter.beats:
            await asyncio.sleep(0)
        await asyncio.wait_for(self.activity.idle(), 5)
        return self.waiter.beats

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def test_work_in_work_is_busy_until_the_last_ends() -> None:
    activity = Activity()
    assert activity.is_idle
    with pytest.raises(ValueError, match="inner"), activity.busy():  # noqa: PT012 - what is within is the point
        with activity.busy():
            assert not activity.is_idle
        assert not activity.is_idle
        raise ValueError("inner")
    assert activity.is_idle
    await asyncio.wait_for(activity.idle(), 1)


async def test_whoever_waits_for_idleness_goes_on_when_work_ends() -> None:
    activity = Activity()
    activity.begin()
    waiting = asyncio.create_task(activity.idle())
    await asyncio.sleep(0)
    assert not waiting.done()
    activity.end()
    await asyncio.wait_for(waiting, 1)


async def test_a_beat_waits_idle_and_beats_when_its_time_comes() -> None:
    world = World()
    assert await world.idle() == 1
    assert world.clock.next_due() is not None
    world.clock.advance()
    assert not world.activity.is_idle
    assert await world.idle() == 2
    await world.end()


async def test_a_wake_set_twice_is_one() -> None:
    world = World()
    await world.idle()
    world.wake.set()
    world.wake.set()
    assert not world.activity.is_idle
    assert await world.idle() == 2
    await world.end()


async def test_a_wake_set_while_the_beat_works_is_taken_next() -> None:
    world = World()
    world.wake.set()
    assert world.waiter.beats == 0
    assert await world.idle() == 2
    await world.end()


async def test_a_woken_beat_leaves_no_timer_behind() -> None:
    world = World()
    await world.idle()
    for _ in range(3):
        world.wake.set()
        await world.idle()
    world.clock.advance()
    assert (await world.idle(), world.clock.now().minute) == (5, 1)
    await world.end()
    assert world.clock.next_due() is None
    assert world.activity.is_idle


async def test_a_waiter_that_is_cancelled_takes_its_wake_with_it() -> None:
    world = World()
    await world.idle()
    world.wake.set()
    await world.end()
    assert (world.waiter.beats, world.activity.is_idle) == (1, True)
    next_one = asyncio.create_task(world.waiter.run())
    await asyncio.sleep(0)
    assert await world.idle() == 2, "a wake is a hint; whoever comes later looks anyway"
    next_one.cancel()
    await asyncio.wait([next_one])
    assert world.activity.is_idle


@given(st.lists(st.sampled_from(["set", "step", "rest"]), max_size=25))
def test_idle_exactly_when_nothing_is_pending(steps: list[Literal["set", "step", "rest"]]) -> None:
    async def story() -> None:
        world = World()
        beats, pending = await world.idle(), False
        for step in steps:
            if step == "rest":
                beats, pending = beats + pending, False
                assert await world.idle() == beats
                continue
            pending = True
            if step == "set":
                world.wake.set()
            else:
                world.clock.advance()
            assert not world.activity.is_idle
        assert await world.idle() == beats + pending
        await world.end()
        assert world.activity.is_idle

    asyncio.run(story())


def test_an_errand_says_for_whom_it_is_and_one_without_a_name_is_for_all() -> None:
    activity = Activity()
    errands, one, other = Errands(activity), uuid4(), uuid4()
    assert errands.take() is None, "who begins looks at everybody"

    errands.name(one)
    errands.name(other)
    assert not activity.is_idle
    assert errands.take() == frozenset({one, other})
    assert errands.take() == frozenset()

    errands.name(one)
    errands.set()
    assert errands.take() is None
    assert errands.take() == frozenset()
