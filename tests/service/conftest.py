"""Services alone, for whoever tests one from outside."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from libs.common.clock import SteppedClock
from libs.providers.simulated import create_cloud
from libs.providers.simulated import driver as simulated
from services.registry import main as registry_main
from services.stats import main as stats_main
from tests.service.lone_service import Lone, serve
from tests.service.registry_house import PASSWORD
from tests.service.scripted_cloud import Script, ScriptedDriver, installed
from tests.service.stats_house import NOW


@pytest.fixture
async def registry(database_url: str) -> AsyncIterator[Lone]:
    """Registry alone."""
    async with serve(registry_main.build, "registry", database_url) as lone:
        yield lone


@pytest.fixture
def url() -> Iterator[str]:
    """A cloud that is simulated."""
    address = f"sim://{uuid4().hex}"
    create_cloud(address, PASSWORD)
    yield address
    simulated.forget_cloud(address)


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[ScriptedDriver]:
    """A driver whose clouds say what a test wants."""
    with installed(tmp_path) as driver:
        driver.clouds["vc.example"] = Script()
        yield driver


@pytest.fixture
async def stats(database_url: str) -> AsyncIterator[Lone]:
    """Stats alone, a day after the first samples."""
    async with serve(stats_main.build, "stats", database_url, SteppedClock(NOW)) as lone:
        yield lone
