"""The process dies in the midst of things, and the next one finishes the story: nothing lost, nothing doubled.

A few points here, by a seed that is told; `./dev bench crash` goes through all of them.
"""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.crash.plays import Plays, plays
from tests.crash.points import Point

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(300), pytest.mark.xdist_group("crash")]

ALWAYS = (
    Point("cloud create", 2, after=True),
    Point("publish action.limits_requested.v1", 1, after=True),
    Point("publish usage.sampled.v1", 20, after=True),
)
"""Done, and nobody wrote it down."""
BY_CHANCE = 1


@pytest.fixture
async def theatre(tmp_path: Path, postgres_url: str) -> AsyncIterator[Plays]:
    """Where a story can be played."""
    async with plays(tmp_path / secrets.token_hex(4), postgres_url) as found:
        yield found


async def test_whoever_dies_in_the_midst_is_followed_by_one_who_finishes(theatre: Plays) -> None:
    assert await theatre.prepare() == [], "the story without a death"
    seed = secrets.randbits(32)
    for point in (*ALWAYS, *theatre.choose(BY_CHANCE, seed)):
        troubles = await theatre.die_at(point)
        assert not troubles, f"{point} (seed {seed}): {troubles}"
        assert troubles is not None or point not in ALWAYS, f"{point} was not reached"
