"""Composition of templates."""

from uuid import UUID

from libs.common.app import create_app
from libs.common.contracts.derivation import DerivationChanged, DerivationMoved
from libs.common.contracts.resource import ResourceChanged
from libs.common.contracts.supply import TemplateChanged
from libs.common.service import Beat, Hears, Runtime, Sealed, Service, Tells
from libs.providers.counted import Counting
from libs.providers.sessions import Sessions
from services.templates import api, reconcile, usecases
from services.templates.api import derivations
from services.templates.models import Base, KnownResource
from services.templates.usecases import deriving


def build(runtime: Runtime) -> Service:
    """Templates as a value."""
    database = runtime.open_database("templates")
    sessions = Sessions(runtime.vault, runtime.clock, Counting(runtime.metrics, "templates"))
    installation_id = runtime.settings.installation_id or UUID(int=0)
    routers = [api.router, derivations.router]
    app = create_app("templates", routers=routers, settings=runtime.settings, verifier=runtime.verifier)
    app.state.database = database
    app.state.clock = runtime.clock
    app.state.sessions = sessions
    app.state.installation_id = installation_id

    async def look() -> None:
        await reconcile.look_after_approved(database, sessions, runtime.clock, installation_id)

    async def end_overdue() -> None:
        await reconcile.end_overdue(database, runtime.clock)

    return Service(
        name="templates",
        metadata=Base.metadata,
        migrations="services.templates.migrations",
        database=database,
        app=app,
        prefixes=("/v1/templates",),
        hears=(
            Hears(ResourceChanged, usecases.learn_resource, once=False),
            Hears(DerivationMoved, deriving.follow),
        ),
        tells=(
            Tells(TemplateChanged, usecases.read_states),
            Tells(DerivationChanged, deriving.read_states),
        ),
        seals=(Sealed(KnownResource.sealed_secret),),
        beats=(
            Beat("look", reconcile.EVERY_S, look, runtime.wake()),
            Beat("end_overdue", reconcile.OVERDUE_EVERY_S, end_overdue, runtime.wake()),
        ),
        closes=(sessions.aclose,),
    )
