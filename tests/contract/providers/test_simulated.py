"""The simulated cloud keeps what every driver must keep, in memory and in a file."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.providers.registry import find_driver
from libs.providers.simulated import driver
from tests.contract.providers.simulated_target import PASSWORD, SimulatedTarget
from tests.contract.providers.suite import ProviderSuite


class TestSimulatedInMemory(ProviderSuite):
    @pytest.fixture
    async def target(self) -> AsyncIterator[SimulatedTarget]:
        target = SimulatedTarget("sim://conformance")
        target.provider = await target.open(PASSWORD)
        yield target
        await target.provider.aclose()


class TestSimulatedInAFile(ProviderSuite):
    @pytest.fixture
    async def target(self, tmp_path: Path) -> AsyncIterator[SimulatedTarget]:
        target = SimulatedTarget(f"sim://{tmp_path}/cloud.json")
        target.provider = await target.open(PASSWORD)
        yield target
        await target.provider.aclose()


def test_the_entry_point_names_this_driver() -> None:
    assert find_driver("simulated") is driver
    assert driver.name == "simulated"
