"""A bus of either kind for whoever does not care which, and one service's schema."""

from collections.abc import AsyncIterator

import pytest

from libs.common.bus import open_bus as connect
from libs.common.bus.base import Bus
from libs.common.db import Database
from tests.contract.tiny import tiny_database


@pytest.fixture(params=["rabbitmq", "postgres"])
def bus_url(request: pytest.FixtureRequest) -> str:
    """An empty bus: a virtual host or a database of this test's own."""
    url: str = request.getfixturevalue("amqp_url" if request.param == "rabbitmq" else "database_url")
    return url


@pytest.fixture
async def bus(bus_url: str) -> AsyncIterator[Bus]:
    """One connection."""
    bus = await connect(bus_url)
    yield bus
    await bus.aclose()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The schema of a tiny service."""
    async with tiny_database(database_url) as database:
        yield database
