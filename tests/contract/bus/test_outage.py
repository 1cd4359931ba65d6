"""The broker or the database is killed and started again, while everybody talks."""

import asyncio
from contextlib import suppress

import asyncpg
import pytest

from libs.common.bus.base import Bus, BusUnavailable
from tests.contract.bus.company import (
    Listener,
    Talker,
    a_message,
    a_queue,
    forever,
    listening,
    open_quick_bus,
)
from tests.support import until
from tools.parts.postgres import PostgresServer
from tools.parts.rabbitmq import RabbitNode

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.xdist_group("bus-outage")]
DEADLINE_S = 3.0


@pytest.fixture(params=["rabbitmq", "postgres"])
def server(request: pytest.FixtureRequest) -> RabbitNode | PostgresServer:
    """A server to kill."""
    part: RabbitNode | PostgresServer = request.getfixturevalue(f"private_{request.param}")
    return part


async def connect(server: RabbitNode | PostgresServer) -> Bus:
    """A bus on it, durable as in production, and impatient."""
    if isinstance(server, PostgresServer):
        # Tests' servers do not wait for the disk; what they confirm must survive their own death all the same.
        connection = await asyncpg.connect(server.url)
        await connection.execute("alter database postgres set synchronous_commit = on")
        await connection.close()
    return await open_quick_bus(server.url, DEADLINE_S)


async def test_nothing_confirmed_is_lost_when_the_server_is_killed(
    server: RabbitNode | PostgresServer,
) -> None:
    bus = await connect(server)
    await bus.declare([a_queue()])
    talker, listener = Talker(bus), Listener()
    talking = asyncio.create_task(talker.talk())

    async with listening(bus, a_queue(), listener):
        for _ in range(2):
            before = len(talker.confirmed)
            await until(lambda: len(talker.confirmed) > before + 50)  # noqa: B023 - awaited in this round
            await server.kill()
            await asyncio.sleep(3.5)  # an outage longer than the deadline
            await server.start()
        before = len(talker.confirmed)
        await until(lambda: len(talker.confirmed) > before + 50, timeout=30)
        talking.cancel()
        await asyncio.wait([talking])
        await until(lambda: set(talker.confirmed) <= set(listener.ids), timeout=30)
        await until(lambda: _is_empty(bus), timeout=30)
    assert talker.refusals > 0
    assert talker.longest_s < DEADLINE_S + 1
    await bus.aclose()


async def test_what_was_being_handled_comes_again_after_an_outage(
    server: RabbitNode | PostgresServer,
) -> None:
    bus = await connect(server)
    await bus.declare([a_queue()])
    stuck, well = Listener(forever), Listener()
    consumer = asyncio.create_task(bus.consume(a_queue(), stuck))
    await bus.publish(a_message("m"))
    await until(lambda: stuck.busy)
    await server.kill()
    consumer.cancel()
    await asyncio.wait([consumer], timeout=10)
    assert consumer.cancelled()
    await server.start()
    async with listening(bus, a_queue(), well):
        await until(lambda: well.ids == ["m"], timeout=15)
    await bus.aclose()


async def test_every_question_is_answered_or_refused_in_time(server: RabbitNode | PostgresServer) -> None:
    bus = await connect(server)
    await bus.declare([a_queue()])
    await server.stop()

    async with asyncio.timeout(DEADLINE_S + 1):
        answers = await asyncio.gather(
            bus.publish(a_message()),
            bus.send(a_queue().name, a_message()),
            bus.depth(),
            bus.dead(),
            return_exceptions=True,
        )
    assert [type(answer) for answer in answers] == [BusUnavailable] * 4
    async with asyncio.timeout(15):
        await bus.aclose()


async def test_a_consumer_may_begin_while_the_server_is_away(server: RabbitNode | PostgresServer) -> None:
    bus = await connect(server)
    await bus.declare([a_queue()])
    await bus.publish(a_message("before"))
    await server.stop()
    listener = Listener()

    async with listening(bus, a_queue(), listener):
        with suppress(BusUnavailable):
            await bus.publish(a_message("during"))
        await server.start()
        await until(lambda: "before" in listener.ids, timeout=15)
        await bus.publish(a_message("after"))
        await until(lambda: "after" in listener.ids)
    await bus.aclose()


async def _is_empty(bus: Bus) -> bool:
    with suppress(BusUnavailable):
        return await bus.depth() == 0
    return False
