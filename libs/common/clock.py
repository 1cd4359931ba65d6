"""The only place that reads a clock. Everything else is given one.

Three clocks exist in Tides (architecture §4): leases use the database's, dwell and windows use sample time, and
this one paces beats and stamps receipt.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Timer(Protocol):
    """A pending call."""

    def cancel(self) -> None:
        """Forget the call; harmless when it has already been made."""


class Clock(Protocol):
    """Time as a dependency."""

    def now(self) -> datetime:
        """The present, aware, in UTC."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back on the event loop after this long on this clock."""

    async def sleep(self, seconds: float) -> None:
        """Wait for this long on this clock."""


class WallClock:
    """Real time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(max(0.0, seconds), callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


class ScaledClock:
    """Real time, `speed` times as fast, beginning at `start`."""

    def __init__(self, speed: float, start: datetime | None = None) -> None:
        self._speed = speed
        self._start = start or datetime.now(UTC)
        self._origin = time.monotonic()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=(time.monotonic() - self._origin) * self._speed)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(max(0.0, seconds) / self._speed, callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds) / self._speed)


@dataclass(order=True, slots=True)
class _Call:
    due: datetime
    order: int
    callback: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        self.callback = None


class SteppedClock:
    """Time that stands still until somebody moves it, so that accelerated runs repeat exactly.

    Calls are made in order of their time, and of their arrival where times are equal.
    """

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._order = itertools.count()
        self._calls: list[_Call] = []

    def now(self) -> datetime:
        return self._now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        call = _Call(self._now + timedelta(seconds=max(0.0, seconds)), next(self._order), callback)
        heapq.heappush(self._calls, call)
        return call

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        timer = self.call_later(seconds, woken.set)
        try:
            await woken.wait()
        finally:
            timer.cancel()

    def next_due(self) -> datetime | None:
        """When the earliest call is due; None when nothing is waiting."""
        while self._calls and self._calls[0].callback is None:
            heapq.heappop(self._calls)
        return self._calls[0].due if self._calls else None

    def advance(self) -> bool:
        """Move to the earliest due time and make every call due at it. False when nothing is waiting."""
        due = self.next_due()
        if due is None:
            return False
        self._now = max(self._now, due)
        while self._calls and self._calls[0].due <= self._now:
            callback = heapq.heappop(self._calls).callback
            if callback is not None:
                callback()
        return True


def seconds_of(clock: Clock) -> Callable[[], float]:
    """Seconds that only go on: real ones, but where time is stepped the clock's, so that its runs repeat exactly."""
    return (lambda: clock.now().timestamp()) if isinstance(clock, SteppedClock) else time.monotonic
