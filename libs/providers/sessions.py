"""Open sessions of one process: one per resource, re-opened when the connection changes."""

import asyncio
import contextlib
from uuid import UUID

import structlog

from libs.common.clock import Clock
from libs.common.secrets import Vault
from libs.providers.base import Cause, Connection, Driver, LoginRefused, Provider, ProviderError
from libs.providers.counted import OPEN, Counting
from libs.providers.registry import load_driver

log = structlog.get_logger(__name__)

CLOSE_WITHIN_S = 5
STUBBORN = 5
"""After so many failures in a row a session is opened anew, whatever they were."""


def is_spent(error: Exception, failures: int = 1) -> bool:
    """Whether a session is of no more use after this error, the last of so many failures in a row.

    Drivers find their way back from outages by themselves, and each login is seen in somebody's cloud: a session ends
    where the cloud believes us no longer, or we it, and where a driver broke.
    """
    if failures > 0 and failures % STUBBORN == 0:
        return True
    if isinstance(error, TimeoutError):
        return False
    return not isinstance(error, ProviderError) or error.cause in (Cause.AUTH, Cause.TLS)


class Sessions:
    """Sticky sessions, opened on first use: who holds a resource's lease holds its session."""

    def __init__(self, vault: Vault, clock: Clock, counting: Counting | None = None) -> None:
        self._vault = vault
        self._clock = clock
        self._counting = counting
        self._open: dict[UUID, tuple[Connection, Provider]] = {}
        self._opening: dict[UUID, asyncio.Lock] = {}
        self._refused: dict[UUID, tuple[Connection, LoginRefused]] = {}
        """The newest login that was refused."""

    async def get(self, driver: str, connection: Connection) -> Provider:
        """A resource's session; a changed address or secret opens a new one. Raises ProviderError, UnknownDriver.

        Who began before a change and asks again after it is given the new session, and tries no old password. Who
        waits while a login is refused is refused with it: an account is locked by tries.
        """
        before = self._refused.get(connection.resource_id)
        async with self._opening.setdefault(connection.resource_id, asyncio.Lock()):
            known = self._open.get(connection.resource_id)
            if known is not None and (known[0] == connection or known[0].revision > connection.revision):
                return known[1]
            refused = self._refused.get(connection.resource_id)
            if refused is not None and refused is not before and refused[0] == connection:
                raise LoginRefused(refused[1].cause, refused[1].detail)
            await self.drop(connection.resource_id)
            try:
                provider = await self._open_counted(await load_driver(driver), connection)
            except LoginRefused as error:
                # Not the error itself: in the frames that it came through stands a password.
                self._refused[connection.resource_id] = (connection, LoginRefused(error.cause, error.detail))
                raise
            self._refused.pop(connection.resource_id, None)
            self._open[connection.resource_id] = (connection, provider)
            return provider

    async def _open_counted(self, driver: Driver, connection: Connection) -> Provider:
        if self._counting is None:
            return await driver.open(connection, self._vault, self._clock)
        with self._counting.call(connection.resource_id, OPEN):
            provider = await driver.open(connection, self._vault, self._clock)
        return self._counting.counted(provider, connection.resource_id)

    async def drop(self, resource_id: UUID) -> None:
        """End a resource's session, if there is one; a cloud that does not answer is left alone after a few seconds."""
        known = self._open.pop(resource_id, None)
        if known is None:
            return
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await known[1].aclose()

    async def drop_used(self, connection: Connection) -> None:
        """End the session that somebody with this connection was given; one of a newer word is left to its users."""
        known = self._open.get(connection.resource_id)
        if known is not None and known[0].revision <= connection.revision:
            await self.drop(connection.resource_id)

    async def keep(self, resource_ids: set[UUID]) -> None:
        """End the sessions of every other resource, side by side: a dead cloud takes its time to say goodbye."""
        await asyncio.gather(*(self.drop(resource_id) for resource_id in set(self._open) - resource_ids))

    async def aclose(self) -> None:
        """End all sessions."""
        await self.keep(set())
