"""Composition of stats."""

from typing import Any

from libs.common.app import create_app
from libs.common.contracts import action
from libs.common.contracts.base import Event
from libs.common.contracts.resource import InventoryChanged, ResourceChanged
from libs.common.contracts.usage import UsageSampled
from libs.common.db import Session
from libs.common.service import Beat, Hears, Runtime, Service
from services.stats import reconcile
from services.stats.api import backtests, door, reports
from services.stats.models import metadata
from services.stats.reconcile.replays import EVERY_S, Replays
from services.stats.usecases import learning, storing

ACTIONS: tuple[type[Event], ...] = (
    action.MachineRequested,
    action.MachineDeployed,
    action.MachineSuspended,
    action.MachineResumed,
    action.MachineDraining,
    action.MachineDestroyed,
    action.MachineFailed,
    action.MachineLost,
    action.MachineAbandoned,
    action.LimitsApplied,
    action.LimitsFailed,
    action.ClusterPaused,
    action.ClusterResumed,
    action.ClusterDrainRequested,
    action.ClusterScaled,
    action.SweepAllowed,
    action.ResourceReleased,
    action.ResourceAbandoned,
)


def build(runtime: Runtime) -> Service:
    """Stats as a value."""
    database = runtime.open_database("stats")
    clock = runtime.clock
    routers = [backtests.router, reports.router]
    app = create_app("stats", routers=routers, settings=runtime.settings, verifier=runtime.verifier)
    replay = runtime.wake()
    app.state.door = door.Door(database, clock, replay)
    replays = Replays(database, clock)

    async def store(session: Session, event: Any) -> None:
        await storing.store_samples(session, event, clock.now())

    async def turn_days() -> None:
        await reconcile.turn_days(database, clock)

    async def roll_hours() -> float | None:
        return await reconcile.roll_hours(database, clock)

    return Service(
        name="stats",
        metadata=metadata,
        migrations="services.stats.migrations",
        database=database,
        app=app,
        prefixes=("/v1/stats",),
        hears=(
            Hears(UsageSampled, store, once=False),
            Hears(ResourceChanged, learning.learn_resource, once=False),
            Hears(InventoryChanged, learning.learn_inventory, once=False),
            *(Hears(event, learning.learn_action, once=False) for event in ACTIONS),
        ),
        beats=(
            Beat("days", reconcile.DAYS_EVERY_S, turn_days, runtime.wake()),
            Beat("roll", reconcile.ROLL_EVERY_S, roll_hours, runtime.wake()),
            Beat("backtest", EVERY_S, replays.begin, replay),
        ),
        closes=(replays.aclose,),
    )
