"""How many questions are asked of one server at once: few, and fewer while it is slow."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

MOST = 4
SLOW, CALM = 0.5, 0.25
"""Shares of its interval above which a round is slow, and below which it is calm."""
_CALM_ROUNDS = 3
T = TypeVar("T")


class Pace:
    """At most four at once; half as many after a slow round, twice as many again after three calm ones."""

    def __init__(self) -> None:
        self.width = MOST
        self._calm = 0

    def note(self, round_s: float, interval_s: float) -> None:
        """A round took so long, of an interval so long."""
        if round_s > interval_s * SLOW:
            self.width, self._calm = max(1, self.width // 2), 0
        elif round_s < interval_s * CALM and self.width < MOST:
            self._calm += 1
            if self._calm >= _CALM_ROUNDS:
                self.width, self._calm = min(MOST, self.width * 2), 0

    async def run(self, jobs: Sequence[Callable[[int], Awaitable[T]]]) -> list[T]:
        """Results in the order of the jobs. Each is given the number of its lane; the first failure ends all."""
        results: dict[int, T] = {}
        waiting = iter(enumerate(jobs))
        lanes = [
            asyncio.create_task(_work(lane, waiting, results)) for lane in range(min(self.width, len(jobs)))
        ]
        try:
            await asyncio.gather(*lanes)
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        return [results[number] for number in range(len(jobs))]


async def _work(
    lane: int, waiting: Iterator[tuple[int, Callable[[int], Awaitable[T]]]], results: dict[int, T]
) -> None:
    for number, job in waiting:
        results[number] = await job(lane)
