"""Registry's beat: probes end in time."""

from libs.common.clock import Clock
from libs.common.db import Database
from services.registry.usecases import probing

END_EVERY_S = 5.0


async def end_late_probes(database: Database, clock: Clock) -> None:
    """Probes whose time is over have failed, and say why."""
    async with database.transaction() as session:
        await probing.end_late(session, clock.now())
