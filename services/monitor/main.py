"""Composition of monitor."""

from libs.common.app import create_app
from libs.common.contracts.resource import InventoryChanged, ResourceChanged
from libs.common.db import Session
from libs.common.service import Beat, Hears, Runtime, Sealed, Service, Tells
from services.monitor import usecases
from services.monitor.api import router
from services.monitor.models import Base, Resource
from services.monitor.reconcile.collector import COLLECT_EVERY_S, SWEEP_EVERY_S, Collector
from services.monitor.reconcile.measuring import figures

NAME = "monitor"


def build(runtime: Runtime) -> Service:
    """The service on this runtime."""
    database = runtime.open_database(NAME)
    collector = Collector(runtime, database)
    due = runtime.wake()

    async def hear_resource(session: Session, event: ResourceChanged) -> None:
        await usecases.hear_resource(session, event)
        session.once_committed(collector.look_again)

    return Service(
        name=NAME,
        metadata=Base.metadata,
        migrations="services.monitor.migrations",
        database=database,
        app=create_app(
            NAME,
            routers=[router(database, runtime.clock)],
            settings=runtime.settings,
            verifier=runtime.verifier,
        ),
        prefixes=("/v1/monitors",),
        hears=(Hears(ResourceChanged, hear_resource, wakes=(due,)),),
        tells=(Tells(InventoryChanged, usecases.read_states),),
        seals=(Sealed(Resource.sealed_secret),),
        figures=(figures(runtime.clock),),
        beats=(
            Beat("collect", COLLECT_EVERY_S, collector.collect, due),
            Beat("sweep", SWEEP_EVERY_S, collector.sweep, runtime.wake()),
        ),
        closes=(collector.aclose,),
    )
