"""A bus whose messages say what work they came from, and whose handlers are noted as consequences of it."""

from collections.abc import Sequence
from dataclasses import replace

from libs.common.bus.base import Bus, BusSeen, DeadMessage, Handle, Message, Queue
from libs.common.tracing import Kind, Tracing, carried


class TracedBus:
    """Another bus, seen through traces. What a message carries from its outbox row is what publishing it belongs to."""

    def __init__(self, bus: Bus, tracing: Tracing, system: str) -> None:
        self._bus = bus
        self._tracing = tracing
        self._system = system

    async def publish(self, message: Message, *, public: bool = False) -> None:
        """Publish to every bound queue. Raises BusUnavailable."""
        facts = self._facts("publish", message.key, message)
        with self._tracing.work(f"publish {message.key}", message.headers, Kind.SAYS, **facts):
            await self._bus.publish(_carrying(message), public=public)

    async def send(self, queue: str, message: Message) -> None:
        """Publish to one queue. Raises NoSuchQueue, BusUnavailable."""
        facts = self._facts("send", queue, message)
        with self._tracing.work(f"send {message.key}", message.headers, Kind.SAYS, **facts):
            await self._bus.send(queue, _carrying(message))

    async def consume(self, queue: Queue, handle: Handle) -> None:
        """Deliver the queue's messages to `handle` until cancelled."""

        async def noted(message: Message) -> None:
            facts = self._facts("process", queue.name, message)
            with self._tracing.work(f"process {queue.name}", message.headers, Kind.HEARS, **facts):
                await handle(message)

        await self._bus.consume(queue, noted)

    async def declare(self, queues: Sequence[Queue]) -> None:
        """Make sure the queues and bindings exist."""
        await self._bus.declare(queues)

    async def depth(self) -> int:
        """Messages waiting or being handled in the declared queues."""
        return await self._bus.depth()

    async def look(self, queues: Sequence[str] = ()) -> BusSeen:
        """Count the dead, and what waits in these queues. Raises BusUnavailable."""
        return await self._bus.look(queues)

    async def dead(self, limit: int = 100) -> Sequence[DeadMessage]:
        """The parked messages, oldest first."""
        return await self._bus.dead(limit)

    async def retry_dead(self, number: int | None = None) -> int:
        """Put one or all parked messages back into their queues; returns how many."""
        return await self._bus.retry_dead(number)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._bus.aclose()

    def _facts(self, operation: str, destination: str, message: Message) -> dict[str, object]:
        """By OpenTelemetry's names for messages."""
        return {
            "messaging.system": self._system,
            "messaging.operation.type": operation,
            "messaging.destination.name": destination,
            "messaging.message.id": message.id,
        }


def traced(bus: Bus, tracing: Tracing, url: str) -> Bus:
    """The bus, with its messages traced where traces are collected."""
    if not tracing.is_on:
        return bus
    return TracedBus(bus, tracing, "rabbitmq" if url.startswith("amqp") else "postgresql")


def _carrying(message: Message) -> Message:
    return replace(message, headers={**message.headers, **carried()})
