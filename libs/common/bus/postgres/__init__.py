"""The bus in PostgreSQL tables, for the embedded default: nothing to install beside the database.

A consumer leases messages (SKIP LOCKED), handles them, deletes them. Leases are extended while handlers run;
a killed process's messages return when its leases end. Consumers are woken inside the process and by NOTIFY
between processes, and look for themselves every second.
"""

import asyncio
from collections.abc import Sequence
from typing import Self
from uuid import uuid4

import structlog

from libs.common.bus.base import BusSeen, BusUnavailable, DeadMessage, Handle, Message, NoSuchQueue, Queue
from libs.common.bus.handling import cancel_all, heed_cancellation
from libs.common.bus.postgres.batch import Batch
from libs.common.bus.postgres.ears import Ear, Ears
from libs.common.bus.postgres.store import Claimed, Outcome, Outgoing, Store
from libs.common.bus.retry import CONNECT_WITHIN_S, DEADLINE_S, Backoff, until_deadline

log = structlog.get_logger(__name__)

LEASE_S = 60.0
POLL_S = 1.0
STOP_WITHIN_S = 5.0
BATCH = 200
_ANY = (Exception,)


class PostgresBus:
    """One process's use of the schema `bus` of a database; at most four connections."""

    def __init__(self, url: str, *, deadline_s: float = DEADLINE_S, lease_s: float = LEASE_S) -> None:
        self._store = Store(url, uuid4().hex)
        self._deadline_s = deadline_s
        self._lease_s = lease_s
        self._queues: dict[str, Queue] = {}
        self._known: set[str] = set()
        self._ears = Ears()
        self._outgoing = Batch(self._write, BATCH)
        self._outcomes = Batch(self._store.settle, BATCH)
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []
        self._dispatcher: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, url: str, *, deadline_s: float = DEADLINE_S, lease_s: float = LEASE_S) -> Self:
        """Connect and make the tables. Raises BusUnavailable if there is no server within 30 s."""
        bus = cls(url, deadline_s=deadline_s, lease_s=lease_s)
        try:
            await until_deadline(bus._store.open, _ANY, CONNECT_WITHIN_S)
        except BaseException:
            await bus._store.aclose()
            raise
        loops = (bus._outgoing.run(), bus._outcomes.run(), bus._listen(), bus._keep())
        bus._tasks = [asyncio.create_task(loop) for loop in loops]
        bus._dispatcher = asyncio.create_task(bus._dispatch())
        return bus

    async def declare(self, queues: Sequence[Queue]) -> None:
        """Make sure the queues and bindings exist; expiry and limit are those of the latest declaration."""
        await until_deadline(lambda: self._store.declare(queues), _ANY, CONNECT_WITHIN_S)
        self._queues |= {queue.name: queue for queue in queues}
        self._known |= {queue.name for queue in queues}

    async def publish(self, message: Message, *, public: bool = False) -> None:
        """Publish to every bound queue; returns once it is committed. Raises BusUnavailable.

        Outsiders cannot subscribe to tables, so `public` makes no difference here.
        """
        await self._put(Outgoing(message, None))

    async def send(self, queue: str, message: Message) -> None:
        """Publish to one queue by name. Raises NoSuchQueue, BusUnavailable."""
        if queue not in self._known:
            if not await until_deadline(lambda: self._store.knows(queue), _ANY, self._deadline_s):
                raise NoSuchQueue(f"there is no queue {queue}")
            self._known.add(queue)
        await self._put(Outgoing(message, queue))

    async def consume(self, queue: Queue, handle: Handle) -> None:
        """Deliver the queue's messages to `handle` until cancelled; survives a restart of the database."""
        await self.declare([queue])
        ear = Ear(queue, handle, self._settle)
        self._ears.add(ear)
        try:
            await asyncio.Event().wait()
        finally:
            self._ears.remove(ear)
            await self._give_back(await ear.stop())

    async def depth(self) -> int:
        """Messages waiting, paused or being handled in the declared queues, by whichever process."""
        return await until_deadline(lambda: self._store.depth(self._queues), _ANY, self._deadline_s)

    async def look(self, queues: Sequence[str] = ()) -> BusSeen:
        """Count the dead, and what waits in these queues, by whichever process it was put there."""
        return await until_deadline(lambda: self._store.look(queues), _ANY, self._deadline_s)

    async def dead(self, limit: int = 100) -> Sequence[DeadMessage]:
        """The parked messages, oldest first."""
        return await until_deadline(lambda: self._store.dead(limit), _ANY, self._deadline_s)

    async def retry_dead(self, number: int | None = None) -> int:
        """Put one (by its number) or all parked messages back into their queues; returns how many."""
        queues = await until_deadline(lambda: self._store.retry_dead(number), _ANY, self._deadline_s)
        for queue in set(queues):
            self._ears.stir(queue)
        return len(queues)

    async def aclose(self) -> None:
        """Give back what is being handled and close the connections."""
        self._closing = True
        self._ears.stir_all()
        if self._dispatcher is not None:
            # Not cancelled: a claim under way would hold its messages until the lease ends.
            await asyncio.wait([self._dispatcher], timeout=STOP_WITHIN_S)
            await cancel_all([self._dispatcher])
        held = [claimed for ear in self._ears for claimed in await ear.stop()]
        await cancel_all(self._tasks)
        self._outgoing.abandon(BusUnavailable("the bus is closed"))
        await self._give_back(held)
        await self._settle_rest()
        await self._store.aclose()

    async def _put(self, outgoing: Outgoing) -> None:
        if self._closing:
            raise BusUnavailable("the bus is closed")
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._outgoing.put(outgoing)
        except TimeoutError:
            trouble = self._outgoing.trouble
            why = f"not committed in {self._deadline_s:g} s ({type(trouble).__name__})"
            raise BusUnavailable(why) from trouble

    async def _write(self, outgoing: list[Outgoing]) -> None:
        for queue in await self._store.publish(outgoing):
            self._ears.stir(queue)

    def _settle(self, outcome: Outcome) -> None:
        queue = outcome.claimed.queue

        def settled(written: "asyncio.Future[None]") -> None:
            if not written.cancelled() and (error := written.exception()) is not None:
                log.warning("bus.not_settled", queue=queue, error=type(error).__name__)
            elif outcome.pause_s is not None:
                # The pause is counted from the writing, so the look for it is too.
                asyncio.get_running_loop().call_later(outcome.pause_s, self._ears.stir, queue)

        self._outcomes.put(outcome).add_done_callback(settled)
        self._ears.freed(queue)

    async def _give_back(self, held: list[Claimed]) -> None:
        if not held:
            return
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await self._store.release(held)
        except Exception as error:
            log.warning("bus.not_given_back", messages=len(held), error=type(error).__name__)
        for queue in {claimed.queue for claimed in held}:
            self._ears.stir(queue)

    async def _settle_rest(self) -> None:
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await self._outcomes.flush()
        except TimeoutError as error:
            log.warning("bus.not_settled", error=type(error).__name__)
        self._outcomes.abandon(BusUnavailable("the bus is closed"))

    async def _dispatch(self) -> None:
        """Claim for whoever has room, whenever there may be something."""
        backoff = Backoff()
        while not self._closing:
            heed_cancellation()
            room = await self._ears.stirred(POLL_S)
            if not room or self._closing:
                continue
            try:
                found = await self._store.claim(room, self._lease_s)
            except Exception as error:
                log.warning("bus.claim_failed", error=type(error).__name__)
                self._ears.stir_all()
                await backoff.pause()
                continue
            backoff.reset()
            await self._give_back(self._ears.hand_out(room, found))

    async def _listen(self) -> None:
        """Hear of other processes' messages; after a loss look into every queue."""
        backoff = Backoff()
        while True:
            try:
                await self._store.listen(self._ears.stir)
            except Exception as error:
                log.warning("bus.listener_lost", error=type(error).__name__)
            heed_cancellation()
            self._ears.stir_all()
            await backoff.pause()

    async def _keep(self) -> None:
        """Extend leases, sweep."""
        beat = 0
        while True:
            await asyncio.sleep(self._lease_s / 3)
            held = [claimed for ear in self._ears for claimed in ear.held]
            beat += 1
            try:
                if held:
                    await self._store.extend(held, self._lease_s)
                if beat % 3 == 0:
                    for queue, key, message in await self._store.sweep():
                        log.error("bus.message_parked", queue=queue, key=key, message=message)
            except Exception as error:
                log.warning("bus.keeping_failed", error=type(error).__name__)
            heed_cancellation()
