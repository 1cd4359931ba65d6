"""What it takes to act on clouds: leases, sessions, lanes, and the memory of what was refused."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Literal, TypeVar
from uuid import UUID

import structlog

from libs.common.clock import Clock
from libs.common.db import Database, Session
from libs.common.lanes import Lanes
from libs.common.secrets import Vault
from libs.common.tracing import OFF, Kind, Tracing
from libs.providers.base import Cause, Provider, ProviderError, Rejected, Unavailable
from libs.providers.sessions import Sessions
from services.workload.domain.steps import Act
from services.workload.models import Resource
from services.workload.settings import Guests, Pace
from services.workload.usecases.following import Means
from services.workload.usecases.instruments import Instruments
from services.workload.usecases.keeping import belongs_to
from services.workload.usecases.leasing import Claimed, guard, read_claims, release_claims, take_leases
from services.workload.usecases.limiting import LimitsDue

log = structlog.get_logger(__name__)
T = TypeVar("T")

RELEASE = "release"
"""Stands beside the acts on machines where refusals are remembered."""
FORGET_REFUSALS_AFTER = timedelta(hours=1)
_GIVES_BACK = (Act.DELETE, Act.SUSPEND, RELEASE)
Wish = UUID | Literal["any"] | None
"""Limits that are to rest: of one action, of none (what holds is asked for again), or whichever they are."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn at a cloud: an open session, and when everything that is asked in it must have been answered."""

    provider: Provider
    ends_at: float
    """On the event loop's clock; opening the session counts."""

    @property
    def left_s(self) -> float:
        """How much of the turn is left."""
        return max(0.0, self.ends_at - asyncio.get_running_loop().time())


