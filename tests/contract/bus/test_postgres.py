"""What only the tables promise."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from libs.common.bus import open_bus
from libs.common.bus.base import BusUnavailable
from libs.common.bus.postgres import PostgresBus
from libs.common.bus.postgres.batch import Unwritable
from tests.contract.bus.company import Listener, a_message, a_queue, listening
from tests.support import until


async def test_processes_that_start_together_make_the_tables_once(database_url: str) -> None:
    buses = await asyncio.gather(*(PostgresBus.connect(database_url) for _ in range(5)))

    await asyncio.gather(*(bus.declare([a_queue(), a_queue("other")]) for bus in buses))
    await buses[0].publish(a_message())

    assert [await bus.depth() for bus in buses] == [2] * 5
    await asyncio.gather(*(bus.aclose() for bus in buses))


async def test_the_url_of_sqlalchemy_will_do(database_url: str) -> None:
    bus = await open_bus(database_url.replace("postgresql://", "postgresql+asyncpg://"))

    assert await bus.depth() == 0
    await bus.aclose()


async def test_a_bad_message_fails_alone(database_url: str) -> None:
    bus = await PostgresBus.connect(database_url)
    await bus.declare([a_queue()])
    bad = replace(a_message("bad"), headers={"ce-subject": "\0"})

    outcomes = await asyncio.gather(
        *(bus.publish(message) for message in (a_message("a"), bad, a_message("b"))), return_exceptions=True
    )

    assert [type(outcome) for outcome in outcomes] == [type(None), Unwritable, type(None)]
    assert await bus.depth() == 2
    await bus.aclose()


async def test_a_bus_keeps_to_four_connections(database_url: str) -> None:
    bus = await PostgresBus.connect(database_url)
    listener = Listener()
    async with listening(bus, a_queue(), listener):
        await bus.declare([a_queue()])
        await asyncio.gather(
            *(bus.publish(a_message()) for _ in range(100)), *(bus.depth() for _ in range(50))
        )
        await until(lambda: len(listener.handled) == 100)
    watching = await asyncpg.connect(database_url)
    count = await watching.fetchval(
        "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'tides-bus'"
    )
    await watching.close()
    assert 1 <= count <= 4
    await bus.aclose()


async def test_a_closed_bus_refuses_at_once(database_url: str) -> None:
    bus = await PostgresBus.connect(database_url)
    await bus.aclose()

    with pytest.raises(BusUnavailable):
        async with asyncio.timeout(1):
            await bus.publish(a_message())
