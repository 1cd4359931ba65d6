"""The beat of templates: now and then, see whether approved versions still exist."""

from uuid import UUID

import structlog

from libs.common.clock import Clock
from libs.common.db import Database
from libs.providers.base import ProviderError
from libs.providers.registry import UnknownDriver
from libs.providers.sessions import Sessions
from services.templates import usecases
from services.templates.usecases import Look, deriving

log = structlog.get_logger(__name__)

EVERY_S = 600.0
OVERDUE_EVERY_S = 5.0


async def look_after_approved(
    database: Database, sessions: Sessions, clock: Clock, installation_id: UUID
) -> None:
    """Mark approved versions that their cloud no longer has. One that does not answer says nothing."""
    async with database.transaction() as session:
        looks = await usecases.looks(session, installation_id)
    await sessions.keep({look.target.connection.resource_id for look in looks})
    for look in looks:
        resource_id = look.target.connection.resource_id
        try:
            missing = await _missing(sessions, look)
        except (ProviderError, UnknownDriver) as error:
            log.warning("templates.not_looked_at", resource=str(resource_id), error=str(error))
            continue
        except Exception as error:
            # Whatever a driver does, the others are looked at. Its words may quote anything.
            log.error("templates.not_looked_at", resource=str(resource_id), error=type(error).__name__)
            await sessions.drop(resource_id)
            continue
        async with database.transaction() as session:
            await usecases.note_looks(session, missing, clock.now())


async def end_overdue(database: Database, clock: Clock) -> None:
    """Derivations that are not done in time have failed."""
    async with database.transaction() as session:
        await deriving.end_overdue(session, clock.now())


async def _missing(sessions: Sessions, look: Look) -> dict[UUID, bool]:
    return {
        version_id: await usecases.look_up(sessions, look.target, reference) is None
        for version_id, reference in look.references.items()
    }
