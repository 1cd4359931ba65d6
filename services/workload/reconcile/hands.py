"""What it takes to act on clouds: leases, sessions, lanes, and the memory of what was refused."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

import structlog

from libs.common.clock import Clock
from libs.common.db import Database, Session
from libs.common.lanes import Lanes
from libs.common.secrets import Vault
from libs.providers.base import Cause, Provider, Unavailable
from libs.providers.sessions import Sessions
from services.workload.domain.steps import Act
from services.workload.models import Resource
from services.workload.settings import Pace
from services.workload.usecases.keeping import belongs_to
from services.workload.usecases.leasing import Claimed, claim_resources, guard, release_claims
from services.workload.usecases.looking import Due

log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(slots=True)
class Hands:
    """What it takes to act: the database, sessions to clouds, lanes, and who this replica is."""

    database: Database
    sessions: Sessions
    lanes: Lanes
    clock: Clock
    vault: Vault
    replica: UUID
    installation_id: UUID
    pace: Pace
    looked_at: dict[UUID, tuple[int, datetime]] = field(default_factory=dict)
    """When each resource's inventory was last read, and at which of its revisions."""
    resting_until: dict[UUID, datetime] = field(default_factory=dict)
    """Clusters whose limits were refused: not asked again before."""
    refused: dict[tuple[str, Act], tuple[int, datetime]] = field(default_factory=dict)
    """Acts on machines that the cloud forbade: how often, and not asked again before."""
    is_ours: bool = False
    """Whether the database is known to be this installation's."""

    async def claim(self) -> list[Claimed]:
        """Resources that this replica may act on now; sessions of others are closed. None in a strange database."""
        async with self.database.transaction() as session:
            self.is_ours = self.is_ours or await belongs_to(session, self.installation_id, self.clock.now())
            if not self.is_ours:
                log.error(
                    "installation.differs",
                    remedy="give this process the TIDES_INSTALLATION_ID of its database",
                )
                return []
            claimed = await claim_resources(session, self.replica, self.installation_id, self.clock.now())
        await self.sessions.keep({resource.resource_id for resource in claimed})
        return claimed

    def may_look(self, resource: Claimed) -> bool:
        """Whether an inventory is due to be read: after a change at once, soon while something is under way, else now
        and then."""
        revision, looked_at = self.looked_at.get(resource.resource_id, (None, None))
        every_s = self.pace.look_every_s if resource.is_settled else self.pace.look_again_s
        if looked_at is None or revision != resource.revision:
            return True
        return self.clock.now() >= looked_at + timedelta(seconds=every_s)

    def note_look(self, resource: Claimed) -> None:
        """The inventory is being read."""
        self.looked_at[resource.resource_id] = (resource.revision, self.clock.now())

    def is_resting(self, cluster_id: UUID) -> bool:
        """Whether a cluster's limits were refused a moment ago."""
        until = self.resting_until.get(cluster_id)
        return until is not None and self.clock.now() < until

    def rest(self, cluster_id: UUID) -> None:
        """Do not ask for this cluster's limits for a while."""
        self.resting_until[cluster_id] = self.clock.now() + timedelta(seconds=self.pace.refused_rest_s)

    def may_try(self, due: Due) -> bool:
        """Whether an act may be asked for; one that was forbidden is, ever more rarely: each try is seen there."""
        _, not_before = self.refused.get((due.name, due.act), (0, None))
        return not_before is None or self.clock.now() >= not_before

    def note_refused(self, due: Due) -> None:
        """Let an act that was forbidden rest, longer each time."""
        times, _ = self.refused.get((due.name, due.act), (0, None))
        rest_s = min(self.pace.refused_most_s, self.pace.refused_rest_s * 2.0 ** min(times, 10))
        self.refused[due.name, due.act] = (times + 1, self.clock.now() + timedelta(seconds=rest_s))

    def note_done(self, due: Due) -> None:
        """An act was taken: what was forbidden of it before is forgotten; of a deleted machine everything."""
        for key in [key for key in self.refused if key[0] == due.name and due.act in (key[1], Act.DELETE)]:
            del self.refused[key]

    async def give_back(self) -> None:
        """An orderly stop: no lease and no session is left behind."""
        await self.lanes.aclose()
        async with self.database.transaction() as session:
            await release_claims(session, self.replica)
        await self.sessions.aclose()

    @asynccontextmanager
    async def settling(self, resource: Claimed) -> AsyncIterator[tuple[Session, Resource]]:
        """A transaction with the resource's row locked. Raises LeaseLost when another replica acts on it now."""
        async with self.database.transaction() as session:
            yield session, await guard(session, self.replica, resource.resource_id)

    @asynccontextmanager
    async def starting(self, resource: Claimed) -> AsyncIterator[tuple[Session, Resource]]:
        """A transaction before a call to the cloud. Raises LeaseLost unless the lease outlasts the call's deadline."""
        async with self.database.transaction() as session:
            yield session, await guard(session, self.replica, resource.resource_id, self.pace.call_s)

    async def session(self, resource: Claimed) -> Provider:
        """The open session to the resource's cloud."""
        return await self.call(self.sessions.get(resource.provider, resource.connection))

    async def call(self, call: Awaitable[T]) -> T:
        """One call to a cloud. A time-out means unknown: the next look reads back before anything else."""
        try:
            async with asyncio.timeout(self.pace.call_s):
                return await call
        except TimeoutError:
            raise Unavailable(Cause.TIMEOUT, f"no answer within {self.pace.call_s:.0f} s") from None
