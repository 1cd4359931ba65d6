"""Following the event log: server-sent events without a gap and without a repeat, whatever commits meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import pytest
from sqlalchemy import text

from libs.common.auth import Principal, Role
from libs.common.contracts.action import ClusterPaused
from libs.common.contracts.supply import TokenRevoked
from services.workload.usecases.recording import record
from tests.service.lone_service import OURS, THEIRS
from tests.service.workload_house import House, open_house
from tests.support import until

ADA = Principal(uuid4(), "Ada", Role.VIEWER, OURS, uuid4())


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        await house.lend()
        await house.run(40)
        await house.log_is_shown()
        yield house


@asynccontextmanager
async def following(
    house: House, last: str | None = None, token_id: UUID | None = None, **wish: Any
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Events as a reader gets them; `id` is where to resume."""
    who = Principal(uuid4(), "Ada", Role.VIEWER, wish.pop("organisation", OURS), token_id or uuid4())
    headers = {"Authorization": f"Bearer {house.signer.sign(who)}"} | (
        {"Last-Event-ID": last} if last else {}
    )
    url = house.replicas[-1].url + "/v1/events"
    wide = aiohttp.ClientTimeout(total=20)
    params = {"follow": "true"} | wish
    async with house.http.get(url, headers=headers, params=params, timeout=wide) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/event-stream"
        assert (await answer.content.readline()).startswith(b":")
        assert (await answer.content.readline()).startswith(b"id: ")
        assert await answer.content.readline() == b"\n"
        yield _events(answer.content)


