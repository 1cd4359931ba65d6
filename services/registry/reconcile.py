"""Registry's beats: probes end in time, and a first credential that was refused is tried again now and then."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import structlog

from libs.common.clock import Clock
from libs.common.db import Database
from libs.providers.base import ProviderError, Rejected
from services.registry.domain import Endpoint, Seen, lacks
from services.registry.usecases import failing_over, probing
from services.registry.usecases.failing_over import Try

log = structlog.get_logger(__name__)

END_EVERY_S = 5.0
TRY_EVERY_S = 5.0

Ask = Callable[[Endpoint, UUID], Awaitable[Seen]]
"""Logs in to a cloud once and looks, with a deadline. Raises ProviderError."""


async def end_late_probes(database: Database, clock: Clock) -> None:
    """Probes whose time is over have failed, and say why."""
    async with database.transaction() as session:
        await probing.end_late(session, clock.now())


async def try_first_credentials(database: Database, clock: Clock, ask: Ask) -> None:
    """First credentials that were refused and whose time has come: each is tried once, side by side.

    Who dies in between leaves it to the next time; nobody tries one twice.
    """
    async with database.transaction() as session:
        due = await failing_over.claim_tries(session, clock.now())
    await asyncio.gather(*map(partial(_try, database, clock, ask), due))


async def _try(database: Database, clock: Clock, ask: Ask, due: Try) -> None:
    why = ""
    try:
        seen = await ask(due.endpoint, due.resource_id)
        if missing := lacks(seen.validation, due.known):
            why = f"it is let in, and lacks what it had: {', '.join(missing)}"
    except Rejected as error:
        why = error.detail or error.cause.value
    except ProviderError as error:
        log.info("resource.first_not_tried", resource=str(due.resource_id), cause=error.cause.value)
        return
    async with database.transaction() as session:
        if why:
            await failing_over.note_still_refused(session, due, why[:1000])
        else:
            await failing_over.note_accepted(session, due, clock.now())
