"""Composition of monitor."""

from libs.common.app import create_app
from libs.common.contracts.resource import ResourceChanged
from libs.common.service import Beat, Hears, Runtime, Service
from services.monitor import usecases
from services.monitor.api import router
from services.monitor.models import Base
from services.monitor.reconcile.collector import COLLECT_EVERY_S, TELL_EVERY_S, Collector

NAME = "monitor"


def build(runtime: Runtime) -> Service:
    """The service on this runtime."""
    database = runtime.open_database(NAME)
    collector = Collector(runtime, database)
    due = runtime.wake()
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
        hears=(Hears(ResourceChanged, usecases.hear_resource, wakes=(due,)),),
        beats=(
            Beat("collect", COLLECT_EVERY_S, collector.collect, due),
            Beat("tell", TELL_EVERY_S, collector.tell, runtime.wake()),
        ),
        closes=(collector.aclose,),
    )
