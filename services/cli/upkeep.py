"""Schemas and parked messages, straight from the database and the bus: for who has the machine itself."""

from collections.abc import Sequence

from libs.common.bus.base import DeadMessage
from libs.common.migrate import migrate
from libs.common.reaching import reach_bus, reach_database
from libs.common.settings import Settings
from services.cli.run import database_of, parts


async def migrate_all(names: Sequence[str], settings: Settings) -> None:
    """Bring these services' schemas to the newest version."""
    async with parts(settings) as whole:
        await reach_database(whole)
        for name in names:
            await migrate(whole.database_dsn, name, f"services.{name}.migrations")


async def dead_messages(settings: Settings) -> Sequence[DeadMessage]:
    """Messages that were given up, oldest first. Raises NothingHere."""
    bus = await reach_bus(settings, _bus_url(settings))
    try:
        return await bus.dead()
    finally:
        await bus.aclose()


async def retry_messages(settings: Settings, number: int | None) -> int:
    """Put one or all of them back; how many there were. Raises NothingHere."""
    bus = await reach_bus(settings, _bus_url(settings))
    try:
        return await bus.retry_dead(number)
    finally:
        await bus.aclose()


def _bus_url(settings: Settings) -> str:
    """The bus that is named, else that of the database. Raises NothingHere."""
    return settings.bus_dsn if settings.bus_url is not None else database_of(settings)
