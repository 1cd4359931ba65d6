"""Composition of registry."""

from collections.abc import Awaitable, Callable

from libs.common.app import create_app
from libs.common.contracts.action import ResourceReleased, SweepStopped
from libs.common.contracts.resource import InventoryChanged, ResourceDegraded, ResourceRecovered
from libs.common.service import Beat, Hears, Runtime, Service
from services.registry.api import routers
from services.registry.models import Base
from services.registry.reconcile import ANNOUNCE_EVERY_S, RESEAL_EVERY_S, announce_all, reseal
from services.registry.usecases import hearing

NAME = "registry"


def build(runtime: Runtime) -> Service:
    """The service on this runtime."""
    database = runtime.open_database(NAME)

    async def reseal_secrets() -> None:
        await reseal(database, runtime.vault, runtime.clock)

    async def announce() -> None:
        await announce_all(database)

    def beat(name: str, every_s: float, run: Callable[[], Awaitable[None]]) -> Beat:
        return Beat(name, every_s, run, runtime.wake())

    return Service(
        name=NAME,
        metadata=Base.metadata,
        migrations="services.registry.migrations",
        database=database,
        app=create_app(
            NAME, routers=routers(database, runtime), settings=runtime.settings, verifier=runtime.verifier
        ),
        prefixes=("/v1/resources",),
        hears=(
            Hears(ResourceDegraded, hearing.note_degraded),
            Hears(ResourceRecovered, hearing.note_recovered),
            Hears(InventoryChanged, hearing.note_inventory),
            Hears(SweepStopped, hearing.note_sweep_stopped),
            Hears(ResourceReleased, hearing.note_released),
        ),
        beats=(beat("reseal", RESEAL_EVERY_S, reseal_secrets), beat("announce", ANNOUNCE_EVERY_S, announce)),
    )
