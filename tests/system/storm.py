"""Weather by seed: whatever an installation stands on dies, hangs, lies or loses its place in time.

Two streams of blows cross each other: processes die, and everything else goes wrong. Both are planned beforehand from
the seed alone, so a storm that broke something blows again.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from services.cli.chaos.blows import Hand, Weather, deal, plan
from tests.system.gusts import BLOWS
from tests.system.house import House
from tests.system.processes import Process

GAP_S = 10.0
"""Mean time from one blow to the next, in each of the two streams."""
STARTS = 5
DOWN_S = 4.0
"""Mean time that what was taken away stays away."""


@dataclass(frozen=True, slots=True)
class Gust:
    """Something other than a process fails."""

    at_s: float
    what: str
    """A name of BLOWS."""
    pause_s: float
    """How long it stays so."""
    seed: int
    """Of whatever else chance decides."""


def forecast(seconds: float, seed: int) -> list[Gust]:
    """Every gust beforehand, the same for the same seed; none comes again before each has come."""
    chance = random.Random(f"gusts of {seed}")
    turns, found = deal(sorted(BLOWS), chance), []
    at_s = chance.expovariate(1 / GAP_S)
    while at_s < seconds:
        pause_s = min(15.0, chance.expovariate(1 / DOWN_S))
        found.append(Gust(at_s, next(turns), pause_s, chance.randrange(2**32)))
        at_s += chance.expovariate(1 / GAP_S)
    return found


@dataclass(frozen=True)
class Supervised:
    """A process that is started again where it gave up waiting for its servers, as systemd or Compose would."""

    process: Process
    count: Counter[str]

    async def kill(self) -> None:
        """By force."""
        await self.process.kill()

    async def stop(self) -> None:
        """In order."""
        await self.process.stop()

    async def start(self) -> None:
        """Until it is ready. It may end for no other reason than a server that cannot be reached."""
        for _ in range(STARTS):
            with suppress(AssertionError):
                return await self.process.start()
            last = self.process.tail().strip().splitlines()[-1]
            assert not self.process.is_running, f"{self.process.name} is not ready: {last}"
            assert last.startswith("tides: "), f"{self.process.name} ended: {self.process.tail()}"
            self.count["gave up starting"] += 1
        raise AssertionError(f"{self.process.name} did not start {STARTS} times")


@dataclass
class Storm:
    """What happens to a house."""

    house: House
    seed: int
    fraction: float = 0.3
    """Of the processes, so many die at a time."""
    count: Counter[str] = field(default_factory=Counter)
    said: Callable[[str], None] = lambda line: None
    """Is told of every blow when it falls."""

    def __post_init__(self) -> None:
        self.unhurt = set(self.house.installed.deployment.processes)
        """Processes that have not died yet."""
        self._locks = {subject: asyncio.Lock() for subject, _ in BLOWS.values()}
        processes = self.house.installed.deployment.processes
        self._hand = Hand({name: Supervised(each, self.count) for name, each in processes.items()})

    async def rage(self, seconds: float) -> None:
        """For so long; at the end everything is up and well again, if it can be."""
        weather = Weather(GAP_S, self.fraction, away_s=DOWN_S)
        blows = plan(list(self._hand.victims), weather, seconds, self.seed)
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.TaskGroup() as group:
                for blow in blows:
                    names = ", ".join(fall.name for fall in blow.falls)
                    self.unhurt -= {fall.name for fall in blow.falls}
                    group.create_task(self._at(began + blow.at_s, names, partial(self._hand.deal, blow)))
                for gust in forecast(seconds, self.seed):
                    group.create_task(self._at(began + gust.at_s, gust.what, partial(self._blow, gust)))
        finally:
            self.count += self._hand.count
            self.house.calm()

    async def _at(self, when: float, what: str, happen: Callable[[], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(when - loop.time())
        self.said(what)
        await happen()

    async def _blow(self, gust: Gust) -> None:
        """One thing has one trouble at a time."""
        subject, blow = BLOWS[gust.what]
        async with self._locks[subject]:
            self.count[gust.what] += 1
            await blow(self.house, random.Random(gust.seed), gust.pause_s)
