"""Blows by a seed: the same again, nobody spared, and everybody up in the end."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.chaos import deal_all
from services.cli.chaos.blows import LONGEST_S, Blow, Fall, Hand, Victim, Weather, plan
from services.cli.client import Failed
from tests.support import until

NAMES = ("monitor-1", "monitor-2", "registry", "stats", "workload-1")
HASTY = Weather(mean_s=1.0, away_s=0.001)


@dataclass
class Recorded:
    """Remembers what was done to it."""

    told: list[str] = field(default_factory=list)
    hangs: bool = False
    fails: bool = False
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_end.set()

    async def kill(self) -> None:
        self.told.append("killed")

    async def stop(self) -> None:
        await self.may_end.wait()
        self.told.append("stopped")

    async def start(self) -> None:
        if self.hangs:
            self.hangs = False
            await asyncio.Event().wait()
        if self.fails:
            self.fails = False
            raise Failed("it does not start")
        self.told.append("started")


@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1))
def test_a_seed_deals_the_same_blows_again(seed: int, fraction: float, force: float) -> None:
    weather = Weather(2.0, fraction, force)
    blows = plan(NAMES, weather, 60, seed)
    assert blows == plan(tuple(reversed(NAMES)), weather, 60, seed), "whatever order they were found in"
    assert [blow.at_s for blow in blows] == sorted(blow.at_s for blow in blows)
    for blow in blows:
        assert 0 < blow.at_s < 60
        assert 1 <= len(blow.falls) <= len(NAMES)
        assert len({fall.name for fall in blow.falls}) == len(blow.falls), "nobody falls twice at once"
        assert all(0 <= fall.away_s <= LONGEST_S for fall in blow.falls)


@given(st.integers(0, 2**32))
def test_nobody_falls_again_before_everybody_has_fallen(seed: int) -> None:
    fallen = [fall.name for blow in plan(NAMES, Weather(1.0, fraction=0), 20, seed) for fall in blow.falls]
    for start in range(0, len(fallen) - len(NAMES), len(NAMES)):
        assert sorted(fallen[start : start + len(NAMES)]) == sorted(NAMES)


def test_the_gaps_the_fraction_and_the_force_are_as_wanted_in_the_mean() -> None:
    blows = plan(NAMES, Weather(mean_s=10, fraction=0.6, force=0.25), 100_000, seed=1)
    falls = [fall for blow in blows for fall in blow.falls]
    assert 9 < 100_000 / len(blows) < 11
    assert 2.7 < len(falls) / len(blows) < 3.1
    assert 0.23 < sum(fall.by_force for fall in falls) / len(falls) < 0.27


async def test_everybody_who_falls_is_started_again_and_who_lies_is_not_hit_again() -> None:
    victims = {name: Recorded() for name in NAMES}
    hand = Hand(dict[str, Victim](victims))
    blows = plan(NAMES, HASTY, 30, seed=7)
    await asyncio.gather(*(hand.deal(blow) for blow in blows[:15]))
    for blow in blows[15:]:
        await hand.deal(blow)
    for victim in victims.values():
        assert victim.told
        assert victim.told[1::2] == ["started"] * (len(victim.told) // 2), "each fall ends before the next"
        assert "started" not in victim.told[::2]
    assert hand.count.total() == sum(len(victim.told) for victim in victims.values()) / 2
    assert hand.count.total() < sum(len(blow.falls) for blow in blows)


async def test_who_lies_when_the_blows_are_interrupted_is_started_again() -> None:
    victims = {"monitor": Recorded(hangs=True), "workload": Recorded()}
    hand = Hand(dict[str, Victim](victims))
    dealing = asyncio.create_task(
        hand.deal(Blow(0, (Fall("monitor", True, 0.0), Fall("workload", False, 0.0))))
    )
    await asyncio.sleep(0.05)
    dealing.cancel()
    await asyncio.gather(dealing, return_exceptions=True)
    assert victims["monitor"].told == ["killed"]
    await hand.raise_all()
    assert victims["monitor"].told == ["killed", "started"]
    assert victims["workload"].told == ["stopped", "started", "started"], "to start again is no harm"


async def test_who_is_stopping_when_the_blows_are_interrupted_is_started_after_its_end() -> None:
    victim = Recorded()
    victim.may_end.clear()
    hand = Hand({"monitor": victim})
    dealing = asyncio.create_task(hand.deal(Blow(0, (Fall("monitor", False, 0.0),))))
    await until(lambda: bool(hand.fallen), what="a stop that was asked for")
    dealing.cancel()
    await asyncio.gather(dealing, return_exceptions=True)
    raising = asyncio.create_task(hand.raise_all())
    for _ in range(10):
        await asyncio.sleep(0)
    assert victim.told == [], "it would be found alive"
    victim.may_end.set()
    await raising
    assert victim.told == ["stopped", "started"]


async def test_one_that_does_not_start_holds_up_nobody_and_is_told_and_tried_again() -> None:
    victims = {"monitor": Recorded(fails=True), "stats": Recorded(), "workload": Recorded()}
    hand = Hand(dict[str, Victim](victims))
    falls = {name: Fall(name, True, 0.05 if name == "stats" else 0.0) for name in victims}
    first, second = Blow(0, (falls["monitor"], falls["stats"])), Blow(0.1, (falls["workload"],))
    assert await deal_all(hand, [first, second]) == ["it does not start"]
    assert victims["stats"].told == victims["workload"].told == ["killed", "started"]
    assert victims["monitor"].told == ["killed"]
    await hand.raise_all()
    assert victims["monitor"].told == ["killed", "started"]


async def test_whoever_can_be_started_at_the_end_is_before_a_failure_is_told() -> None:
    victims = {"monitor": Recorded(hangs=True, fails=True), "workload": Recorded(hangs=True)}
    hand = Hand(dict[str, Victim](victims))
    dealing = asyncio.create_task(hand.deal(Blow(0, tuple(Fall(name, True, 0.0) for name in victims))))
    await until(lambda: not any(each.hangs for each in victims.values()), what="starts that hang")
    dealing.cancel()
    await asyncio.gather(dealing, return_exceptions=True)
    with pytest.raises(Failed, match="it does not start"):
        await hand.raise_all()
    assert victims["workload"].told == ["killed", "started"]
    assert list(hand.fallen) == ["monitor"]
