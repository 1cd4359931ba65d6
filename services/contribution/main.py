"""Composition of contribution."""

from functools import partial

from libs.boinc.catalogue import LARGEST_CATALOGUE
from libs.common.app import create_app
from libs.common.clock import seconds_of
from libs.common.contracts.action import GuestsThrottled, MachineResumed, ResourceDeparted, ResourceReturned
from libs.common.contracts.supply import ContributionChanged
from libs.common.lanes import Lanes
from libs.common.secrets import account_context, authenticator_context
from libs.common.service import Beat, Hears, Runtime, Sealed, Service, Tells
from services.contribution.api import accounts, boinc, claims, guests, lending, projects
from services.contribution.api.door import Contacts, Door
from services.contribution.api.limits import Limits
from services.contribution.models import Account, Base, Contribution
from services.contribution.reconcile.means import Means
from services.contribution.reconcile.visits import VISIT_BEAT_S, Instruments, Visits
from services.contribution.reconcile.watching import FORETELL_EVERY_S, WATCH_EVERY_S, foretell, watch_guests
from services.contribution.settings import manager_of, project_reach
from services.contribution.usecases import lending as usecases
from services.contribution.usecases import ordering, standing_in
from services.contribution.usecases.accounts import LOGIN, STRONG, WEAK

ROUTERS = (
    projects.projects,
    projects.catalogue,
    accounts.router,
    lending.contributions,
    boinc.boinc,
    guests.guests,
    guests.health,
    claims.claimed,
    claims.granted,
)


def build(runtime: Runtime) -> Service:
    """Contribution as a value."""
    database, due = runtime.open_database("contribution"), runtime.wake()
    app = create_app(
        "contribution",
        routers=ROUTERS,
        settings=runtime.settings,
        verifier=runtime.verifier,
        larger_bodies={"/v1/listed-projects": LARGEST_CATALOGUE},
    )
    manager, contacts = manager_of(runtime.settings), Contacts(runtime.registry)
    expects_agents = bool(runtime.settings.boinc_url.strip())
    reach = project_reach(runtime.settings)
    limits = Limits(seconds_of(runtime.clock))
    app.state.door = Door(
        database, runtime.clock, runtime.vault, manager, contacts, due, reach, expects_agents, limits
    )
    watch = partial(watch_guests, database, runtime.clock, expects_agent=expects_agents)
    tell = partial(foretell, database, runtime.clock)
    visits = Visits(
        Means(database, runtime.clock, runtime.vault, reach),
        Lanes(runtime.activity),
        Instruments(runtime.registry),
        runtime.settings.jitter,
    )
    return Service(
        name="contribution",
        metadata=Base.metadata,
        migrations="services.contribution.migrations",
        database=database,
        app=app,
        prefixes=tuple(router.prefix for router in ROUTERS),
        hears=[
            *(Hears(fact, usecases.learn_machine, once=False) for fact in usecases.MACHINE_FACTS),
            Hears(GuestsThrottled, ordering.cap, once=False),
            Hears(MachineResumed, usecases.call_off_drain, once=False),
            Hears(ResourceDeparted, standing_in.note, once=False),
            Hears(ResourceReturned, standing_in.note, once=False),
        ],
        seals=_SEALS,
        tells=(Tells(ContributionChanged, usecases.read_states),),
        beats=(
            Beat("visit", VISIT_BEAT_S, visits.visit, due),
            Beat("watch", WATCH_EVERY_S, watch, runtime.wake()),
            Beat("foretell", FORETELL_EVERY_S, tell, runtime.wake()),
        ),
        closes=(visits.aclose,),
    )


_SEALS = (
    Sealed(
        Contribution.sealed_authenticator,
        lambda contribution: authenticator_context(contribution.id),
        usecases.tell_resealed,
    ),
    Sealed(Account.sealed_login, lambda account: account_context(account.id, LOGIN)),
    Sealed(Account.sealed_strong_key, lambda account: account_context(account.id, STRONG)),
    Sealed(Account.sealed_weak_key, lambda account: account_context(account.id, WEAK)),
)
