"""What is left on a bus is counted, or given up in time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest

from libs.common.bus.base import Bus, BusUnavailable, Queue
from libs.common.bus.left import count_left
from libs.common.bus.messages import to_message
from tests.contract.tiny import an_event

CHANNEL_OPEN = b"\x00\x14\x00\x0a"
"""Class and method of the frame: https://www.rabbitmq.com/amqp-0-9-1-reference#channel.open"""


async def test_what_is_there_is_counted_and_nothing_is_made(bus: Bus, bus_url: str) -> None:
    queue = Queue("left.over", (an_event().key,))
    await bus.declare([queue])
    for number in range(3):
        await bus.publish(to_message(an_event(number), "/test"))
    for _ in range(2):
        assert await count_left(bus_url, [queue.name, "never.declared"]) == 3
    assert {seen.name: seen.waiting for seen in (await bus.look(["never.declared"])).queues} == {
        "never.declared": None
    }


@asynccontextmanager
async def deaf_to_channels(url: str) -> AsyncIterator[str]:
    """The broker behind a line on which no channel is ever opened: it takes the frame and says nothing."""
    parts = urlsplit(url)
    tasks: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if CHANNEL_OPEN not in data:
                writer.write(data)
        writer.close()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(parts.hostname, parts.port or 5672)
        tasks.update(
            (asyncio.create_task(pass_on(reader, there[1])), asyncio.create_task(pass_on(there[0], writer)))
        )

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}"))
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_broker_that_opens_no_channel_is_given_up(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.bus.left.WITHIN_S", 1.0)
    async with deaf_to_channels(amqp_url) as url, asyncio.timeout(30):
        with pytest.raises(BusUnavailable, match="TimeoutError"):
            await count_left(url, ["any"])
