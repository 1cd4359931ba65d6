"""Messages while the database of their service is away, and messages that nobody can read."""

import asyncio

import asyncpg
import pytest
from structlog.testing import capture_logs

from libs.common.bus.base import Message
from libs.common.bus.messages import to_message
from libs.common.contracts.resource import ResourceRecovered
from libs.common.db import Database
from tests.contract.tiny import HEARING, a_process, an_event, texts
from tests.support import until
from tools.parts.postgres import PostgresServer


@pytest.mark.chaos
async def test_a_message_waits_for_the_database_and_no_delivery_is_counted(
    private_postgres: PostgresServer, amqp_url: str
) -> None:
    # Tests' servers do not wait for the disk; what is committed here must survive the server's death.
    connection = await asyncpg.connect(private_postgres.url)
    await connection.execute("alter database postgres set synchronous_commit = on")
    await connection.close()
    with capture_logs() as logs:
        async with a_process(HEARING, database_url=private_postgres.url, bus_url=amqp_url) as run:
            database = run.services[0].database
            await run.bus.publish(to_message(an_event(1), "/test"))
            await until(lambda: _kept(database, "1"), what="the first")
            await private_postgres.kill()
            await run.bus.publish(to_message(an_event(2), "/test"))
            waits = "event.waits_for_database"
            await until(lambda: [line for line in logs if line["event"] == waits], what="the waiting")
            await asyncio.sleep(3)  # time for four more deliveries, if each failure were one
            await private_postgres.start()
            await until(lambda: _kept(database, "2"), 30, "the second")
            assert await run.bus.dead() == []
    assert [line for line in logs if line["event"] == "bus.handler_failed"] == []


async def test_a_message_that_nobody_can_read_is_parked_at_once(database_url: str, bus_url: str) -> None:
    with capture_logs() as logs:
        async with a_process(HEARING, database_url=database_url, bus_url=bus_url) as run:
            good = to_message(an_event(1), "/test")
            await run.bus.publish(Message("bad", ResourceRecovered.key, b"{}", good.headers))
            await run.bus.publish(good)
            (dead,) = await until(run.bus.dead, 2, "the bad one to be parked")
            await until(lambda: _kept(run.services[0].database, "1"), what="the good one")
    assert dead.message.id == "bad"
    assert dead.reason.startswith("UnreadableMessage: message bad is not")
    assert len([line for line in logs if line["event"] == "bus.handler_failed"]) == 1


async def _kept(database: Database, wanted: str) -> bool:
    try:
        return wanted in await texts(database)
    except Exception:  # just restarted
        return False
