"""Lanes: work that must not queue behind other work runs in a task of its own, one at a time per lane."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable

import structlog

from libs.common.wake import Activity

log = structlog.get_logger(__name__)


class Lanes:
    """At most one task per lane; starting a busy lane is a no-op, the next beat starts it again."""

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self._running: dict[Hashable, asyncio.Task[None]] = {}

    def start(self, lane: Hashable, work: Callable[[], Awaitable[None]]) -> bool:
        """Run the work in its lane; False when the lane is still busy."""
        if lane in self._running:
            return False
        self._activity.begin()
        task = self._running[lane] = asyncio.create_task(_run(lane, work))
        # Not the task's own doing: one that is cancelled before it began runs no line.
        task.add_done_callback(lambda _: self._free(lane))
        return True

    def _free(self, lane: Hashable) -> None:
        del self._running[lane]
        self._activity.end()

    async def aclose(self) -> None:
        """Cancel what is running and wait for it."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run(lane: Hashable, work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except Exception:
        log.exception("lane.failed", lane=str(lane))
