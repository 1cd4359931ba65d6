"""The beats of stats: days ahead and old days, and hours that are over."""

from libs.common.clock import Clock
from libs.common.db import Database
from services.stats.usecases.backtests import forget_old
from services.stats.usecases.rolling import forget_five_minutes, roll_up
from services.stats.usecases.storing import drop_old_days, make_days_ahead

DAYS_EVERY_S = 3600.0
ROLL_EVERY_S = 300.0


async def turn_days(database: Database, clock: Clock) -> None:
    """Make the partitions of the days to come; drop those that are over and rolled up."""
    async with database.transaction() as session:
        await make_days_ahead(session, clock.now())
    async with database.transaction() as session:
        await drop_old_days(session, clock.now())
    async with database.transaction() as session:
        await forget_five_minutes(session, clock.now())
    async with database.transaction() as session:
        await forget_old(session, clock.now())


async def roll_hours(database: Database, clock: Clock) -> float | None:
    """Roll up some hours; asks to run again at once while there are more."""
    async with database.transaction() as session:
        return 0.0 if await roll_up(session, clock.now()) else None
