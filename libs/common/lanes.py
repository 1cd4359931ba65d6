"""Lanes: work that must not queue behind other work runs in a task of its own, one at a time per lane."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import structlog

from libs.common.metrics import Metrics
from libs.common.wake import Activity

log = structlog.get_logger(__name__)

REASON_LENGTH = 500
_ABOUT = "__tides_about__"


@contextmanager
def speaking_of(**facts: object) -> Iterator[None]:
    """What the block is about (machine, cluster ...): an error that leaves it takes these facts to the log."""
    try:
        yield
    except Exception as error:
        with suppress(AttributeError, TypeError):  # an error without room for attributes goes on without
            setattr(error, _ABOUT, {**facts, **getattr(error, _ABOUT, {})})
        raise


class Lanes:
    """At most one task per lane; starting a busy lane is a no-op, the next beat starts it again."""

    def __init__(self, activity: Activity, metrics: Metrics | None = None) -> None:
        self._activity = activity
        self._metrics = metrics
        self._running: dict[Hashable, asyncio.Task[None]] = {}

    def start(
        self, lane: Hashable, work: Callable[[], Awaitable[None]], *, kind: str = "work", **about: object
    ) -> bool:
        """Run the work in its lane; False when the lane is still busy.

        Where it fails, the log and the count name its `kind` (one of a few words), the log also what it is `about`.
        """
        if lane in self._running:
            return False
        self._activity.begin()
        task = self._running[lane] = asyncio.create_task(self._run(work, kind, about))
        # Not the task's own doing: one that is cancelled before it began runs no line.
        task.add_done_callback(lambda _: self._free(lane))
        return True

    @property
    def busy(self) -> frozenset[Hashable]:
        """The lanes in which something runs."""
        return frozenset(self._running)

    def _free(self, lane: Hashable) -> None:
        del self._running[lane]
        self._activity.end()

    async def aclose(self) -> None:
        """Cancel what is running and wait for it."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, work: Callable[[], Awaitable[None]], kind: str, about: Mapping[str, Any]) -> None:
        try:
            await work()
        except Exception as error:
            if self._metrics is not None:
                self._metrics.lane_failed(kind)
            reason = f"{type(error).__name__}: {error}"[:REASON_LENGTH]
            facts = {**about, **getattr(error, _ABOUT, {}), "lane": kind, "reason": reason}
            log.exception("lane.failed", **facts)
