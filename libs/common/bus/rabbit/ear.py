"""A consumer: handles messages side by side, acknowledges, pauses failures, parks what keeps failing."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aiormq import spec

from libs.common.bus.base import BusUnavailable, Handle, Message, Queue
from libs.common.bus.handling import attempt, cancel_all, cancel_requests, heed_cancellation, pause_s
from libs.common.bus.rabbit.link import LOST, Link
from libs.common.bus.rabbit.wire import declare_exchanges, declare_queue, deliveries_of, unpacked
from libs.common.bus.retry import Backoff

log = structlog.get_logger(__name__)

SETTLE_WITHIN_S = 3.0

Bury = Callable[[Message, str, str], Awaitable[None]]
"""Parks a message of a queue for a reason; returns once the broker has it. Raises BusUnavailable."""


class Ear:
    """One consumer of one queue. `in_hand` counts messages that it holds, being handled or paused."""

    def __init__(self, queue: Queue, handle: Handle, bury: Bury) -> None:
        self._queue = queue
        self._handle = handle
        self._bury = bury
        self._slots = asyncio.Semaphore(queue.prefetch)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def in_hand(self) -> int:
        """Messages delivered to this consumer and not settled yet."""
        return len(self._tasks)

    async def listen(self, link: Link) -> None:
        """Consume until cancelled; wait for a lost broker. Raises BusUnavailable once the link is closed."""
        backoff = Backoff()
        before = cancel_requests()
        while True:
            try:
                await self._listen_once(link, backoff)
            except LOST as error:
                log.warning("bus.consumer_lost", queue=self._queue.name, error=type(error).__name__)
            except asyncio.CancelledError:
                heed_cancellation(before)
                log.warning("bus.consumer_lost", queue=self._queue.name, error="channel cancelled")
            heed_cancellation(before)
            await backoff.pause()

    async def stop(self) -> None:
        """Drop everything in hand; closing the channel gives it back."""
        await cancel_all(self._tasks)

    async def _listen_once(self, link: Link, backoff: Backoff) -> None:
        async with link.channel() as channel:
            await declare_exchanges(channel)
        await declare_queue(link, self._queue)
        async with link.channel() as channel:
            # Paused failures stay unacknowledged: room for as many of them as are handled at once.
            await channel.set_qos(prefetch_count=2 * self._queue.prefetch)
            ended = await _ended(channel)
            queue = await channel.get_queue(self._queue.name, ensure=False)
            await queue.consume(self._take)
            backoff.reset()
            try:
                await ended.wait()
            finally:
                if not ended.is_set():
                    await self.stop()  # before the channel closes and others are given the messages
        log.warning("bus.consumer_lost", queue=self._queue.name, error="channel closed")

    async def _take(self, packet: AbstractIncomingMessage) -> None:
        # A task of our own: those of the channel are cancelled with it, and a handler ends what it began.
        task = asyncio.create_task(self._settle(packet))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle(self, packet: AbstractIncomingMessage) -> None:
        message, deliveries = unpacked(packet), deliveries_of(packet)
        with suppress(*LOST):  # the channel is gone: the broker delivers the message again
            async with self._slots:
                trouble = await attempt(self._handle, message, self._queue.name, deliveries)
            done = trouble is None or (
                (trouble.hopeless or deliveries >= self._queue.delivery_limit)
                and await self._parked(message, trouble.reason)
            )
            if not done:
                await asyncio.sleep(pause_s(deliveries))
            # A connection that dies now never tells whether the frame was sent.
            async with asyncio.timeout(SETTLE_WITHIN_S):
                await (packet.ack() if done else packet.nack(requeue=True))

    async def _parked(self, message: Message, reason: str) -> bool:
        try:
            await self._bury(message, self._queue.name, reason)
        except BusUnavailable:
            return False
        log.error("bus.message_parked", queue=self._queue.name, key=message.key, message=message.id)
        return True


async def _ended(channel: AbstractChannel) -> asyncio.Event:
    """Set when the channel is closed, or the broker cancels its consumer because the queue is gone."""
    ended = asyncio.Event()

    def closed(*_: object) -> None:
        ended.set()

    def cancelled(_: spec.Basic.Cancel) -> None:
        ended.set()

    channel.close_callbacks.add(closed)
    underlay = await channel.get_underlay_channel()
    underlay.on_consumer_cancel_callbacks.add(cancelled)
    return ended
