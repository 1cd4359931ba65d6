"""Composition of registry."""

from functools import partial

from libs.common.app import create_app
from libs.common.contracts.action import ActionLoginRefused, ResourceAbandoned, ResourceReleased, SweepStopped
from libs.common.contracts.probe import ProbeMoved, ProbeReported
from libs.common.contracts.resource import (
    InventoryChanged,
    LoginRefused,
    ResourceChanged,
    ResourceDegraded,
    ResourceRecovered,
)
from libs.common.service import Beat, Hears, Runtime, Sealed, Service, Tells
from services.registry.api import routers
from services.registry.api.probe import ask_cloud
from services.registry.api.trials import Trials
from services.registry.models import Base, Resource
from services.registry.reconcile import END_EVERY_S, TRY_EVERY_S, end_late_probes, try_first_credentials
from services.registry.usecases import abandoning, failing_over, hearing, probing
from services.registry.usecases.credentials import secret_context
from services.registry.usecases.measuring import FIGURES

NAME = "registry"


def build(runtime: Runtime) -> Service:
    """The service on this runtime."""
    database, trials = runtime.open_database(NAME), Trials(runtime)
    ask = partial(ask_cloud, runtime=runtime)
    return Service(
        name=NAME,
        metadata=Base.metadata,
        migrations="services.registry.migrations",
        database=database,
        app=create_app(
            NAME,
            routers=routers(database, runtime, trials),
            settings=runtime.settings,
            verifier=runtime.verifier,
        ),
        prefixes=("/v1/resources", "/v1/abandonments", "/v1/sites"),
        hears=(
            Hears(ResourceDegraded, hearing.note_degraded),
            Hears(ResourceRecovered, hearing.note_recovered),
            Hears(LoginRefused, failing_over.note_refused),
            Hears(ActionLoginRefused, failing_over.note_refused),
            Hears(InventoryChanged, hearing.note_inventory),
            Hears(SweepStopped, hearing.note_sweep_stopped),
            Hears(ResourceReleased, hearing.note_released),
            Hears(ResourceAbandoned, abandoning.note_abandoned),
            Hears(ProbeMoved, probing.note),
            Hears(ProbeReported, probing.note),
        ),
        beats=(
            Beat("probes", END_EVERY_S, partial(end_late_probes, database, runtime.clock), runtime.wake()),
            Beat(
                "credentials",
                TRY_EVERY_S,
                partial(try_first_credentials, database, runtime.clock, ask),
                runtime.wake(),
            ),
        ),
        tells=(Tells(ResourceChanged, hearing.read_states),),
        closes=(trials.aclose,),
        seals=(
            Sealed(Resource.sealed_secret, secret_context, hearing.tell_resealed),
            Sealed(Resource.sealed_alternate, secret_context, hearing.tell_resealed),
        ),
        figures=(FIGURES,),
    )
