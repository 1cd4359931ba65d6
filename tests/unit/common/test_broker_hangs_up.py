"""A broker that goes away while it is being connected to is a broker that is away, and nothing worse."""

import asyncio

import pytest
from aiormq.connection import FrameReceiver
from pamqp import frame
from pamqp.commands import Connection

from libs.common.bus.rabbit.link import LOST, Link

GREETING = frame.marshal(Connection.Start(mechanisms="PLAIN", locales="en_US", server_properties={}), 0)
TUNE = frame.marshal(Connection.Tune(2047, 131072, 60), 0)


async def connect_to_one_that_says(said: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(said)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        link = Link(f"amqp://guest:guest@127.0.0.1:{port}/", "test")
        with pytest.raises(LOST):
            await link.connection()
        await link.aclose()


@pytest.mark.parametrize(
    "said", [b"", GREETING[:3], GREETING[:40], GREETING, GREETING + TUNE, GREETING + TUNE[:9]]
)
async def test_a_broker_that_hangs_up_amid_its_greeting_is_away(said: bytes) -> None:
    await connect_to_one_that_says(said)


async def test_so_it_is_where_word_and_end_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen in a storm: aiormq's reader then ends as an iterator does, and the process that started ended with it."""

    async def at_its_end(self: FrameReceiver) -> None:
        raise StopAsyncIteration

    monkeypatch.setattr(FrameReceiver, "get_frame", at_its_end)
    await connect_to_one_that_says(GREETING)
