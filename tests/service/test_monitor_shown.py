"""What people and Prometheus see of how their resources are watched."""

from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from libs.common.contracts.usage import UsageSampled
from libs.common.runner import Running
from libs.providers.simulated import Cloud, ClusterDefinition, SimulatedSettings, create_cloud, driver
from tests.service.lone_service import THEIRS
from tests.service.monitor_house import House, open_house
from tests.support import until

PASSWORD = "correct horse"


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        yield house


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    lab = ClusterDefinition(name="lab", hosts=2, cores=8)
    made = create_cloud(f"sim://{uuid4().hex}", PASSWORD, SimulatedSettings(interval_s=1, clusters=(lab,)))
    yield made
    driver.forget_cloud(made.url)


async def test_people_see_how_their_resources_are_watched(house: House, cloud: Cloud) -> None:
    async with house.monitor() as run, aiohttp.ClientSession() as http:
        resource = house.resource(cloud.url, PASSWORD)
        await house.announce(resource)
        await until(lambda: house.heard(UsageSampled), 20, "a sample")
        (shown,) = await until(lambda: _sampled_once(house, run), what="the round to be settled")
        theirs = await house.monitors(run, organisation=THEIRS)
        async with http.get(f"{run.url}/v1/monitors") as unknown, http.get(f"{run.url}/metrics") as metrics:
            measured = await metrics.text()
            assert unknown.status == 401
        figures = await until(lambda: _figures(run), what="the figures to be read")

    assert theirs == []
    assert (shown["resource_id"], shown["name"], shown["mode"]) == (
        str(resource.resource_id),
        "Lab",
        "observe",
    )
    assert shown["holder"]
    assert 0 <= shown["lag_s"] < 5
    assert (shown["failures"], shown["cause"]) == (0, None)
    label = f'{{resource="{resource.resource_id}"}}'
    assert f"tides_monitor_rounds_total{label}" in measured
    assert f"tides_monitor_samples_total{label}" in measured
    told = f'{{resource="{resource.resource_id}",service="monitor"}}'
    assert f"tides_resource_degraded{told} 0.0" in figures
    assert f"tides_resource_held{told} 1.0" in figures
    newest = figures.partition(f"tides_resource_newest_sample_timestamp_seconds{told} ")[2].split()[0]
    assert abs(float(newest) - datetime.fromisoformat(shown["sampled_at"]).timestamp()) < 60
    circuit = f'cause="",resource="{resource.resource_id}",service="monitor",state="closed"'
    assert f"tides_provider_circuit{{{circuit}}} 1.0" in figures


async def _figures(run: Running) -> str | None:
    """Read anew by a beat that the test wakes: it comes every quarter of a minute by itself."""
    next(beat for beat in run.services[0].beats if beat.name == "measure").wake.set()
    async with aiohttp.ClientSession() as http, http.get(f"{run.url}/metrics") as answer:
        text = await answer.text()
    return text if "tides_resource_newest_sample_timestamp_seconds{" in text else None


async def _sampled_once(house: House, run: Any) -> Any:
    watched = await house.monitors(run)
    return watched if watched and watched[0]["sampled_at"] else None
