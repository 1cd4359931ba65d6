"""Starting and stopping: all or nothing at the start, and nothing left behind at the end."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from fastapi import APIRouter, Depends

from libs.common.app import Unmarked
from libs.common.auth import Principal, Role, Signer, allow, public
from libs.common.bus.messages import to_message
from libs.common.contracts.resource import ResourceRecovered
from libs.common.contracts.supply import TokenRevoked
from libs.common.db import Database, Session
from libs.common.ids import new_id
from libs.common.runner import Build, Running
from libs.common.service import Beat, Hears, Runtime
from tests.contract.tiny import (
    AT,
    HEARING,
    PRIVATE,
    a_build,
    a_process,
    an_event,
    hear,
    one_beat,
    texts,
    tiny_database,
    waiting,
)
from tests.support import until

FIXED = new_id()


async def _notes(run: Running, count: int) -> bool:
    return len(await texts(run.services[0].database)) == count


async def test_an_orderly_stop_leaves_no_task_no_claim_and_no_event(database_url: str, bus_url: str) -> None:
    diary: list[str] = []

    def make(runtime: Runtime, database: Database) -> Mapping[str, Any]:
        async def act() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                diary.append("beat ended")

        async def hang(session: Session, event: ResourceRecovered) -> None:
            await hear(session, event)
            diary.append("handling")
            await asyncio.Event().wait()

        async def give_back() -> None:
            async with database.transaction() as session:
                session.emit(TokenRevoked(at=AT, token_id=FIXED))
            diary.append("gave back")

        async def close() -> None:
            diary.append("closed")

        return {
            "hears": (Hears(ResourceRecovered, hang),),
            "beats": (Beat("act", 60, act, runtime.wake()),),
            "closes": (give_back, close),
        }

    before = asyncio.all_tasks()
    async with a_process(a_build(make), database_url=database_url, bus_url=bus_url) as run:
        await run.bus.publish(to_message(an_event(3), "/tides/test"))
        await until(lambda: "handling" in diary)
        url = run.url
    assert diary == ["handling", "beat ended", "gave back", "closed"]
    # A client library's own last words take a turn of the loop.
    await until(lambda: not asyncio.all_tasks() - before, what="no task left")
    await _expect_nobody(url)
    async with tiny_database(database_url) as database:
        assert await texts(database) == []
        assert await waiting(database) == [], "what was said while stopping was not published"
    # The message that was being handled is there for the next process, at once.
    kept = a_build(lambda _, __: {"hears": (Hears(ResourceRecovered, hear),)})
    async with a_process(kept, database_url=database_url, bus_url=bus_url) as run:
        await until(lambda: _notes(run, 1), timeout=5)
        assert await texts(run.services[0].database) == ["3"]


@dataclass
class Slow:
    """A service whose work takes until `settle`, whose cloud is dead, and beside it one that hands back at once."""

    diary: list[str] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    settle: asyncio.Event = field(default_factory=asyncio.Event)

    def builds(self) -> tuple[Build, Build]:
        router = APIRouter()
        router.add_api_route("/v1/tiny/slow", self._answer, dependencies=[Depends(public)])
        return a_build(self._hanging, routers=[router]), a_build(self._quick, "hearing")

    async def _answer(self) -> str:
        self.asked.set()
        await self.settle.wait()
        self.diary.append("answered")
        return "whole"

    def _hanging(self, runtime: Runtime, _: Database) -> Mapping[str, Any]:
        async def act() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await self.settle.wait()
                self.diary.append("settled")

        async def hang() -> None:
            await asyncio.Event().wait()

        return {"beats": (Beat("act", 60, act, runtime.wake()),), "closes": (hang,)}

    def _quick(self, _: Runtime, __: Database) -> Mapping[str, Any]:
        async def give_back() -> None:
            self.diary.append("gave back")

        return {"closes": (give_back,)}


async def test_readiness_goes_first_work_settles_and_one_dead_cloud_keeps_no_lease(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.runner.CLOSED_WITHIN_S", 2.0)
    slow = Slow()
    async with AsyncExitStack() as process, aiohttp.ClientSession() as http:
        run = await process.enter_async_context(a_process(*slow.builds(), database_url=database_url))
        answer = asyncio.create_task(_get(http, f"{run.url}/v1/tiny/slow"))
        await slow.asked.wait()
        stop = asyncio.create_task(process.aclose())

        async def is_stopping() -> bool:
            status, body = await _get(http, f"{run.url}/readyz")
            return (status, body["status"]) == (503, "stopping")

        await until(is_stopping, what="readiness to go")
        assert (await _get(http, f"{run.url}/healthz"))[0] == 200
        assert slow.diary == []
        slow.settle.set()
        assert await answer == (200, "whole")
        async with asyncio.timeout(10):
            await stop
    assert sorted(slow.diary[:2]) == ["answered", "settled"]
    assert slow.diary[2:] == ["gave back"]


async def _get(http: aiohttp.ClientSession, url: str) -> tuple[int, Any]:
    async with http.get(url) as response:
        return response.status, await response.json()


async def _expect_nobody(url: str) -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientConnectionError):
            await http.get(f"{url}/healthz")


async def test_a_route_without_a_mark_is_not_served_and_nothing_stays_open(database_url: str) -> None:
    router = APIRouter()

    @router.get("/v1/tiny/open")
    async def answer() -> str:
        return "everybody reads this"

    before = asyncio.all_tasks()
    with pytest.raises(Unmarked, match="GET /v1/tiny/open"):
        await _start(a_build(routers=[router]), database_url=database_url)
    assert asyncio.all_tasks() - before == set()


async def test_a_marked_route_is_served_to_those_it_names_alone(database_url: str) -> None:
    router = APIRouter()

    @router.get("/v1/tiny/things", dependencies=[Depends(allow(Role.OPERATOR))])
    async def things() -> list[str]:
        return ["a"]

    async with (
        a_process(a_build(routers=[router]), database_url=database_url) as run,
        aiohttp.ClientSession(run.url) as http,
    ):
        answers = {}
        for role in (None, Role.VIEWER, Role.OPERATOR):
            who = Principal(uuid4(), "someone", role or Role.VIEWER, uuid4(), uuid4())
            headers = {"Authorization": f"Bearer {Signer(PRIVATE).sign(who)}"} if role else {}
            async with http.get("/v1/tiny/things", headers=headers) as response:
                answers[role] = response.status
        async with http.get("/v1/tiny/other") as response:
            assert response.status == 404
        async with http.get("/readyz") as response:
            body = await response.json()
            assert (response.status, body["status"], body["parts"], body["missing"]) == (
                200,
                "ready",
                {"tiny": True, "bus": True},
                [],
            )
    assert answers == {None: 401, Role.VIEWER: 403, Role.OPERATOR: 200}


async def _start(*builds: Build, database_url: str) -> None:
    async with a_process(*builds, database_url=database_url):
        pass


async def test_three_processes_start_at_once_on_an_empty_database(database_url: str, bus_url: str) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(_start_on(database_url, bus_url))


async def _start_on(database_url: str, bus_url: str) -> None:
    async with a_process(HEARING, one_beat(_nothing), database_url=database_url, bus_url=bus_url) as run:
        assert not run.failed.done()


async def _nothing() -> None:
    pass


async def test_what_was_committed_while_nobody_ran_is_published_at_the_next_start(
    database_url: str, bus_url: str
) -> None:
    async with tiny_database(database_url, "hearing") as database, database.transaction() as session:
        session.emit(an_event(8))
    async with a_process(HEARING, database_url=database_url, bus_url=bus_url) as run:
        await until(lambda: _notes(run, 1))
