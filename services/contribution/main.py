"""Composition of contribution."""

from libs.common.app import create_app
from libs.common.contracts.action import (
    MachineDeployed,
    MachineDestroyed,
    MachineDraining,
    MachineRequested,
)
from libs.common.contracts.supply import ContributionChanged
from libs.common.secrets import authenticator_context
from libs.common.service import Hears, Runtime, Sealed, Service, Tells
from services.contribution import api, usecases
from services.contribution.models import Base, Contribution


def build(runtime: Runtime) -> Service:
    """Contribution as a value."""
    database = runtime.open_database("contribution")
    app = create_app(
        "contribution",
        routers=[api.projects, api.contributions],
        settings=runtime.settings,
        verifier=runtime.verifier,
    )
    app.state.door = api.Door(database, runtime.clock, runtime.vault)
    facts = (MachineRequested, MachineDeployed, MachineDraining, MachineDestroyed)
    return Service(
        name="contribution",
        metadata=Base.metadata,
        migrations="services.contribution.migrations",
        database=database,
        app=app,
        prefixes=("/v1/projects", "/v1/contributions"),
        hears=[Hears(fact, usecases.learn_machine, once=False) for fact in facts],
        seals=(
            Sealed(
                Contribution.sealed_authenticator,
                lambda contribution: authenticator_context(contribution.id),
                usecases.tell_resealed,
            ),
        ),
        tells=(Tells(ContributionChanged, usecases.read_states),),
    )
