"""Being busy, and being woken: how loops wait, and how an accelerated run knows that nothing is left to do."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from libs.common.clock import Clock


class Activity:
    """Counts what is going on in this process. Zero means: time may move on."""

    def __init__(self) -> None:
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self) -> None:
        self._count += 1
        self._idle.clear()

    def end(self) -> None:
        self._count -= 1
        if self._count == 0:
            self._idle.set()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Counted as busy while inside."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is going on at this moment."""
        return self._count == 0

    async def idle(self) -> None:
        """Return once nothing is going on."""
        await self._idle.wait()


class Wake:
    """A signal for one waiter: setting it twice before it is taken is one wake. A hint only, it carries no data."""

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake the waiter, now or when it next waits."""
        if not self._event.is_set():
            self._activity.begin()
            self._event.set()

    async def wait(self, clock: Clock, seconds: float) -> None:
        """Wait to be woken, at most this long on the clock. The caller counts as busy again when this returns."""
        timer = clock.call_later(seconds, self.set)
        self._activity.end()
        try:
            await self._event.wait()
        except BaseException:
            if self._event.is_set():
                self._event.clear()  # who set it has counted the caller as busy already
            else:
                self._activity.begin()
            raise
        finally:
            timer.cancel()
        self._event.clear()


class Errands(Wake):
    """A wake that may come with names: whom it is about. One that is set without a name is about everybody."""

    def __init__(self, activity: Activity) -> None:
        super().__init__(activity)
        self._names: set[UUID] = set()
        self._is_everybody = True

    def set(self) -> None:
        """Wake the waiter for everybody."""
        self._is_everybody = True
        super().set()

    def name(self, name: UUID) -> None:
        """Wake the waiter for this one."""
        self._names.add(name)
        super().set()

    def take(self) -> frozenset[UUID] | None:
        """Who was named since the last time; None: everybody."""
        names = None if self._is_everybody else frozenset(self._names)
        self._is_everybody = False
        self._names.clear()
        return names
