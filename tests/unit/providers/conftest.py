"""A small simulated cloud in memory with an open session."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.providers.simulated_target import PASSWORD, SimulatedTarget


@pytest.fixture
async def target() -> AsyncIterator[SimulatedTarget]:
    target = SimulatedTarget("sim://unit")
    target.provider = await target.open(PASSWORD)
    yield target
    await target.provider.aclose()
