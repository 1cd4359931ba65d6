"""Composition of contribution."""

from functools import partial

from libs.boinc.catalogue import LARGEST_CATALOGUE
from libs.common.app import create_app
from libs.common.contracts.action import (
    MachineAbandoned,
    MachineDeployed,
    MachineDestroyed,
    MachineDraining,
    MachineRequested,
    MachineResumed,
)
from libs.common.contracts.supply import ContributionChanged
from libs.common.secrets import authenticator_context
from libs.common.service import Beat, Hears, Runtime, Sealed, Service, Tells
from services.contribution.api import boinc, claims, guests, lending, projects
from services.contribution.api.door import Contacts, Door
from services.contribution.models import Base, Contribution
from services.contribution.reconcile import WATCH_EVERY_S, watch_guests
from services.contribution.settings import manager_of
from services.contribution.usecases import lending as usecases


def build(runtime: Runtime) -> Service:
    """Contribution as a value."""
    database = runtime.open_database("contribution")
    app = create_app(
        "contribution",
        routers=[
            projects.projects,
            projects.catalogue,
            lending.contributions,
            boinc.boinc,
            guests.guests,
            guests.health,
            claims.router,
        ],
        settings=runtime.settings,
        verifier=runtime.verifier,
        larger_bodies={"/v1/listed-projects": LARGEST_CATALOGUE},
    )
    manager, contacts = manager_of(runtime.settings), Contacts(runtime.registry)
    expects_agents = bool(runtime.settings.boinc_url.strip())
    app.state.door = Door(database, runtime.clock, runtime.vault, manager, contacts, expects_agents)
    watch = partial(watch_guests, database, runtime.clock, expects_agent=expects_agents)
    return Service(
        name="contribution",
        metadata=Base.metadata,
        migrations="services.contribution.migrations",
        database=database,
        app=app,
        prefixes=(
            "/v1/projects",
            "/v1/listed-projects",
            "/v1/contributions",
            "/boinc",
            "/guests",
            "/v1/guests",
            "/v1/claims",
        ),
        hears=_ears(),
        beats=(Beat("watch", WATCH_EVERY_S, watch, runtime.wake()),),
        seals=(
            Sealed(
                Contribution.sealed_authenticator,
                lambda contribution: authenticator_context(contribution.id),
                usecases.tell_resealed,
            ),
        ),
        tells=(Tells(ContributionChanged, usecases.read_states),),
    )


def _ears() -> tuple[Hears, ...]:
    facts = (MachineRequested, MachineDeployed, MachineDraining, MachineDestroyed, MachineAbandoned)
    return (
        *(Hears(fact, usecases.learn_machine, once=False) for fact in facts),
        Hears(MachineResumed, usecases.call_off_drain, once=False),
    )
