"""Contribution's beats."""

from libs.common.clock import Clock
from libs.common.db import Database
from services.contribution.usecases import demand, health

WATCH_EVERY_S = 30.0
FORETELL_EVERY_S = 300.0
MOST_BATCHES = 100


async def watch_guests(database: Database, clock: Clock, *, expects_agent: bool) -> None:
    """Guests that tell nothing are noticed by nobody else; each batch is a transaction of its own."""
    for _ in range(MOST_BATCHES):
        async with database.transaction() as session:
            if await health.watch_silent(session, clock.now(), expects_agent=expects_agent) < health.BATCH:
                return


async def foretell(database: Database, clock: Clock) -> None:
    """Projects are told each hour what they may expect."""
    async with database.transaction() as session:
        await demand.foretell(session, clock.now())
