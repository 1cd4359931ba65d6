"""The bus: one protocol, two implementations (RabbitMQ, PostgreSQL tables), one contract suite.

At-least-once. A handler that returns is acknowledged; one that raises sees the message again after a growing pause,
and at the delivery limit, or when the handler says that it is hopeless, the message is parked among the dead, from
where a person can retry it.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

DELIVERY_LIMIT = 20


class BusUnavailable(Exception):
    """The broker did not confirm in time; nothing is known about the message: publish it again."""


class Hopeless(Exception):
    """A handler's word that this message will never be handled: it is parked at once."""


class NoSuchQueue(BusUnavailable):
    """Nobody has ever declared the queue: it may be declared later, or never."""


@dataclass(frozen=True, slots=True)
class Message:
    """What travels: an encoded event with CloudEvents 1.0 attributes as headers."""

    id: str
    key: str
    """Routing key, the event's key."""
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """`ce-id`, `ce-source`, `ce-type`, `ce-time`, `ce-subject`, `ce-specversion`."""
    public_key: str | None = None
    """Routing key on the public exchange, where it is another one."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue of one consumer group: replicas of a service compete for its messages."""

    name: str
    """`<service>.<event key>`."""
    keys: tuple[str, ...]
    expires_s: float | None = None
    """Messages older than this are dropped, not delivered; None: kept for ever."""
    prefetch: int = 10
    """Messages handled at once by one consumer."""
    delivery_limit: int = DELIVERY_LIMIT


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message that could not be handled, with where and why as far as known."""

    number: int
    queue: str
    message: Message
    reason: str


@dataclass(frozen=True, slots=True)
class QueueSeen:
    """A queue as the bus shows it."""

    name: str
    waiting: int | None
    """Messages that nobody has in hand; None: nobody has ever declared the queue."""
    consumers: int | None = None
    """None: this bus does not know who listens."""


@dataclass(frozen=True, slots=True)
class BusSeen:
    """The bus at a glance."""

    dead: int
    """Messages that were given up and wait for a person."""
    queues: tuple[QueueSeen, ...] = ()


Handle = Callable[[Message], Awaitable[None]]


class Bus(Protocol):
    """A connection to the bus. All methods survive a broker that restarts: they wait and reconnect by themselves."""

    async def declare(self, queues: Sequence[Queue]) -> None:
        """Make sure the queues and bindings exist before anything is published."""

    async def publish(self, message: Message, *, public: bool = False) -> None:
        """Publish to every bound queue, and to the public exchange if asked; returns once the broker has it.

        Raises BusUnavailable when there is no confirmation within the deadline (10 s).
        """

    async def send(self, queue: str, message: Message) -> None:
        """Publish to one queue by name (replay for a late joiner). Raises NoSuchQueue, BusUnavailable."""

    async def consume(self, queue: Queue, handle: Handle) -> None:
        """Deliver the queue's messages to `handle`, at most `prefetch` at once, until cancelled."""

    async def depth(self) -> int:
        """Messages waiting or being handled in the declared queues."""

    async def look(self, queues: Sequence[str] = ()) -> BusSeen:
        """Count the dead, and what waits in these queues. Changes nothing. Raises BusUnavailable."""

    async def dead(self, limit: int = 100) -> Sequence[DeadMessage]:
        """The parked messages, oldest first, without taking them away."""

    async def retry_dead(self, number: int | None = None) -> int:
        """Put one (by its number) or all parked messages back into their queues; returns how many."""

    async def aclose(self) -> None:
        """Close the connection; unacknowledged messages are delivered again elsewhere."""