@dataclass(slots=True)
class Hands:
    """What it takes to act: the database, sessions to clouds, lanes, and who this replica is."""

    database: Database
    sessions: Sessions
    lanes: Lanes
    clock: Clock
    vault: Vault
    means: Means
    replica: UUID
    installation_id: UUID
    pace: Pace
    guests: Guests | None = None
    """Whom guests report to; None: nobody."""
    tracing: Tracing = OFF
    looked_at: dict[UUID, tuple[int, bool, datetime]] = field(default_factory=dict)
    """When each resource's inventory was last read, at which of its revisions, and whether all was settled then."""
    resting_until: dict[UUID, tuple[Wish, datetime]] = field(default_factory=dict)
    """Clusters whose limits were refused: which wish, and not asked again before."""
    checked: dict[UUID, tuple[datetime | None, datetime]] = field(default_factory=dict)
    """When the limits of each cluster were last asked for, and upon which sample that showed ours exposed."""
    refused: dict[tuple[str, str], tuple[int, datetime]] = field(default_factory=dict)
    """Acts on machines, and releases of clusters, that were refused: how often, and not asked again before."""
    claimed_at: datetime | None = None
    """When leases were last renewed and taken."""
    is_ours: bool = False
    """Whether the database is known to be this installation's."""

    @property
    def instruments(self) -> Instruments:
        """What workload counts."""
        return self.means.instruments

    async def claim(self, named: frozenset[UUID] | None = None) -> list[Claimed]:
        """Resources that this replica may act on now: those that are named, or where it is time for that, or nobody
        is named, all of them; then sessions of others are closed. None in a strange database."""
        now = self.clock.now()
        is_due = self.claimed_at is None or now >= self.claimed_at + timedelta(seconds=self.pace.act_every_s)
        only = None if is_due else named
        async with self.database.transaction() as session:
            self.is_ours = self.is_ours or await belongs_to(session, self.installation_id, self.clock.now())
            if not self.is_ours:
                log.error(
                    "installation.differs",
                    remedy="give this process the TIDES_INSTALLATION_ID of its database",
                )
                return []
            if only is None:
                await take_leases(session, self.replica, self._busy())
            claimed = await read_claims(session, self.replica, self.installation_id, now, only)
        if only is None:
            self.claimed_at = now
            self.instruments.holds(len(claimed))
            # In a lane, for a dead cloud takes its time to say goodbye.
            close = partial(self.sessions.keep, {resource.resource_id for resource in claimed})
            self.lanes.start("close", close, kind="close")
        return [resource for resource in claimed if not resource.is_resting]

    def _busy(self) -> frozenset[UUID]:
        """Resources that something is under way at just now."""
        lanes = (lane for lane in self.lanes.busy if isinstance(lane, tuple))
        return frozenset(part for lane in lanes for part in lane if isinstance(part, UUID))

    def may_look(self, resource: Claimed) -> bool:
        """Whether an inventory is due to be read: after a change at once, soon while something is under way, else now
        and then."""
        revision, was_settled, looked_at = self.looked_at.get(resource.resource_id, (None, True, None))
        every_s = self.pace.look_every_s if resource.is_settled else self.pace.look_again_s
        is_changed = revision != resource.revision or (was_settled and not resource.is_settled)
        if looked_at is None or is_changed:
            return True
        return self.clock.now() >= looked_at + timedelta(seconds=every_s)

    def note_look(self, resource: Claimed) -> None:
        """The inventory is being read."""
        self.looked_at[resource.resource_id] = (resource.revision, resource.is_settled, self.clock.now())

    def is_resting(self, due: LimitsDue) -> bool:
        """Whether these limits were refused a moment ago. A newer wish is asked for at once: it may be a cut."""
        wish, until = self.resting_until.get(due.cluster_id, ("any", None))
        return until is not None and self.clock.now() < until and wish in ("any", due.action_id)

    def rest(self, due: LimitsDue, error: ProviderError) -> None:
        """Do not ask for these limits for a while; where there was no answer, for none of the cluster's."""
        until = self.clock.now() + timedelta(seconds=self.pace.refused_rest_s)
        wish: Wish = "any" if error.cause is Cause.TIMEOUT else due.action_id
        self.resting_until[due.cluster_id] = (wish, until)

    def pause(self, due: LimitsDue) -> None:
        """Do not ask for just these limits again for a while; a newer wish is asked for at once."""
        if due.action_id is not None:
            until = self.clock.now() + timedelta(seconds=self.pace.refused_rest_s)
            self.resting_until[due.cluster_id] = (due.action_id, until)

    def may_check(self, due: LimitsDue) -> bool:
        """Whether limits that should hold are asked for all the same: once for a sample that shows ours exposed, and
        now and then. Who has just begun waits that long first."""
        now = self.clock.now()
        exposed_at, at = self.checked.setdefault(due.cluster_id, (None, now))
        is_news = due.exposed_at is not None and due.exposed_at != exposed_at
        return is_news or now >= at + timedelta(seconds=self.pace.check_every_s)

    def note_check(self, due: LimitsDue) -> None:
        """The limits are being asked for."""
        self.checked[due.cluster_id] = (due.exposed_at, self.clock.now())

    def may_try(self, name: str, act: str) -> bool:
        """Whether an act may be asked for; one that was refused is, ever more rarely: each try is seen there."""
        _, not_before = self.refused.get((name, act), (0, None))
        return not_before is None or self.clock.now() >= not_before

    def note_refused(self, name: str, act: str, error: ProviderError) -> None:
        """Let an act that was refused rest, longer each time; giving back never long unless it is forbidden."""
        now, known = self.clock.now(), self.refused
        forgotten = [key for key, (_, until) in known.items() if now >= until + FORGET_REFUSALS_AFTER]
        for key in forgotten:
            del known[key]
        times, _ = known.get((name, act), (0, now))
        gives_back = act in _GIVES_BACK and not isinstance(error, Rejected)
        most_s = self.pace.giving_back_most_s if gives_back else self.pace.refused_most_s
        rest_s = min(most_s, self.pace.refused_rest_s * 2.0 ** min(times, 10))
        known[name, act] = (times + 1, now + timedelta(seconds=rest_s))

    def note_done(self, name: str, act: str) -> None:
        """An act was taken: what was refused of it before is forgotten; of a deleted machine everything."""
        for key in [key for key in self.refused if key[0] == name and act in (key[1], Act.DELETE)]:
            del self.refused[key]

    async def give_back(self) -> None:
        """An orderly stop: no lease and no session is left behind."""
        await self.lanes.aclose()
        try:
            async with self.database.transaction() as session:
                await release_claims(session, self.replica)
        finally:
            await self.sessions.aclose()

    @asynccontextmanager
    async def settling(self, resource: Claimed) -> AsyncIterator[tuple[Session, Resource]]:
        """A transaction with the resource's row locked. Raises LeaseLost when another replica acts on it now."""
        async with self.database.transaction() as session:
            yield session, await guard(session, self.replica, resource.resource_id)

    @asynccontextmanager
    async def noting(
        self, name: str, find_cause: Callable[[Session], Awaitable[Mapping[str, str]]], **about: object
    ) -> AsyncIterator[None]:
        """Where traces are collected, the block is noted as a consequence of the decision behind it."""
        if not self.tracing.is_on:
            yield
            return
        async with self.database.transaction() as session:
            cause = await find_cause(session)
        with self.tracing.work(name, cause, Kind.WORKS, **about):
            yield

    async def begin(self, resource: Claimed) -> Turn:
        """Open the session, or find it open. Raises ProviderError: the cloud itself is not to be had."""
        ends_at = asyncio.get_running_loop().time() + self.pace.call_s
        provider = await self._within(ends_at, self.sessions.get(resource.provider, resource.connection))
        return Turn(provider, ends_at)

    @asynccontextmanager
    async def starting(self, resource: Claimed, turn: Turn) -> AsyncIterator[tuple[Session, Resource]]:
        """A transaction directly before a call. Raises LeaseLost unless the lease outlasts what is left of the turn."""
        async with self.database.transaction() as session:
            yield session, await guard(session, self.replica, resource.resource_id, turn.left_s)

    async def call(self, turn: Turn, call: Awaitable[T]) -> T:
        """One call to a cloud. A time-out means unknown: the next look reads back before anything else."""
        return await self._within(turn.ends_at, call)

    async def _within(self, ends_at: float, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout_at(ends_at):
                return await call
        except TimeoutError:
            raise Unavailable(Cause.TIMEOUT, f"no answer within {self.pace.call_s:.0f} s") from None