async def _events(stream: aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
    event: dict[str, Any] = {}
    async for line in stream:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name in ("id", "event", "data"):
            event[name] = value
        elif not name and event:
            yield json.loads(event["data"]) | {"id": event["id"], "key": event["event"]}
            event = {}


async def take(events: AsyncIterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return [await anext(events) for _ in range(count)]


async def say(house: House, number: int, wait: asyncio.Event | None = None) -> None:
    """One event in a transaction of its own, which ends when it may."""
    run = house.replicas[0]
    async with run.services[0].database.transaction() as session:
        about = {"resource_id": house.resource.resource_id, "cluster_id": house.cluster_id, "actor": "Ada"}
        event = ClusterPaused.model_validate({"at": house.clock.now(), "reason": f"number {number}"} | about)
        record(session, event)
        await session.flush()
        if wait is not None:
            await wait.wait()


async def test_a_reader_without_a_place_hears_what_happens_from_now_on(house: House) -> None:
    async with following(house) as events:
        await house.act(f"/v1/clusters/{house.cluster_id}/pause", {"reason": "audit"})
        first = await anext(events)

    assert first["key"] == "action.cluster_paused.v1"
    assert first["body"]["reason"] == "audit"


async def test_a_reader_that_comes_back_goes_on_where_it_was(house: House) -> None:
    log = (await house.ask("GET", "/v1/events?limit=200")).body
    count = len(log["items"])
    start = (await house.ask("GET", "/v1/events?limit=1")).body
    async with following(house, cursor=start["next_cursor"]) as events:
        seen = await take(events, 2)
    async with following(house, last=seen[-1]["id"], cursor=start["next_cursor"]) as events:
        seen += await take(events, count - 3)

    assert [event["body"]["id"] for event in seen] == [item["id"] for item in log["items"]][1:]


async def test_what_commits_late_is_neither_left_out_nor_told_twice(house: House) -> None:
    start = (await house.ask("GET", "/v1/events?limit=200")).body["next_cursor"]
    late = asyncio.Event()
    async with following(house, last=start) as events:
        slow = asyncio.create_task(say(house, 0, late))
        await asyncio.sleep(0)
        for number in range(1, 6):
            await say(house, number)
        seen: list[dict[str, Any]] = []
        reading = asyncio.create_task(take(events, 6))
        await asyncio.wait([reading], timeout=0.7)
        late.set()
        await slow
        seen = await reading
        position = seen[-1]["id"]

    assert sorted(event["body"]["reason"] for event in seen) == [f"number {number}" for number in range(6)]
    async with following(house, last=position) as events:
        await say(house, 6)
        assert (await anext(events))["body"]["reason"] == "number 6"


async def test_what_was_written_upon_anothers_word_comes_after_it_whoever_began_first(house: House) -> None:
    """A judgement that waits for a cluster's row has its number already, and then supersedes what it waited for."""
    run, about = (
        house.replicas[0],
        {"resource_id": house.resource.resource_id, "cluster_id": house.cluster_id},
    )
    start = (await house.ask("GET", "/v1/events?limit=200")).body["next_cursor"]
    async with run.services[0].database.transaction() as session:
        await session.execute(text("update cluster set superseded = superseded + 1"))
        await say(house, 1)
        await say(house, 2)
        late = {"at": house.clock.now(), "reason": "number 3", "actor": "Ada"}
        record(session, ClusterPaused.model_validate(late | about))
    async with following(house, last=start) as events:
        seen = await take(events, 3)

    assert [event["body"]["reason"] for event in seen] == ["number 1", "number 2", "number 3"]


async def test_many_writers_at_once_and_a_reader_that_is_cut_off_again_and_again(house: House) -> None:
    last = (await house.ask("GET", "/v1/events?limit=200")).body["next_cursor"]

    async def write(lane: int) -> None:
        for number in range(10):
            await say(house, lane * 10 + number)

    writing = asyncio.gather(*(write(lane) for lane in range(4)))
    said: list[str] = []
    while len(said) < 40:
        async with following(house, last=last) as events:
            for event in await take(events, min(7, 40 - len(said))):
                said += [event["body"]["reason"]] * event["body"]["reason"].startswith("number")
                last = event["id"]
    await writing

    assert sorted(said) == sorted(f"number {n}" for n in range(40))


async def test_a_reader_follows_one_cluster_and_its_own_organisation_only(house: House) -> None:
    start = (await house.ask("GET", "/v1/events?limit=1")).body["next_cursor"]
    for wish in ({"cluster_id": str(uuid4())}, {"organisation": THEIRS}):
        async with following(house, last=start, **wish) as events:
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.wait([waiting], timeout=0.7)
            assert not waiting.done()
            waiting.cancel()


async def test_a_place_that_is_none_is_refused(house: House) -> None:
    answer = await house.ask("GET", "/v1/events?follow=true", headers={"Last-Event-ID": "nonsense"})
    assert answer.status == 422


async def first_id(house: House, last: str | None = None) -> str:
    """Where a reader stands that was cut off before any event."""
    headers = {"Authorization": f"Bearer {house.signer.sign(ADA)}"} | (
        {"Last-Event-ID": last} if last else {}
    )
    url = house.replicas[-1].url + "/v1/events?follow=true"
    async with house.http.get(url, headers=headers) as answer:
        await answer.content.readline()
        return (await answer.content.readline()).decode().removeprefix("id: ").rstrip("\n")


async def test_a_reader_that_is_cut_off_before_any_event_misses_none(house: House) -> None:
    place = await first_id(house)
    await say(house, 1)
    again = await first_id(house, place)
    await say(house, 2)
    async with following(house, last=again) as events:
        seen = await take(events, 2)

    assert again == place
    assert [event["body"]["reason"] for event in seen] == ["number 1", "number 2"]


async def test_a_reader_of_an_empty_log_has_a_place_too(database_url: str) -> None:
    async with open_house(database_url) as house:
        await house.lend()
        place = await first_id(house)
        await house.run(40)
        (first,) = (await house.ask("GET", "/v1/events?limit=1")).body["items"]
        async with following(house, last=place) as events:
            assert (await anext(events))["body"]["id"] == first["id"]


async def test_a_reader_does_not_keep_the_service_from_stopping_and_its_stream_ends_in_order(
    database_url: str,
) -> None:
    async with open_house(database_url, replicas=0) as house:
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as readers:
            async with house.replica():
                events = [await readers.enter_async_context(following(house)) for _ in range(3)]
                began = loop.time()
            assert loop.time() - began < 3
            for stream in events:
                assert [event async for event in stream] == []


async def test_a_stream_ends_with_the_token_that_opened_it(house: House) -> None:
    token_id = uuid4()
    async with following(house, token_id=token_id) as events:
        await say(house, 1)
        assert len(await take(events, 1)) == 1
        await house.tell(TokenRevoked(at=house.clock.now(), token_id=token_id))
        await say(house, 2)
        assert [event async for event in events] == []


async def test_what_others_have_open_on_the_server_silences_nobody(house: House, postgres_url: str) -> None:
    start = (await house.ask("GET", "/v1/events?limit=200")).body["next_cursor"]
    opened = [
        (house.settings.database_dsn, "create table public.note (a int)"),  # a person's, forgotten
        (postgres_url, "create table public.gone_again (a int)"),  # another database's
    ]
    async with AsyncExitStack() as stack:
        for url, write in opened:
            connection = await asyncpg.connect(url)
            stack.push_async_callback(connection.close)
            await connection.execute("begin")
            await connection.execute(write)
        late = asyncio.Event()
        slow = asyncio.create_task(say(house, 0, late))
        try:
            async with following(house, last=start) as events:
                await until(lambda: _is_open(house), 30, "a late one under way")
                await say(house, 1)
                reading = asyncio.create_task(take(events, 2))
                await asyncio.wait([reading], timeout=1.2)
                assert not reading.done(), "shown before one of ours that was older"
                late.set()
                seen = await reading
        finally:
            late.set()
            await slow
    assert [event["body"]["reason"] for event in seen] == ["number 0", "number 1"]


async def _is_open(house: House) -> bool:
    """Whether a transaction of ours has taken its number, as its locks show."""
    query = """
        select count(*) as open from pg_locks l join pg_class c on c.oid = l.relation
        where c.relname = 'action_event' and l.mode = 'RowExclusiveLock'"""
    return bool((await house.fetch(query))[0]["open"])
