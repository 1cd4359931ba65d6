"""Blows to processes: planned by a seed alone, dealt to whatever can be killed, stopped and started again."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

LONGEST_S = 15.0
"""No process stays away for longer."""


class Victim(Protocol):
    """A process, container or pod of an installation."""

    async def kill(self) -> None:
        """By force, as a power cut: nothing is said to it."""

    async def stop(self) -> None:
        """Asked to end, as by an operator; returns once it has ended."""

    async def start(self) -> None:
        """It runs again, and is ready; nothing to do where it does already."""


@dataclass(frozen=True, slots=True)
class Fall:
    """What happens to one victim."""

    name: str
    by_force: bool
    away_s: float


@dataclass(frozen=True, slots=True)
class Blow:
    """Some at a time."""

    at_s: float
    """After the beginning."""
    falls: tuple[Fall, ...]


@dataclass(frozen=True, slots=True)
class Weather:
    """How hard it blows."""

    mean_s: float = 10.0
    """From one blow to the next: the gaps are exponential, so that blows come at random times."""
    fraction: float = 0.3
    """Of all processes, so many at a time in the mean; at least one."""
    force: float = 0.5
    """The share of them that is killed; the others are asked to stop."""
    away_s: float = 4.0
    """For so long they stay away in the mean."""


def plan(names: Sequence[str], weather: Weather, seconds: float, seed: int) -> list[Blow]:
    """Every blow beforehand: the same for the same seed. Nobody falls twice before everybody has fallen once."""
    chance = random.Random(seed)
    turns = deal(sorted(names), chance)
    found = []
    at_s = chance.expovariate(1 / weather.mean_s)
    while at_s < seconds:
        found.append(Blow(at_s, draw(turns, len(names), weather, chance)))
        at_s += chance.expovariate(1 / weather.mean_s)
    return found


def deal(cards: Sequence[str], chance: random.Random) -> Iterator[str]:
    """Without end: all in some order, then all in another."""
    while True:
        yield from chance.sample(cards, len(cards))


def draw(turns: Iterator[str], everybody: int, weather: Weather, chance: random.Random) -> tuple[Fall, ...]:
    """Who falls next, and how."""
    count = max(1, sum(chance.random() < weather.fraction for _ in range(everybody)))
    names = dict.fromkeys(next(turns) for _ in range(count))
    return tuple(
        Fall(
            name,
            chance.random() < weather.force,
            min(LONGEST_S, chance.expovariate(1 / weather.away_s)),
        )
        for name in names
    )


@dataclass
class Hand:
    """Deals blows. Who lies already is not hit again, so that the blows end when they should."""

    victims: Mapping[str, Victim]
    count: Counter[str] = field(default_factory=Counter)
    """How many were killed and stopped."""
    fallen: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """Who lies just now, and the end that was asked for."""

    async def deal(self, blow: Blow) -> None:
        """Until all of them run again. Raises what failed first once all others do; who failed lies on."""
        await _every(self._fell(fall) for fall in blow.falls)

    async def _fell(self, fall: Fall) -> None:
        if fall.name in self.fallen:
            return
        victim = self.victims[fall.name]
        ending = asyncio.create_task(_end(victim, by_force=fall.by_force))
        self.fallen[fall.name] = ending
        self.count["killed" if fall.by_force else "stopped"] += 1
        await asyncio.shield(ending)  # it cannot be called back: a start amid it would find the process alive
        await asyncio.sleep(fall.away_s)
        await victim.start()
        del self.fallen[fall.name]

    async def raise_all(self) -> None:
        """Start whoever lies: the blows were interrupted, or somebody gave up while what it needs was away.

        Raises what failed first, once all others run.
        """
        await _every(self._raise(name, victim) for name, victim in self.victims.items())

    async def _raise(self, name: str, victim: Victim) -> None:
        if name in self.fallen:
            await asyncio.wait([self.fallen[name]])
        await victim.start()
        self.fallen.pop(name, None)


async def _end(victim: Victim, *, by_force: bool) -> None:
    await (victim.kill() if by_force else victim.stop())


async def _every(acts: Iterable[Awaitable[None]]) -> None:
    """All of them to their end, whichever fails."""
    for outcome in await asyncio.gather(*acts, return_exceptions=True):
        if outcome is not None:
            raise outcome
