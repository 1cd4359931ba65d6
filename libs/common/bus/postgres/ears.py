"""The consumers of one process: who is free, what they hold, and which queues are worth a look."""

import asyncio
from collections.abc import Callable, Iterator

import structlog

from libs.common.bus.base import Handle, Queue
from libs.common.bus.handling import attempt, cancel_all, pause_s
from libs.common.bus.postgres.store import Claimed, Outcome

log = structlog.get_logger(__name__)


class Ear:
    """One consumer: handles up to `prefetch` messages at once and reports each outcome."""

    def __init__(self, queue: Queue, handle: Handle, settle: Callable[[Outcome], None]) -> None:
        self.queue = queue
        self._handle = handle
        self._settle = settle
        self._handling: dict[asyncio.Task[None], Claimed] = {}

    @property
    def room(self) -> int:
        """How many more messages it can take."""
        return self.queue.prefetch - len(self._handling)

    @property
    def held(self) -> list[Claimed]:
        """What is being handled."""
        return list(self._handling.values())

    def take(self, claimed: Claimed) -> None:
        """Begin to handle a message."""
        task = asyncio.create_task(self._run(claimed))
        self._handling[task] = claimed

    async def stop(self) -> list[Claimed]:
        """Cancel everything; the answer is what was not handled to its end."""
        await cancel_all(list(self._handling))
        unhandled = self.held
        self._handling.clear()
        return unhandled

    async def _run(self, claimed: Claimed) -> None:
        trouble = await attempt(self._handle, claimed.message, claimed.queue, claimed.deliveries)
        # Not reached when this task was cancelled: what is still listed then is given back.
        task = asyncio.current_task()
        if task is not None:
            self._handling.pop(task, None)
        if trouble is None:
            self._settle(Outcome(claimed))
        elif claimed.deliveries < self.queue.delivery_limit and not trouble.hopeless:
            self._settle(Outcome(claimed, trouble.reason, pause_s(claimed.deliveries)))
        else:
            log.error(
                "bus.message_parked", queue=claimed.queue, key=claimed.message.key, message=claimed.message.id
            )
            self._settle(Outcome(claimed, trouble.reason))


class Ears:
    """All consumers of a process, and the queues that may have something for them."""

    def __init__(self) -> None:
        self._ears: list[Ear] = []
        self._stirred: set[str] = set()
        self._backlogged: set[str] = set()
        self._wake = asyncio.Event()

    def __iter__(self) -> Iterator[Ear]:
        return iter(self._ears)

    def add(self, ear: Ear) -> None:
        """A new consumer; its queue is looked into at once."""
        self._ears.append(ear)
        self.stir(ear.queue.name)

    def remove(self, ear: Ear) -> None:
        """A consumer that takes nothing more."""
        self._ears.remove(ear)

    def stir(self, queue: str) -> None:
        """There may be something in the queue."""
        if any(ear.queue.name == queue for ear in self._ears):
            self._stirred.add(queue)
            self._wake.set()

    def stir_all(self) -> None:
        """There may be something in every queue; also wakes a dispatcher without queues."""
        self._stirred |= {ear.queue.name for ear in self._ears}
        self._wake.set()

    def freed(self, queue: str) -> None:
        """A consumer has room again. Worth a look only if the last one did not empty the queue."""
        if queue in self._backlogged:
            self.stir(queue)

    async def stirred(self, within_s: float) -> dict[str, int]:
        """Wait for queues worth a look: by name, how many messages their consumers have room for."""
        try:
            async with asyncio.timeout(within_s):
                await self._wake.wait()
        except TimeoutError:
            self.stir_all()
        self._wake.clear()
        queues, self._stirred = self._stirred, set()
        return {queue: room for queue in sorted(queues) if (room := self._room(queue)) > 0}

    def hand_out(self, room: dict[str, int], found: list[Claimed]) -> list[Claimed]:
        """Give messages to the consumers with most room; the answer is what nobody wants any more."""
        unwanted: list[Claimed] = []
        for claimed in found:
            room[claimed.queue] -= 1
            ears = [ear for ear in self._ears if ear.queue.name == claimed.queue]
            if ears:
                max(ears, key=lambda ear: ear.room).take(claimed)
            else:
                unwanted.append(claimed)
        self._backlogged -= room.keys()
        self._backlogged |= {queue for queue, left in room.items() if left == 0}
        return unwanted

    def _room(self, queue: str) -> int:
        rooms = [ear.room for ear in self._ears if ear.queue.name == queue]
        if rooms and sum(rooms) == 0:
            # Nobody looks now, so whoever is free next must.
            self._backlogged.add(queue)
        return sum(rooms)
