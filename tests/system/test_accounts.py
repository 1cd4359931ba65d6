"""The storm's auditor itself: what is wrong all the time is told, whatever its figures; what heals is not."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast

import pytest

from tests.system import accounts
from tests.system.accounts import Witness, events_on_the_bus, last_word, pools
from tests.system.installing import Installed
from tests.system.lab import Lab


@dataclass
class Restless:
    """An installation and its cloud that never rest: every look shows other figures."""

    turns: Iterator[int] = field(default_factory=count)
    cap_mhz: float = 500
    """Of the pool, more than what was decided."""
    lost: frozenset[str] = frozenset()
    """Events that the bus never carried."""

    async def cluster(self) -> dict[str, Any]:
        self.decided = 1000.0 + next(self.turns)
        return {"cap_mhz": self.decided}

    async def look(self) -> Any:
        @dataclass
        class Pool:
            name: str
            limit_mhz: float

        @dataclass
        class Sight:
            pools: list[Pool]

        return Sight([Pool(accounts.OUR_PLACE, self.decided + self.cap_mhz)])

    async def events(self) -> list[dict[str, Any]]:
        """Besides what is lost one that the bus carries in a moment."""
        ids = [*self.lost, f"late {next(self.turns)}"]
        return [{"id": id, "key": "action.cluster_paused.v1", "machine_id": None, "body": {}} for id in ids]


class Deaf(Witness):
    """Hears nothing."""

    async def read(self) -> None:
        """Nothing has come."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits no longer than it takes to look a few times."""
    monkeypatch.setattr(accounts, "SETTLED_WITHIN_S", 0.5)
    monkeypatch.setattr(accounts, "slowness", lambda: 1.0)


async def test_a_cap_that_is_never_what_was_decided_is_told_though_both_move() -> None:
    busy = Restless()
    told = await last_word("pools", lambda: pools(cast(Installed, busy), cast(Lab, busy)))
    assert told == [f"pools: caps {[busy.decided + 500]}, decided is {busy.decided}"]
    busy.cap_mhz = 0
    assert await last_word("pools", lambda: pools(cast(Installed, busy), cast(Lab, busy))) == []


async def test_an_event_that_is_never_said_is_told_though_others_come_and_go() -> None:
    busy = Restless(lost=frozenset({"e1", "e2"}))
    told = await last_word("events", lambda: events_on_the_bus(cast(Installed, busy), Deaf("")))
    assert sorted(told) == ["events: e1 never said", "events: e2 never said"]
    busy.lost = frozenset()
    assert await last_word("events", lambda: events_on_the_bus(cast(Installed, busy), Deaf(""))) == []
