"""Those who talk and listen in these tests."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count

from libs.common.bus.base import Bus, BusUnavailable, Message, Queue
from libs.common.bus.postgres import PostgresBus
from libs.common.bus.rabbit import RabbitBus

LEASE_S = 1.5
_numbers = count(1)


async def open_quick_bus(url: str, deadline_s: float = 10.0) -> Bus:
    """A bus with a lease short enough to wait for."""
    if url.startswith("amqp"):
        return await RabbitBus.connect(url, deadline_s=deadline_s)
    return await PostgresBus.connect(url, deadline_s=deadline_s, lease_s=LEASE_S)


def a_message(id: str = "", key: str = "thing.done.v1", body: bytes = b"{}") -> Message:
    """A message like those of the outbox."""
    id = id or f"m{next(_numbers)}"
    return Message(id, key, body, {"ce-id": id, "ce-type": key, "ce-source": "/tides/test"})


def a_queue(name: str = "stats.thing.done.v1", keys: tuple[str, ...] = ("thing.done.v1",)) -> Queue:
    """A queue like those of the runner."""
    return Queue(name, keys)


class Listener:
    """Remembers what it handled, in order; `do` is called with each message first, and may raise or wait."""

    def __init__(self, do: Callable[[Message], Awaitable[None]] | None = None) -> None:
        self.begun: list[Message] = []
        self.handled: list[Message] = []
        self.busy = 0
        self.busiest = 0
        self._do = do

    async def __call__(self, message: Message) -> None:
        self.begun.append(message)
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            if self._do is not None:
                await self._do(message)
        finally:
            self.busy -= 1
        self.handled.append(message)

    @property
    def ids(self) -> list[str]:
        """Ids in the order in which they were handled."""
        return [message.id for message in self.handled]

    @property
    def counts(self) -> Counter[str]:
        """How often each id was handled."""
        return Counter(self.ids)


@asynccontextmanager
async def listening(bus: Bus, queue: Queue, listener: Listener) -> AsyncIterator["asyncio.Task[None]"]:
    """Consume while the block runs; a consumer that ended by itself fails the test."""
    task = asyncio.create_task(bus.consume(queue, listener))
    try:
        yield task
        assert not task.done(), f"the consumer ended: {task}"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def forever(_: Message) -> None:
    """Never ends handling."""
    await asyncio.Event().wait()


async def fail(message: Message) -> None:
    """Cannot handle anything."""
    raise ValueError(f"cannot handle {message.id}")


class Talker:
    """Publishes one message after another, and again until confirmed, as the outbox does."""

    def __init__(self, bus: Bus) -> None:
        self.confirmed: list[str] = []
        self.refusals = 0
        self.longest_s = 0.0
        self._bus = bus

    async def talk(self, lanes: int = 5) -> None:
        """Talk on several lanes at once, until cancelled."""
        await asyncio.gather(*(self._lane(number) for number in range(lanes)))

    async def _lane(self, lane: int) -> None:
        loop = asyncio.get_running_loop()
        for number in count():
            message = a_message(f"lane{lane}-{number}")
            while message.id not in self.confirmed:
                begun_at = loop.time()
                try:
                    await self._bus.publish(message)
                    self.confirmed.append(message.id)
                except BusUnavailable:
                    self.refusals += 1
                self.longest_s = max(self.longest_s, loop.time() - begun_at)
            await asyncio.sleep(0.005)
