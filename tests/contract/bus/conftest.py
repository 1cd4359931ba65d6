"""Both buses, each on its real server."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from libs.common.bus.base import Bus
from tests.contract.bus.company import open_quick_bus

OpenBus = Callable[[], Awaitable[Bus]]


@pytest.fixture
async def open_bus(bus_url: str) -> AsyncIterator[OpenBus]:
    """Connects as often as a test has processes; all are closed at its end."""
    buses: list[Bus] = []

    async def connect() -> Bus:
        buses.append(await open_quick_bus(bus_url))
        return buses[-1]

    yield connect
    for bus in buses:
        await bus.aclose()


@pytest.fixture
async def bus(open_bus: OpenBus) -> Bus:
    """One connection."""
    return await open_bus()
