"""Composition of policy."""

from libs.common.app import create_app
from libs.common.contracts.resource import InventoryChanged, ResourceChanged
from libs.common.contracts.supply import PolicyAssigned
from libs.common.service import Hears, Runtime, Service, Tells
from services.policy import api, usecases
from services.policy.models import Base

LARGEST_DRY_RUN_BYTES = 8 * 1024 * 1024


def build(runtime: Runtime) -> Service:
    """Policy as a value."""
    database = runtime.open_database("policy")
    app = create_app(
        "policy",
        routers=[api.router],
        settings=runtime.settings,
        verifier=runtime.verifier,
        larger_bodies={"/dry-runs": LARGEST_DRY_RUN_BYTES},
    )
    app.state.database = database
    app.state.clock = runtime.clock
    return Service(
        name="policy",
        metadata=Base.metadata,
        migrations="services.policy.migrations",
        database=database,
        app=app,
        prefixes=("/v1/policies",),
        hears=(
            Hears(ResourceChanged, usecases.learn_resource, once=False),
            Hears(InventoryChanged, usecases.learn_inventory, once=False),
        ),
        tells=(Tells(PolicyAssigned, usecases.read_states),),
    )
