"""Reading a queue that AMQP only lets one consume: take all, look, give back, one reader at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from libs.common.bus.rabbit.link import Link
from libs.common.bus.rabbit.wire import DEAD

MOST = 5_000
"""Parked messages that are looked at; of more than these the order is not kept."""
_READER = "tides.dead.reader"
_WITHIN_S = 5.0


@asynccontextmanager
async def taken_dead(link: Link) -> AsyncIterator[list[AbstractIncomingMessage]]:
    """The parked messages, oldest first; those that the block removes from the list do not return.

    If this process dies meanwhile the broker puts all of them back. Raises one of LOST, also while there is
    another reader.
    """
    async with link.channel() as channel:
        # An exclusive queue is a lock that ends with its owner: two readers would each see a part.
        reader = await channel.declare_queue(_READER, exclusive=True)
        try:
            count = await _count(channel)
            async with link.channel() as taking:
                taken = await _take(taking, min(count, MOST))
                before = len(taken)
                try:
                    yield taken
                finally:
                    if taken:
                        await taken[-1].nack(multiple=True, requeue=True)
                await _until_back(channel, count - before + len(taken))
        finally:
            await reader.delete(if_unused=False, if_empty=False)


async def _take(channel: AbstractChannel, count: int) -> list[AbstractIncomingMessage]:
    """All at once, because RabbitMQ requeues at the end: taking a part would change the order."""
    if count == 0:
        return []
    taken: list[AbstractIncomingMessage] = []
    enough = asyncio.Event()

    async def take(packet: AbstractIncomingMessage) -> None:
        taken.append(packet)
        if len(taken) == count:
            enough.set()

    await channel.set_qos(prefetch_count=count)
    queue = await channel.get_queue(DEAD, ensure=False)
    tag = await queue.consume(take)
    async with asyncio.timeout(_WITHIN_S):
        await enough.wait()
    await queue.cancel(tag)
    return taken


async def _count(channel: AbstractChannel) -> int:
    queue = await channel.declare_queue(DEAD, passive=True)
    return queue.declaration_result.message_count or 0


async def _until_back(channel: AbstractChannel, count: int) -> None:
    """Requeueing is not confirmed, so the next reader must be kept off until it shows."""
    async with asyncio.timeout(_WITHIN_S):
        while await _count(channel) < count:  # noqa: ASYNC110 - the broker announces nothing
            await asyncio.sleep(0.01)
