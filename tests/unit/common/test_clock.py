"""Clocks: the stepped one makes its calls in order and only when it is told to; the others keep real time."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.clock import Clock, ScaledClock, SteppedClock, Timer, WallClock, seconds_of

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def _at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_time_stands_still_until_it_is_moved() -> None:
    clock = SteppedClock(START)
    clock.call_later(5, lambda: None)
    assert (clock.now(), clock.next_due()) == (START, _at(5))
    assert clock.advance()
    assert (clock.now(), clock.next_due()) == (_at(5), None)
    assert not clock.advance()
    assert clock.now() == _at(5)


def test_calls_are_made_in_order_of_time_and_then_of_arrival() -> None:
    clock, made = SteppedClock(START), list[str]()
    for name, seconds in {"c": 2, "a": 1, "d": 2, "b": 1, "now": -1}.items():
        clock.call_later(seconds, lambda name=name: made.append(name))  # type: ignore[misc]
    clock.advance()
    assert (made, clock.now()) == (["now"], START)
    clock.advance()
    assert (made, clock.now()) == (["now", "a", "b"], _at(1))
    clock.advance()
    assert made == ["now", "a", "b", "c", "d"]


def test_a_call_made_at_a_call_runs_in_the_same_step_when_it_is_due() -> None:
    clock, made = SteppedClock(START), list[datetime]()

    def call_again() -> None:
        clock.call_later(0, lambda: made.append(clock.now()))

    clock.call_later(1, call_again)
    clock.advance()
    assert made == [_at(1)]


def test_a_cancelled_call_is_never_made_and_nothing_waits_for_it() -> None:
    clock, made = SteppedClock(START), list[int]()
    timer = clock.call_later(1, lambda: made.append(1))
    clock.call_later(2, lambda: made.append(2))
    timer.cancel()
    assert clock.next_due() == _at(2)
    clock.advance()
    timer.cancel()
    assert made == [2]


def test_a_call_may_cancel_another_of_the_same_moment() -> None:
    clock, made = SteppedClock(START), list[int]()
    timers = list[Timer]()

    def cancel_all() -> None:
        for timer in timers:
            timer.cancel()

    clock.call_later(1, cancel_all)
    timers.append(clock.call_later(1, lambda: made.append(1)))
    clock.advance()
    assert (made, clock.next_due()) == ([], None)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.booleans()), max_size=30))
def test_every_living_call_is_made_once_and_in_order(calls: list[tuple[float, bool]]) -> None:
    clock, made = SteppedClock(START), list[tuple[float, int]]()
    for number, (seconds, living) in enumerate(calls):
        timer = clock.call_later(seconds, lambda call=(seconds, number): made.append(call))  # type: ignore[misc]
        if not living:
            timer.cancel()
    while clock.advance():
        pass
    # A microsecond is as fine as time gets here.
    expected = [(seconds, number) for number, (seconds, living) in enumerate(calls) if living]
    assert made == sorted(expected, key=lambda call: (timedelta(seconds=call[0]), call[1]))


async def test_sleepers_on_a_stepped_clock_wake_when_time_is_moved() -> None:
    clock = SteppedClock(START)
    sleeper = asyncio.create_task(clock.sleep(60))
    await asyncio.sleep(0)
    assert (clock.next_due(), sleeper.done()) == (_at(60), False)
    clock.advance()
    await sleeper


async def test_a_sleeper_that_is_cancelled_leaves_no_timer() -> None:
    clock = SteppedClock(START)
    sleeper = asyncio.create_task(clock.sleep(60))
    await asyncio.sleep(0)
    sleeper.cancel()
    await asyncio.wait([sleeper])
    assert clock.next_due() is None


async def test_a_scaled_clock_runs_as_fast_as_it_says() -> None:
    loop = asyncio.get_running_loop()
    clock, begun_at = ScaledClock(3600, START), loop.time()
    called = asyncio.Event()
    clock.call_later(60, called.set)
    await clock.sleep(60)
    await called.wait()
    took_s = loop.time() - begun_at
    assert 60 / 3600 <= took_s < 1
    assert timedelta(seconds=60) <= clock.now() - START < timedelta(seconds=3600)


@pytest.mark.parametrize("make", [WallClock, lambda: ScaledClock(10)], ids=["wall", "scaled"])
async def test_real_clocks_are_aware_and_take_a_negative_delay_for_none(make: Callable[[], Clock]) -> None:
    clock = make()
    assert clock.now().utcoffset() == timedelta(0)
    assert abs(clock.now() - datetime.fromtimestamp(_wall_s(), UTC)) < timedelta(minutes=1)
    called = asyncio.Event()
    clock.call_later(-5, called.set)
    await asyncio.wait_for(called.wait(), 1)
    await asyncio.wait_for(clock.sleep(-5), 1)
    timer = clock.call_later(0, pytest.fail)
    timer.cancel()
    await clock.sleep(0)


def _wall_s() -> float:
    import time

    return time.clock_gettime(time.CLOCK_REALTIME)


def test_seconds_are_the_clocks_own_only_where_it_is_stepped() -> None:
    stepped = SteppedClock(START)
    stepped.call_later(5, lambda: None)
    seconds = seconds_of(stepped)
    before = seconds()
    stepped.advance()
    assert seconds() - before == 5
    assert seconds_of(WallClock()) is seconds_of(ScaledClock(60.0)), "a wall clock may be set back"
