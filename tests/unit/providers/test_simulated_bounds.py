"""How many and how large simulated clouds may be that somebody registers: they live in the services' memory."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

from libs.common.clock import SteppedClock
from libs.common.secrets import KEY_BYTES, Vault
from libs.providers.base import Cause, Connection, Provider, Rejected, sealing_context
from libs.providers.simulated import SimulatedSettings
from libs.providers.simulated.driver import MOST_REGISTERED, SimulatedDriver

PASSWORD = "correct horse"
CLOCK = SteppedClock(datetime(2026, 3, 4, tzinfo=UTC))
VAULT = Vault({"k1": b"k" * KEY_BYTES})


async def register(driver: SimulatedDriver, name: str, **settings: Any) -> Provider:
    """Log in to a cloud in memory, which makes it where there is none."""
    url = f"sim://{name}"
    sealed = VAULT.seal(PASSWORD, sealing_context(url, None, None))
    connection = Connection(uuid4(), uuid4(), url, "tides", sealed, settings=settings)
    return await driver.open(connection, VAULT, CLOCK)


async def test_registering_makes_only_so_many_clouds() -> None:
    driver = SimulatedDriver()
    own = driver.create_cloud("sim://own", PASSWORD, SimulatedSettings(), CLOCK)
    for number in range(MOST_REGISTERED):
        await register(driver, f"cloud-{number}")

    for _ in range(3):
        with pytest.raises(Rejected, match="keeps 50 simulated clouds already") as refusal:
            await register(driver, "one-more")
        assert refusal.value.cause is Cause.INVALID
    with pytest.raises(LookupError):
        driver.attach_cloud("sim://one-more", CLOCK)
    for known in ("own", "cloud-0"):
        await register(driver, known)
    driver.forget_cloud("sim://cloud-1")
    await register(driver, "one-more")
    assert own.store.read() is not None


@pytest.mark.parametrize(
    "settings",
    [
        {"clusters": [{"name": f"c{number}", "hosts": 1} for number in range(51)]},
        {"clusters": [{"name": "c", "hosts": 201}]},
        {"templates": ["x"] * 51},
        {"templates": ["x" * 201]},
    ],
)
async def test_a_cloud_has_an_end(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SimulatedSettings.model_validate(settings)
    with pytest.raises(Rejected) as refusal:
        await register(SimulatedDriver(), "large", **settings)
    assert refusal.value.cause is Cause.INVALID


def test_the_largest_is_a_cloud() -> None:
    clusters = [{"name": f"c{number}", "hosts": 200} for number in range(50)]
    assert len(SimulatedSettings.model_validate({"clusters": clusters}).clusters or ()) == 50
