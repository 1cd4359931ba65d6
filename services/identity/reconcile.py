"""Beats of identity: somebody is there to let others in, and what has ended is forgotten."""

from collections.abc import Awaitable, Callable

from libs.common.clock import Clock
from libs.common.db import Database
from services.identity.usecases.bootstrap import bootstrap
from services.identity.usecases.logins import forget_attempts
from services.identity.usecases.tokens import forget_sessions

EVERY_S = 3600.0


def keep_due(database: Database, clock: Clock, admin_token: str | None) -> Callable[[], Awaitable[None]]:
    """The beat: bootstraps at the first start, a no-op ever after; deletes ended logins and old attempts."""

    async def keep() -> None:
        async with database.transaction() as session:
            await bootstrap(session, admin_token, clock.now())
        async with database.transaction() as session:
            await forget_attempts(session, clock.now())
            await forget_sessions(session, clock.now())

    return keep
