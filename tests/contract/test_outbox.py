"""The outbox: what was committed is published, whoever dies, and what cannot be published is not in the way."""

import asyncio
import signal
import sys
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast
from uuid import UUID

import pytest

from libs.common.bus.base import Bus, BusUnavailable, Message, Queue
from libs.common.bus.messages import decode
from libs.common.contracts.resource import ResourceRecovered
from libs.common.db import Database
from libs.common.inbox import first_time
from libs.common.outbox import BATCH, PARK_AFTER, relay
from tests.contract.tiny import Wire, an_event, end_claims, texts, tiny_database, waiting, write
from tests.support import until

ROOT = Path(__file__).parents[2]
QUEUE = Queue("reader.resource.recovered.v1", (ResourceRecovered.key,))


async def _emit(database: Database, numbers: Iterable[int]) -> None:
    async with database.transaction() as session:
        for number in numbers:
            session.emit(an_event(number))


class Reader:
    """A service that hears: each message is a note, once."""

    def __init__(self, database: Database) -> None:
        self.deliveries = 0
        self._database = database

    async def __call__(self, message: Message) -> None:
        self.deliveries += 1
        event = decode(message)
        async with self._database.transaction() as session:
            if await first_time(session, event.id, event.key):
                await write(session, event.subject)


class Broker:
    """Takes everything, or fails as told: for the sender's side alone."""

    def __init__(self) -> None:
        self.taken: list[Message] = []
        self.refuses: dict[str, Exception] = {}

    async def publish(self, message: Message, *, public: bool = False) -> None:
        await asyncio.sleep(0)
        error = self.refuses.get(message.headers["ce-subject"])
        if error is not None:
            raise error
        self.taken.append(message)

    @property
    def bus(self) -> Bus:
        return cast(Bus, self)

    @property
    def subjects(self) -> list[int]:
        """The numbers of the events taken, in order."""
        return [UUID(message.headers["ce-subject"]).int for message in self.taken]


async def test_a_relay_is_killed_and_three_go_on_and_each_event_counts_once(
    database_url: str, bus_url: str, bus: Bus
) -> None:
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(tiny_database(database_url)) for _ in range(3)]
        reader = Reader(await stack.enter_async_context(tiny_database(database_url, "reader")))
        await bus.declare([QUEUE])
        await _emit(replicas[0], range(25))

        killed = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.contract.relay_process", database_url, bus_url, "7"), cwd=ROOT
        )
        assert await killed.wait() == -signal.SIGKILL
        assert len(await waiting(replicas[0])) == 25, "nothing is deleted before its confirmation is settled"
        wires = [Wire(bus) for _ in replicas]
        assert await relay(replicas[0], cast(Bus, wires[0])) == 0, "another's claim holds"

        await end_claims(replicas[0])
        pairs = zip(replicas, wires, strict=True)
        sent = await asyncio.gather(*(relay(database, cast(Bus, wire)) for database, wire in pairs))
        assert sum(sent) == 25
        assert await waiting(replicas[0]) == []

        hearing = asyncio.create_task(bus.consume(QUEUE, reader))
        await until(lambda: _is_empty(bus), what="the queue to be empty")
        hearing.cancel()
        await asyncio.wait([hearing])
        assert sorted(await texts(reader._database)) == sorted(an_event(n).subject for n in range(25))
        assert reader.deliveries >= 25 + 7, "what the killed one had published came twice"


async def _is_empty(bus: Bus) -> bool:
    return await bus.depth() == 0


async def test_more_than_a_batch_goes_out_at_once_and_in_order(database: Database) -> None:
    broker, many = Broker(), 2 * BATCH + 3
    await _emit(database, range(many))
    assert await relay(database, broker.bus) == many
    assert broker.subjects == list(range(many))
    assert await relay(database, broker.bus) == 0


async def test_only_public_events_go_to_outsiders(database: Database, bus: Bus) -> None:
    wire = Wire(bus)
    await _emit(database, [1])
    await relay(database, cast(Bus, wire))
    assert [public for _, public in wire.passed] == [True]


async def test_a_row_that_cannot_be_published_is_parked_and_not_in_the_way(database: Database) -> None:
    broker = Broker()
    broker.refuses[an_event(2).subject] = ValueError("the headers are too long")
    await _emit(database, range(5))
    assert await relay(database, broker.bus) == 4
    assert sorted(broker.subjects) == [0, 1, 3, 4]
    for tries in range(1, PARK_AFTER):
        (row,) = await waiting(database)
        assert (row.attempts, row.parked_at) == (tries, None)
        assert await relay(database, broker.bus) == 0, "not again before its claim is over"
        await end_claims(database)
        assert await relay(database, broker.bus) == 0

    (row,) = await waiting(database)
    assert row.attempts == PARK_AFTER
    assert row.parked_at is not None
    broker.refuses.clear()
    await end_claims(database)
    await _emit(database, [7])
    assert await relay(database, broker.bus) == 1
    assert (broker.subjects[-1], len(await waiting(database))) == (7, 1)


