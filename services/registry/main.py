"""Composition of registry."""

from libs.common.app import create_app
from libs.common.contracts.action import ResourceReleased, SweepStopped
from libs.common.contracts.resource import (
    InventoryChanged,
    ResourceChanged,
    ResourceDegraded,
    ResourceRecovered,
)
from libs.common.service import Beat, Hears, Runtime, Service, Tells
from services.registry.api import routers
from services.registry.models import Base
from services.registry.reconcile import RESEAL_EVERY_S, reseal
from services.registry.usecases import hearing

NAME = "registry"


def build(runtime: Runtime) -> Service:
    """The service on this runtime."""
    database = runtime.open_database(NAME)

    async def reseal_secrets() -> None:
        await reseal(database, runtime.vault, runtime.clock)

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
        tells=(Tells(ResourceChanged, hearing.read_states),),
        beats=(Beat("reseal", RESEAL_EVERY_S, reseal_secrets, runtime.wake()),),
    )
