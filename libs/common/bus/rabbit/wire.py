"""What stands in the broker, and what travels: exchanges, queues, packets."""

import zlib

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from aiormq.abc import ArgumentsType

from libs.common.bus.base import DeadMessage, Message, Queue, QueueSeen
from libs.common.bus.rabbit.link import Link

log = structlog.get_logger(__name__)

INTERNAL = "tides.internal"
PUBLIC = "tides"
DEAD = "tides.dead"
_QUEUE = "tides-queue"
_REASON = "tides-reason"
# Reading the dead counts as a delivery each time; RabbitMQ 4 would otherwise drop them after twenty looks.
_DEAD_ARGUMENTS: ArgumentsType = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000}


async def declare_exchanges(channel: AbstractChannel) -> None:
    """The exchanges and the queue of the dead."""
    await channel.declare_exchange(INTERNAL, aio_pika.ExchangeType.TOPIC, durable=True)
    await channel.declare_exchange(PUBLIC, aio_pika.ExchangeType.TOPIC, durable=True)
    dead = await channel.declare_exchange(DEAD, aio_pika.ExchangeType.FANOUT, durable=True)
    parked = await channel.declare_queue(DEAD, durable=True, arguments=_DEAD_ARGUMENTS)
    await parked.bind(dead)


async def declare_queue(link: Link, queue: Queue) -> None:
    """A queue and its bindings. One that exists with other arguments keeps them, which is logged."""
    try:
        async with link.channel() as channel:
            await channel.declare_queue(queue.name, durable=True, arguments=_arguments_of(queue))
    except ChannelPreconditionFailed:
        log.warning("bus.queue_differs", queue=queue.name, expires_s=queue.expires_s)
    async with link.channel() as channel:
        declared = await channel.get_queue(queue.name, ensure=False)
        for key in queue.keys:
            await declared.bind(INTERNAL, key)


async def count_in(link: Link, name: str) -> QueueSeen:
    """What waits in a queue and how many listen; asking for one that is not there ends the channel."""
    async with link.channel() as channel:
        try:
            seen = (await channel.declare_queue(name, passive=True)).declaration_result
        except ChannelNotFoundEntity:
            return QueueSeen(name, None)
        return QueueSeen(name, seen.message_count or 0, seen.consumer_count or 0)


def _arguments_of(queue: Queue) -> ArgumentsType:
    """What fails is parked by the consumer; the broker's own limit is for messages that kill consumers.

    Where messages expire there is no dead-letter exchange: RabbitMQ would send there what expired, and what
    is too old is not dead but done with. A message that kills every consumer is then dropped at the limit.
    """
    arguments: dict[str, str | int] = {"x-queue-type": "quorum", "x-delivery-limit": queue.delivery_limit}
    if queue.expires_s is not None:
        return {**arguments, "x-message-ttl": round(queue.expires_s * 1000)}
    return {
        **arguments,
        "x-dead-letter-exchange": DEAD,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def packed(message: Message, extra: dict[str, str] | None = None) -> aio_pika.Message:
    """The persistent AMQP message. `type` carries the key: the routing key of a resent one is its queue."""
    return aio_pika.Message(
        message.body,
        headers={**message.headers, **(extra or {})},
        message_id=message.id,
        type=message.key,
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )


def packed_dead(message: Message, queue: str, reason: str) -> aio_pika.Message:
    """A message for the queue of the dead, with where it came from and why."""
    return packed(message, {_QUEUE: queue, _REASON: reason})


def unpacked(packet: AbstractIncomingMessage) -> Message:
    """The message as its publisher gave it."""
    headers = {
        name: value
        for name, value in packet.headers.items()
        if isinstance(value, str) and not name.startswith(("x-", "tides-"))
    }
    return Message(packet.message_id or "", packet.type or packet.routing_key or "", packet.body, headers)


def deliveries_of(packet: AbstractIncomingMessage) -> int:
    """How often the message has been delivered, this time included."""
    count = packet.headers.get("x-delivery-count", 0)
    return 1 + (count if isinstance(count, int) else 0)


def dead_message_of(packet: AbstractIncomingMessage) -> DeadMessage:
    """What a parked message tells: our own headers, or RabbitMQ's where the broker parked it."""
    headers = packet.headers
    queue = str(headers.get(_QUEUE) or headers.get("x-first-death-queue") or "")
    reason = str(headers.get(_REASON) or headers.get("x-first-death-reason") or "unknown")
    message = unpacked(packet)
    return DeadMessage(zlib.crc32(f"{queue} {message.id}".encode()), queue, message, reason)
