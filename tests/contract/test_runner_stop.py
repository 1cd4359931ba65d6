"""Starting and stopping: all or nothing at the start, and nothing left behind at the end."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from fastapi import APIRouter, Depends

from libs.common.app import Unmarked
from libs.common.auth import Principal, Role, Signer, allow
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
            assert (response.status, await response.json()) == (
                200,
                {"status": "ready", "parts": {"tiny": True}},
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