async def test_a_bus_that_is_down_loses_nothing_and_delays_nothing(database: Database) -> None:
    broker = Broker()
    await _emit(database, range(6))
    broker.refuses |= {an_event(number).subject: BusUnavailable("no answer in 10 s") for number in (1, 3, 5)}
    with pytest.raises(BusUnavailable):
        await relay(database, broker.bus)
    assert sorted(broker.subjects) == [0, 2, 4]
    assert [(row.attempts, row.claimed_until) for row in await waiting(database)] == [(0, None)] * 3
    broker.refuses.clear()
    assert await relay(database, broker.bus) == 3
    assert sorted(broker.subjects) == list(range(6))
    assert await waiting(database) == []


async def test_an_addressed_row_goes_to_its_queue_alone(database: Database, bus: Bus) -> None:
    other = Queue("other.resource.recovered.v1", (ResourceRecovered.key,))
    await bus.declare([QUEUE, other])
    async with database.transaction() as session:
        session.emit(an_event(1), queue=QUEUE.name)
        session.emit(an_event(2))
    assert await relay(database, bus) == 2
    assert await waiting(database) == []

    assert sorted(await _drained(bus, QUEUE, 2)) == [1, 2]
    assert await _drained(bus, other, 1) == [2]


async def _drained(bus: Bus, queue: Queue, count: int) -> list[int]:
    """The numbers of the events in a queue: this many, and no more."""
    heard: list[int] = []

    async def hear(message: Message) -> None:
        heard.append(UUID(message.headers["ce-subject"]).int)

    depth = await bus.depth()
    hearing = asyncio.create_task(bus.consume(queue, hear))

    async def emptied() -> bool:
        return len(heard) >= count and await bus.depth() <= depth - count

    await until(emptied, what=f"{count} messages in {queue.name}")
    hearing.cancel()
    await asyncio.wait([hearing])
    return heard


async def test_a_row_for_a_queue_that_does_not_exist_is_dropped_in_the_end_and_never_in_the_way(
    database: Database, bus: Bus
) -> None:
    await bus.declare([QUEUE])
    async with database.transaction() as session:
        for number in range(BATCH + 1):
            session.emit(an_event(number), queue="nobody.resource.recovered.v1")
        session.emit(an_event(7), queue=QUEUE.name)
        session.emit(an_event(8))
    assert await relay(database, bus) == 2, "no trouble of the bus, and not only the first batch is looked at"
    assert sorted(await _drained(bus, QUEUE, 2)) == [7, 8]

    for tries in range(1, PARK_AFTER):
        rows = await waiting(database)
        assert (len(rows), {row.attempts for row in rows}) == (BATCH + 1, {tries})
        await end_claims(database)
        assert await relay(database, bus) == 0
    assert await waiting(database) == []


async def test_a_queue_that_is_declared_late_gets_what_waits_for_it(database: Database, bus: Bus) -> None:
    async with database.transaction() as session:
        session.emit(an_event(1), queue=QUEUE.name)
    assert await relay(database, bus) == 0
    await bus.declare([QUEUE])
    await end_claims(database)
    assert await relay(database, bus) == 1
    assert await _drained(bus, QUEUE, 1) == [1]


async def test_what_a_long_transaction_wrote_out_goes_with_it_alone(database: Database) -> None:
    broker = Broker()

    async def fail() -> None:
        async with database.transaction() as session:
            session.emit(an_event(1))
            await session.write_out()
            raise RuntimeError("no commit")

    with pytest.raises(RuntimeError):
        await fail()
    async with database.transaction() as session:
        session.emit(an_event(2))
        await session.write_out()
        session.emit(an_event(3))
        assert await relay(database, broker.bus) == 0, "not before the commit"
    assert await relay(database, broker.bus) == 2
    assert broker.subjects == [2, 3]


async def test_a_bus_that_was_closed_loses_nothing(database: Database, bus_url: str, bus: Bus) -> None:
    await bus.aclose()
    await _emit(database, range(3))
    with pytest.raises(BusUnavailable):
        await relay(database, bus)
    assert len(await waiting(database)) == 3


async def test_an_orderly_end_of_a_relay_keeps_no_claim(database: Database) -> None:
    """The next process publishes at once what this one did not get to."""

    async def hang(_: Message) -> None:
        hanging.set()
        await asyncio.Event().wait()

    hanging, broker = asyncio.Event(), Broker()
    wire = Wire(broker.bus, before=hang)
    await _emit(database, range(3))
    relaying = asyncio.create_task(relay(database, cast(Bus, wire)))
    await hanging.wait()
    relaying.cancel()
    await asyncio.wait([relaying])
    assert relaying.cancelled()
    assert await relay(database, broker.bus) == 3
