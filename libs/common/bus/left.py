"""What is left on a bus that nobody uses: asked before a database of an earlier day is put beside it."""

import asyncio
from collections.abc import Sequence

import aio_pika
import asyncpg
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity

from libs.common.bus.base import BusUnavailable
from libs.common.bus.rabbit.link import close_quietly

WITHIN_S = 10.0


async def count_left(url: str, queues: Sequence[str]) -> int:
    """Messages in those of the queues that exist; makes none. Raises BusUnavailable."""
    try:
        if url.startswith(("amqp://", "amqps://")):
            return await _on_broker(url, queues)
        return await _in_tables(url, queues)
    except (OSError, TimeoutError, AMQPError, asyncpg.PostgresError) as error:
        raise BusUnavailable(f"the bus does not answer ({type(error).__name__})") from None


async def _on_broker(url: str, queues: Sequence[str]) -> int:
    connection = await aio_pika.connect(url, timeout=WITHIN_S)
    try:
        return sum([await _count(connection, name) for name in queues])
    finally:
        await close_quietly(connection)


async def _count(connection: AbstractConnection, queue: str) -> int:
    """In a channel of its own: RabbitMQ closes the one that asked for a queue there is not."""
    try:
        async with asyncio.timeout(WITHIN_S), connection.channel() as channel:
            found = await channel.declare_queue(queue, passive=True)
            return found.declaration_result.message_count or 0
    except ChannelNotFoundEntity:
        return 0


async def _in_tables(url: str, queues: Sequence[str]) -> int:
    connection = await asyncpg.connect(url, timeout=WITHIN_S, command_timeout=WITHIN_S)
    try:
        if await connection.fetchval("select to_regclass('bus.message')") is None:
            return 0
        count = "select count(*) from bus.message where queue = any($1)"
        return int(await connection.fetchval(count, list(queues)))
    finally:
        await connection.close()
