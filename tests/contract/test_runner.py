"""The runner: beats go on, handlers are tried again, a dead loop is said aloud."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import func, update

from libs.common.auth import Principal, Role, Signer
from libs.common.bus.messages import to_message
from libs.common.clock import SteppedClock, WallClock
from libs.common.contracts.resource import ResourceRecovered
from libs.common.contracts.supply import TokenRevoked
from libs.common.db import Database, Session
from libs.common.errors import Problem
from libs.common.ids import new_id
from libs.common.inbox import revoked_tokens
from libs.common.runner import Build, Running, running
from libs.common.service import Beat, Hears, Runtime
from libs.common.stepping import step_until
from libs.common.tables import outbox
from tests.contract.tiny import (
    AT,
    HEARING,
    PRIVATE,
    a_build,
    a_process,
    an_event,
    hear,
    one_beat,
    settings_for,
    texts,
    waiting,
)
from tests.support import until

FIXED = new_id()


async def _is_quiet(run: Running) -> bool:
    return run.activity.is_idle and await run.bus.depth() == 0


async def _notes(run: Running, count: int) -> bool:
    return len(await texts(run.services[0].database)) == count


async def test_what_one_service_commits_another_keeps_once(database_url: str, bus_url: str) -> None:
    def make(runtime: Runtime, database: Database) -> Mapping[str, Any]:
        async def say() -> float | None:
            if not said:
                said.append(True)
                async with database.transaction() as session:
                    for number in range(30):
                        session.emit(an_event(number))
            return None

        return {"beats": (Beat("say", 60, say, runtime.wake()),)}

    said: list[bool] = []
    # Two processes hear as replicas: they compete.
    async with (
        a_process(a_build(make, "saying"), HEARING, database_url=database_url, bus_url=bus_url) as run,
        a_process(HEARING, database_url=database_url, bus_url=bus_url),
    ):
        database = run.services[1].database

        async def all_kept() -> bool:
            return len(await texts(database)) == 30

        await until(all_kept)
        await until(lambda: _is_quiet(run))
        assert {int(text) for text in await texts(database)} == set(range(30))
        assert await waiting(run.services[0].database) == []
        assert not run.failed.done()


async def test_a_handler_that_fails_is_tried_again_and_leaves_nothing_of_its_failures(
    database_url: str, bus_url: str
) -> None:
    async def stumble(session: Session, event: ResourceRecovered) -> None:
        tries.append(event.id)
        await hear(session, event)
        if event.outage_s != 99:
            session.emit(an_event(99))
        if len(tries) < 3:
            raise ValueError("not yet")

    tries: list[Any] = []
    build = a_build(lambda _, __: {"hears": (Hears(ResourceRecovered, stumble),)})
    settings = settings_for(database_url, bus_url)
    async with running([build], settings) as run:
        event = an_event(1)
        await run.bus.publish(to_message(event, "/tides/test"))
        # The third try says 99, which is heard as well.
        await until(lambda: _notes(run, 2), timeout=20)
        await until(lambda: _is_quiet(run))
        assert sorted(await texts(run.services[0].database)) == ["1", "99"]
        assert (tries[:3], len(tries)) == ([event.id] * 3, 4)


async def test_a_repeated_message_is_handled_once(database_url: str, bus_url: str) -> None:
    async with a_process(HEARING, database_url=database_url, bus_url=bus_url) as run:
        for _ in range(5):
            await run.bus.publish(to_message(an_event(1).model_copy(update={"id": FIXED}), "/tides/test"))
        await until(lambda: _notes(run, 1))
        await until(lambda: _is_quiet(run))
        assert await texts(run.services[0].database) == ["1"]


async def test_a_beat_that_fails_beats_again(database_url: str) -> None:
    async def act() -> None:
        beats.append(len(beats))
        if len(beats) < 4:
            raise ConnectionError("the cloud is away")

    beats: list[int] = []
    registries: list[CollectorRegistry] = []
    build = _noting(one_beat(act), registries)
    async with a_process(build, database_url=database_url) as run:
        await until(lambda: len(beats) >= 6)
        assert not run.failed.done()
        labels = {"service": "tiny", "beat": "act"}
        assert registries[0].get_sample_value("tides_beats_failed_total", labels) == 3


def _noting(build: Build, registries: list[CollectorRegistry]) -> Build:
    def noting(runtime: Runtime) -> Any:
        registries.append(runtime.registry)
        return build(runtime)

    return noting


async def test_a_beat_in_which_something_was_cancelled_beats_again(database_url: str) -> None:
    """A driver that cancels a call of its own must not end the loop without a word."""

    async def act() -> None:
        beats.append(True)
        cancelled = asyncio.create_task(asyncio.sleep(60))
        cancelled.cancel()
        await cancelled

    beats: list[bool] = []
    async with a_process(one_beat(act), database_url=database_url) as run:
        await until(lambda: len(beats) >= 3)
        assert not run.failed.done()


async def test_a_beat_that_swallows_its_cancellation_ends_all_the_same(database_url: str) -> None:
    async def act() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if swallowed:
                raise
            swallowed.append(True)

    begun, swallowed = asyncio.Event(), list[bool]()
    async with asyncio.timeout(10):
        async with a_process(one_beat(act), database_url=database_url):
            await begun.wait()
    assert swallowed == [True]


async def test_what_waits_in_the_outbox_is_measured(database_url: str) -> None:
    async with (
        a_process(a_build(), database_url=database_url) as run,
        run.services[0].database.transaction() as one,
    ):
        one.emit(an_event())
        await one.write_out()
        hour = func.make_interval(0, 0, 0, 0, 1)
        await one.execute(
            update(outbox).values(claimed_until=func.now() + hour, created_at=func.now() - hour)
        )
        for _ in range(2):
            one.emit(an_event())
        await one.write_out()
        await one.execute(update(outbox).where(outbox.c.claimed_until.is_(None)).values(parked_at=func.now()))
    async with a_process(a_build(), database_url=database_url) as run, aiohttp.ClientSession() as http:

        async def measured() -> dict[str, float] | None:
            async with http.get(f"{run.url}/metrics") as answer:
                lines = (line.rpartition(" ") for line in (await answer.text()).splitlines())
            shown = {name: float(value) for name, _, value in lines if name.startswith("tides_")}
            whole = {'tides_outbox_depth{service="tiny"}', "tides_dead_letters"} <= shown.keys()
            return shown if whole else None

        shown = await until(measured)
    assert shown['tides_outbox_depth{service="tiny"}'] == 1
    assert 3600 <= shown['tides_outbox_oldest_seconds{service="tiny"}'] < 3660
    assert shown['tides_outbox_parked{service="tiny"}'] == 2
    assert (shown["tides_dead_letters"], shown['tides_part_up{part="bus"}']) == (0, 1)
    beat = '{beat="measure",service="tiny"}'
    assert shown[f"tides_beat_interval_seconds{beat}"] == 15
    ended_at = datetime.fromtimestamp(shown[f"tides_beat_last_success_timestamp_seconds{beat}"], UTC)
    assert abs(WallClock().now() - ended_at) < timedelta(minutes=1)


async def test_a_loop_that_dies_is_said_aloud(database_url: str) -> None:
    async def act() -> Any:
        return "soon"

    async with a_process(one_beat(act), database_url=database_url) as run:
        await until(run.failed.done)
        with pytest.raises(TypeError):
            run.failed.result()


async def test_an_event_wakes_the_beats_it_names_after_its_commit(database_url: str, bus_url: str) -> None:
    def make(runtime: Runtime, database: Database) -> Mapping[str, Any]:
        async def look() -> None:
            seen.append(await texts(database))

        due = runtime.wake()
        return {
            "hears": (Hears(ResourceRecovered, hear, wakes=(due,)),),
            "beats": (Beat("look", 600, look, due),),
        }

    seen: list[list[str]] = []
    async with a_process(a_build(make), database_url=database_url, bus_url=bus_url) as run:
        await until(lambda: seen == [[]])
        await run.bus.publish(to_message(an_event(5), "/tides/test"))
        await until(lambda: seen == [[], ["5"]])


async def test_beats_keep_the_clock_and_may_ask_for_less(database_url: str) -> None:
    async def act() -> float | None:
        beats.append(clock.now() - AT)
        return 5.0 if len(beats) == 2 else 1000.0 if len(beats) == 3 else None

    clock, beats = SteppedClock(AT), list[timedelta]()
    async with a_process(one_beat(act, 20), database_url=database_url, clock=clock, jitter=0) as run:
        await step_until(clock, run.activity, run.bus, AT + timedelta(seconds=60))
    assert [at.total_seconds() for at in beats] == [0, 20, 25, 45]


async def test_jitter_spreads_beats_and_the_floor_slows_them(database_url: str) -> None:
    async def act() -> None:
        beats.append((clock.now() - AT).total_seconds())

    clock, beats = SteppedClock(AT), list[float]()
    async with a_process(one_beat(act, 1), database_url=database_url, clock=clock, beat_floor_s=10) as run:
        await step_until(clock, run.activity, run.bus, AT + timedelta(seconds=100))
    pauses = [later - earlier for earlier, later in pairwise(beats)]
    assert all(10 <= pause <= 11 for pause in pauses)
    assert len(set(pauses)) > 1


async def test_a_revoked_token_is_refused_by_every_service(database_url: str, bus_url: str) -> None:
    seen: list[Runtime] = []

    def make(runtime: Runtime, _: Database) -> Mapping[str, Any]:
        seen.append(runtime)
        return {}

    who = Principal(uuid4(), "someone", Role.VIEWER, uuid4(), uuid4())
    token = Signer(PRIVATE).sign(who)
    builds = (a_build(make, "one"), a_build(make, "two"))
    async with a_process(*builds, database_url=database_url, bus_url=bus_url) as run:
        verifier = seen[0].verifier
        assert verifier.verify(token) == who
        await run.bus.publish(to_message(TokenRevoked(at=AT, token_id=who.token_id), "/tides/identity"))

        async def remembered() -> bool:
            known = [await revoked_tokens(service.database) for service in run.services]
            return known == [{who.token_id}] * 2

        await until(remembered)
        with pytest.raises(Problem, match="revoked"):
            verifier.verify(token)
    # A process that starts later knows it from its table.
    async with a_process(*builds, database_url=database_url, bus_url=bus_url):
        await until(lambda: who.token_id in seen[-1].verifier.revocations)
