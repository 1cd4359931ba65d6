"""Replay: who comes late learns every state, of what is there and of what is gone, and nobody else is troubled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from libs.common.bus.base import Queue
from libs.common.bus.messages import to_message
from libs.common.clock import SteppedClock
from libs.common.contracts.base import StateEvent, is_newer
from libs.common.contracts.replay import StatesAsked
from libs.common.contracts.resource import InventoryChanged, ResourceRecovered
from libs.common.contracts.supply import TemplateChanged, TemplateState
from libs.common.db import Database, Session
from libs.common.ids import state_id
from libs.common.runner import Build, Running
from libs.common.service import Beat, Hears, Runtime, Tells
from libs.common.stepping import step_until
from tests.contract.tiny import AT, a_build, a_process, hear, waiting
from tests.support import until

PAGE = 3


def inventory(number: int, revision: int, *, gone: bool = False) -> InventoryChanged:
    """A state, told apart by its number."""
    resource_id = UUID(int=number)
    return InventoryChanged(
        id=state_id(InventoryChanged.key, str(resource_id), revision),
        at=AT,
        revision=revision,
        gone=gone,
        resource_id=resource_id,
        clusters=(),
    )


def template(number: int) -> TemplateChanged:
    """A state of another kind."""
    one = UUID(int=number)
    return TemplateChanged(
        at=AT, revision=1, version_id=one, template_id=one, organisation_id=one, name="worker", version=1,
        resource_id=one, reference="vm-1", disk_gib=1.0, state=TemplateState.DRAFT,
    )  # fmt: skip


@dataclass
class Publisher:
    """A service with states in memory, which it tells only to who asks; `largest` is the most it read at once."""

    states: list[StateEvent]
    largest: int = 0

    def build(self) -> Build:
        """As a service."""
        kinds = (InventoryChanged, TemplateChanged)
        return a_build(
            lambda _, __: {"tells": [Tells(kind, partial(self._read, kind)) for kind in kinds]}, "telling"
        )

    async def _read(
        self, kind: type[StateEvent], _: Session, after: int | None
    ) -> tuple[Sequence[StateEvent], int | None]:
        wanted = [state for state in self.states if isinstance(state, kind)]
        begin = after or 0
        page = wanted[begin : begin + PAGE]
        self.largest = max(self.largest, len(page))
        return page, begin + PAGE if begin + PAGE < len(wanted) else None


@dataclass
class Projection:
    """A service that hears inventories: what it knows, and how often it was told anything."""

    name: str
    known: dict[int, int] = field(default_factory=dict)
    """Revisions of what is there."""
    gone: set[int] = field(default_factory=set)
    deliveries: int = 0

    def build(self) -> Build:
        """As a service."""

        def make(_: Runtime, __: Database) -> Mapping[str, Any]:
            ears = (Hears(InventoryChanged, self.take, once=False), Hears(ResourceRecovered, hear))
            return {"hears": ears}

        return a_build(make, self.name)

    async def take(self, _: Session, event: InventoryChanged) -> None:
        """The newest revision wins."""
        self.deliveries += 1
        number = event.resource_id.int
        if not is_newer(event, self.known.get(number)):
            return
        self.known[number] = event.revision
        if event.gone:
            del self.known[number]
            self.gone.add(number)


async def _is_quiet(run: Running) -> bool:
    return run.activity.is_idle and await run.bus.depth() == 0


async def test_who_comes_late_learns_what_is_there_and_what_is_gone_and_nobody_else_is_told(
    database_url: str, bus_url: str
) -> None:
    told = [inventory(number, 5) for number in range(2 * PAGE + 1)]
    publisher = Publisher([*told, inventory(99, 8, gone=True), template(1)])
    early, late = Projection("early"), Projection("late")
    async with a_process(
        publisher.build(), early.build(), database_url=database_url, bus_url=bus_url
    ) as first:
        await until(lambda: early.deliveries == len(told) + 1, what="the early one to have asked for itself")
        await until(lambda: _is_quiet(first))
        # Queues that the late one would not have: of kinds that it never asked for, and of nobody.
        strays = [Queue(f"{name}.{TemplateChanged.key}", ()) for name in ("early", "late")]
        await first.bus.declare(strays)

        async with a_process(late.build(), database_url=database_url, bus_url=bus_url) as second:
            await until(lambda: late.deliveries == len(told) + 1, what="the late one to know everything")
            await until(lambda: _is_quiet(second))
            await until(lambda: _is_quiet(first))

        assert late.known == {number: 5 for number in range(2 * PAGE + 1)}
        assert late.gone == {99}
        assert early.deliveries == len(told) + 1, "nobody else hears an answer"
        assert publisher.largest == PAGE
        assert await waiting(first.services[0].database) == []


async def test_an_answer_overtaken_by_a_change_changes_nothing_back(database_url: str, bus_url: str) -> None:
    publisher, late = Publisher([inventory(1, 4)]), Projection("late")
    async with a_process(publisher.build(), late.build(), database_url=database_url, bus_url=bus_url) as run:
        await until(lambda: late.known == {1: 4}, what="the answer")
        await run.bus.publish(to_message(inventory(1, 6), "/tides/telling"))
        await until(lambda: late.known == {1: 6}, what="the change")
        asked = StatesAsked(at=AT, asker="late", keys=(InventoryChanged.key,))
        for _ in range(2):
            await run.bus.publish(to_message(asked, "/tides/late"))
        await until(lambda: late.deliveries == 3, what="the old state once more")
        await until(lambda: _is_quiet(run))
        assert (late.known, late.deliveries) == ({1: 6}, 3), "a repeated question is answered once"


async def test_an_answer_wakes_nobody_and_a_change_does(database_url: str, bus_url: str) -> None:
    """Most answers are known already: in an accelerated run who is woken for nothing makes it another run."""
    looks: list[dict[int, int]] = []
    publisher, late = Publisher([inventory(1, 4)]), Projection("late")

    def make(runtime: Runtime, _: Database) -> Mapping[str, Any]:
        async def look() -> None:
            looks.append(dict(late.known))

        due = runtime.wake()
        return {
            "hears": (Hears(InventoryChanged, late.take, once=False, wakes=(due,)),),
            "beats": (Beat("look", 600, look, due),),
        }

    builds = (publisher.build(), a_build(make, "late"))
    async with a_process(*builds, database_url=database_url, bus_url=bus_url) as run:
        await until(lambda: late.known == {1: 4}, what="the answer")
        await until(lambda: _is_quiet(run))
        assert len(looks) == 1, "at the start, and not for the answer"
        await run.bus.publish(to_message(inventory(1, 5), "/tides/telling"))
        await until(lambda: looks[1:] == [{1: 5}], what="a look at the change")


async def test_a_question_of_who_has_no_queue_holds_nobody_up(database_url: str, bus_url: str) -> None:
    publisher, late = Publisher([inventory(1, 4)]), Projection("late")
    async with a_process(publisher.build(), database_url=database_url, bus_url=bus_url) as run:
        stranger = StatesAsked(at=AT, asker="stranger", keys=("weather.changed.v1", InventoryChanged.key))
        await run.bus.publish(to_message(stranger, "/tides/stranger"))
        await until(lambda: _has_rows(run, 1), what="the answer to wait for its queue")
        async with a_process(late.build(), database_url=database_url, bus_url=bus_url):
            await until(lambda: late.known == {1: 4}, what="the answer to another")


async def _has_rows(run: Running, count: int) -> bool:
    return len(await waiting(run.services[0].database)) == count


@pytest.mark.parametrize(("floor_s", "pause_s"), [(100, 3600), (500, 5000)])
async def test_who_hears_states_asks_at_its_start_and_every_hour_and_nobody_else_does(
    database_url: str, floor_s: float, pause_s: float
) -> None:
    asked: list[tuple[float, str, tuple[str, ...]]] = []

    async def note(_: Session, event: StatesAsked) -> None:
        asked.append(((event.at - AT).total_seconds(), event.asker, event.keys))

    clock = SteppedClock(AT)
    listening = a_build(lambda _, __: {"hears": (Hears(StatesAsked, note),)}, "listening")
    deaf = a_build(lambda _, __: {"hears": (Hears(ResourceRecovered, hear),)}, "deaf")
    builds = (listening, Projection("late").build(), deaf)
    async with a_process(
        *builds, database_url=database_url, clock=clock, jitter=0, beat_floor_s=floor_s
    ) as run:
        await step_until(clock, run.activity, run.bus, AT + timedelta(seconds=2.5 * pause_s))

    keys = (InventoryChanged.key,)
    assert asked == [(at, "late", keys) for at in (0, pause_s, 2 * pause_s)]
