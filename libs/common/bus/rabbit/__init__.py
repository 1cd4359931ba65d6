"""The bus on RabbitMQ: quorum queues, publisher confirms, manual acknowledgements.

Two connections, one for what is said and one for what is heard: a broker that slows publishers down does not
delay acknowledgements. Both are plain connections, opened again by whoever needs them: a channel opened anew
finds its exchanges and queues declared, also on a broker that came back empty.
"""

import asyncio
from collections.abc import Sequence
from typing import Self

import structlog
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelNotFoundEntity

from libs.common.bus.base import BusSeen, BusUnavailable, DeadMessage, Handle, Message, NoSuchQueue, Queue
from libs.common.bus.rabbit.dead import taken_dead
from libs.common.bus.rabbit.ear import Ear
from libs.common.bus.rabbit.link import LOST, Link, close_quietly
from libs.common.bus.rabbit.wire import (
    DEAD,
    INTERNAL,
    PUBLIC,
    count_in,
    dead_message_of,
    declare_exchanges,
    declare_queue,
    packed,
    packed_dead,
)
from libs.common.bus.retry import CONNECT_WITHIN_S, DEADLINE_S, until_deadline

log = structlog.get_logger(__name__)

RETRY_WITHIN_S = 60.0


class RabbitBus:
    """One process's use of one virtual host."""

    def __init__(self, url: str, *, deadline_s: float = DEADLINE_S) -> None:
        self._saying = Link(url, "tides-says")
        self._hearing = Link(url, "tides-hears")
        self._deadline_s = deadline_s
        self._queues: dict[str, Queue] = {}
        self._known: set[str] = set()
        self._ears: set[Ear] = set()
        self._channel: AbstractChannel | None = None
        self._opening = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._looking = asyncio.Lock()

    @classmethod
    async def connect(cls, url: str, *, deadline_s: float = DEADLINE_S) -> Self:
        """Connect and declare the exchanges. Raises BusUnavailable if there is no broker within 30 s."""
        bus = cls(url, deadline_s=deadline_s)
        try:
            await until_deadline(bus._publishing, LOST, CONNECT_WITHIN_S)
        except BaseException:
            await bus.aclose()
            raise
        return bus

    async def declare(self, queues: Sequence[Queue]) -> None:
        """Make sure the queues and bindings exist. A queue that exists with another expiry keeps it."""
        self._queues |= {queue.name: queue for queue in queues}
        waiting = list(queues)

        async def declare_waiting() -> None:
            while waiting:
                await declare_queue(self._hearing, waiting[0])
                self._known.add(waiting.pop(0).name)

        await until_deadline(declare_waiting, LOST, CONNECT_WITHIN_S)

    async def publish(self, message: Message, *, public: bool = False) -> None:
        """Publish to every bound queue; returns once the broker has it. Raises BusUnavailable."""
        packet = packed(message)
        missing = [INTERNAL, PUBLIC] if public else [INTERNAL]

        async def publish_missing() -> None:
            channel = await self._publishing()
            while missing:
                exchange = await channel.get_exchange(missing[0], ensure=False)
                key = (message.public_key or message.key) if missing[0] == PUBLIC else message.key
                await exchange.publish(packet, key, mandatory=False)
                missing.pop(0)

        await until_deadline(publish_missing, LOST, self._deadline_s)

    async def send(self, queue: str, message: Message) -> None:
        """Publish to one queue by name. Raises NoSuchQueue, BusUnavailable."""
        packet = packed(message)

        async def send_once() -> None:
            await self._know(queue)
            channel = await self._publishing()
            await channel.default_exchange.publish(packet, queue, mandatory=False)

        await until_deadline(send_once, LOST, self._deadline_s)

    async def consume(self, queue: Queue, handle: Handle) -> None:
        """Deliver the queue's messages to `handle` until cancelled; connects again by itself."""
        ear = Ear(queue, handle, self._bury)
        self._ears.add(ear)
        try:
            await ear.listen(self._hearing)
        finally:
            await ear.stop()
            self._ears.discard(ear)

    async def depth(self) -> int:
        """Messages ready in the declared queues plus those in the hands of this process.

        What another process has in hand is not seen, and a message on the wire is missed for an instant.
        """

        async def count_ready() -> int:
            async with self._hearing.channel() as channel:
                found = [await channel.declare_queue(name, passive=True) for name in tuple(self._queues)]
                return sum(queue.declaration_result.message_count or 0 for queue in found)

        ready = await until_deadline(count_ready, LOST, self._deadline_s)
        return ready + sum(ear.in_hand for ear in self._ears)

    async def look(self, queues: Sequence[str] = ()) -> BusSeen:
        """Count the dead, and what waits in these queues and who listens. Raises BusUnavailable."""

        async def count() -> BusSeen:
            dead = await count_in(self._saying, DEAD)
            return BusSeen(dead.waiting or 0, tuple([await count_in(self._saying, name) for name in queues]))

        return await until_deadline(count, LOST, self._deadline_s)

    async def dead(self, limit: int = 100) -> Sequence[DeadMessage]:
        """The parked messages, oldest first; `number` is made from queue and message id, so it stays."""

        async def look() -> list[DeadMessage]:
            async with self._reading, taken_dead(self._hearing) as parked:
                return [dead_message_of(packet) for packet in parked[:limit]]

        return await until_deadline(look, LOST, self._deadline_s)

    async def retry_dead(self, number: int | None = None) -> int:
        """Put one (by its number) or all parked messages back where they came from; returns how many."""

        async def retry() -> int:
            async with self._reading, taken_dead(self._hearing) as parked:
                before = len(parked)
                for packet in tuple(parked):
                    dead = dead_message_of(packet)
                    if number in (None, dead.number) and await self._revive(dead):
                        await packet.ack()
                        parked.remove(packet)
                return before - len(parked)

        return await until_deadline(retry, LOST, RETRY_WITHIN_S)

    async def aclose(self) -> None:
        """Close both connections; unacknowledged messages are delivered again elsewhere."""
        for ear in tuple(self._ears):
            await ear.stop()
        await self._hearing.aclose()
        await self._saying.aclose()

    async def _publishing(self) -> AbstractChannel:
        """The channel that all publishing shares, opened again after a loss."""
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                channel = await self._saying.open_channel(confirms=True)
                try:
                    await declare_exchanges(channel)
                    for queue in self._queues.values():
                        await declare_queue(self._saying, queue)
                except BaseException:
                    await close_quietly(channel)
                    raise
                self._channel = channel
            return self._channel

    async def _know(self, queue: str) -> None:
        """Publishing to the default exchange says nothing when there is no such queue, so ask once."""
        async with self._looking:  # a whole batch asks at once, and each question takes a channel
            if queue in self._known:
                return
            async with self._saying.channel() as channel:
                try:
                    await channel.declare_queue(queue, passive=True)
                except ChannelNotFoundEntity:
                    raise NoSuchQueue(f"there is no queue {queue}") from None
            self._known.add(queue)

    async def _bury(self, message: Message, queue: str, reason: str) -> None:
        packet = packed_dead(message, queue, reason)

        async def publish_dead() -> None:
            channel = await self._publishing()
            exchange = await channel.get_exchange(DEAD, ensure=False)
            await exchange.publish(packet, message.key, mandatory=False)

        await until_deadline(publish_dead, LOST, self._deadline_s)

    async def _revive(self, dead: DeadMessage) -> bool:
        try:
            if not dead.queue:
                raise BusUnavailable("it does not say where it came from")
            await self.send(dead.queue, dead.message)
        except BusUnavailable as error:
            log.warning("bus.not_retried", queue=dead.queue, message=dead.message.id, error=str(error))
            return False
        return True
