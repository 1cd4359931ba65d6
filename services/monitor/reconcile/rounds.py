"""One round over one resource: ask the cloud, publish what is new, keep how far it went."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import perf_counter
from uuid import UUID

import structlog

from libs.common.bus.base import BusUnavailable
from libs.common.bus.messages import to_message
from libs.common.contracts.catalogue import entry_of
from libs.common.contracts.resource import ClusterFacts
from libs.common.contracts.usage import Sample, UsageSampled
from libs.common.db import Database
from libs.common.ids import sample_id
from libs.common.secrets import Unsealable
from libs.common.service import Runtime
from libs.providers.base import Cause, Connection, Provider, ProviderError, Rejected, Unavailable
from libs.providers.registry import UnknownDriver
from libs.providers.sessions import Sessions
from services.monitor import domain, usecases
from services.monitor.domain import Tick
from services.monitor.models import Resource
from services.monitor.reconcile.instruments import Instruments

log = structlog.get_logger(__name__)

ROUND_WITHIN_S = 25.0
"""Shorter than a lease, less the time between two renewals."""
MOST_WAITING = 200
"""Unpublished intervals that are remembered; older ones are read again from the cloud's own hour."""
STALE_INTERVALS = 3
SOURCE = "/tides/monitor"


@dataclass(slots=True)
class Watch:
    """What this process remembers of a resource while it holds it."""

    revision: int
    due_at: datetime
    fresh_at: datetime
    """When something new was last received."""
    marks: dict[str, datetime]
    inventory: tuple[ClusterFacts, ...]
    clock_offset_s: float
    failures: int
    waiting: dict[datetime, UsageSampled] = field(default_factory=dict)
    """Measured and not published yet, by the end of the interval."""
    absent: dict[str, int] = field(default_factory=dict)
    interval_s: float = 0.0
    """Of the cloud's samples, once known."""


class Rounds:
    """Asks, publishes, settles. Knows the sessions of this process, not when a round is due."""

    def __init__(
        self, runtime: Runtime, database: Database, sessions: Sessions, instruments: Instruments, token: UUID
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._sessions = sessions
        self._instruments = instruments
        self._token = token

    async def run(self, resource: Resource, watch: Watch) -> None:
        """One round, whatever happens. Afterwards `watch` says when the next one is due."""
        started = perf_counter()
        try:
            async with asyncio.timeout(ROUND_WITHIN_S):
                samples = await self._ask(resource, watch)
                received_at = self._runtime.clock.now()
                inventory = await self._look(resource, watch, samples)
        except Exception as error:
            refusal = _refusal(error)
            if refusal is not error and refusal.cause is Cause.UNKNOWN:
                log.exception("monitor.round_broken", resource=str(resource.id), provider=resource.provider)
            self._instruments.round_failed(resource.id, perf_counter() - started, refusal.cause.value)
            await self._fail(resource, watch, refusal)
            return
        published = await self._publish(resource, watch, samples, received_at)
        self._instruments.round_ended(resource.id, perf_counter() - started, published, len(watch.waiting))
        await self._settle(resource, watch, received_at, inventory)

    async def _ask(self, resource: Resource, watch: Watch) -> Sequence[Sample]:
        """Everything since the oldest mark. A session that the cloud has ended is opened again, once."""
        known = await self._sessions.get(resource.provider, self._connection(resource))
        since = domain.since(watch.marks)
        try:
            samples = await known.sample(since)
        except Rejected as error:
            if error.cause is not Cause.AUTH or not watch.marks or watch.failures:
                raise
            await self._sessions.drop(resource.id)
            known = await self._sessions.get(resource.provider, self._connection(resource))
            samples = await known.sample(since)
        if not samples:
            await self._doubt(resource, watch, known)
        return samples

    async def _doubt(self, resource: Resource, watch: Watch, provider: Provider) -> None:
        """No answer is fine between two intervals; for long, it is an outage. Raises Unavailable."""
        patience_s = STALE_INTERVALS * max(resource.interval_s, watch.interval_s)
        if watch.marks and (self._runtime.clock.now() - watch.fresh_at).total_seconds() <= patience_s:
            return
        if await provider.sample(None):
            raise Unavailable(Cause.UNKNOWN, f"the cloud has measured nothing new for {patience_s:.0f} s")
        expected = sum(len(cluster.hosts) for cluster in watch.inventory)
        raise Unavailable(Cause.NOT_FOUND, f"the inventory is empty, {expected} hosts were expected")

    async def _look(
        self, resource: Resource, watch: Watch, samples: Sequence[Sample]
    ) -> tuple[ClusterFacts, ...] | None:
        """The inventory after this round; None when nothing new was measured. Cores are asked for when it changes."""
        if not domain.new_ticks(samples, watch.marks):
            return None
        seen = domain.see_inventory(resource.id, samples, watch.inventory)
        watch.absent = domain.count_absent(seen, watch.inventory, watch.absent)
        clusters = domain.keep_absent(seen, watch.inventory, watch.absent)
        if clusters == watch.inventory:
            return clusters
        provider = await self._sessions.get(resource.provider, self._connection(resource))
        found = await provider.validate()
        totals = {cluster.cluster: (cluster.cores, cluster.cpu_mhz) for cluster in found.clusters}
        return domain.with_cores(clusters, totals)

    async def _publish(
        self, resource: Resource, watch: Watch, samples: Sequence[Sample], received_at: datetime
    ) -> int:
        """Publish what is new, oldest first, as long as the bus confirms; returns how many samples went out."""
        self._remember(resource, watch, samples, received_at)
        public = entry_of(UsageSampled).public
        published = 0
        for at in sorted(watch.waiting):
            event = watch.waiting[at]
            try:
                await self._runtime.bus.publish(to_message(event, SOURCE), public=public)
            except BusUnavailable as error:
                log.warning("monitor.bus_unavailable", resource=str(resource.id), error=str(error))
                break
            del watch.waiting[at]
            watch.marks = domain.move(watch.marks, Tick(at, event.samples))
            published += len(event.samples)
        return published

    def _remember(
        self, resource: Resource, watch: Watch, samples: Sequence[Sample], received_at: datetime
    ) -> None:
        ticks = domain.new_ticks(samples, watch.marks)
        if ticks:
            newest = ticks[-1].samples[0]
            watch.interval_s = newest.interval_s
            watch.clock_offset_s = domain.measure_offset(newest.at, received_at, newest.interval_s)
            watch.fresh_at = received_at
        for tick in ticks:
            waiting = watch.waiting.get(tick.at)
            if waiting is None or len(waiting.samples) < len(tick.samples):
                watch.waiting[tick.at] = self._event(resource, watch, tick, received_at)
        for at in sorted(watch.waiting)[:-MOST_WAITING]:
            del watch.waiting[at]

    def _event(self, resource: Resource, watch: Watch, tick: Tick, received_at: datetime) -> UsageSampled:
        return UsageSampled(
            id=sample_id(resource.id, tick.name),
            at=received_at,
            resource_id=resource.id,
            samples=tick.samples,
            received_at=received_at,
            clock_offset_s=watch.clock_offset_s,
        )

    async def _settle(
        self,
        resource: Resource,
        watch: Watch,
        received_at: datetime,
        inventory: tuple[ClusterFacts, ...] | None,
    ) -> None:
        watch.failures = 0
        if inventory is not None:
            watch.inventory = inventory
            there = {cluster.cluster for cluster in inventory}
            watch.marks = {cluster: at for cluster, at in watch.marks.items() if cluster in there}
        outcome = usecases.Outcome(
            marks=watch.marks,
            received_at=received_at,
            clock_offset_s=watch.clock_offset_s,
            due_at=watch.due_at,
            inventory=inventory,
        )
        async with self._database.transaction() as session:
            kept = await usecases.settle(session, self._token, resource.id, outcome)
        if not kept:
            log.info("monitor.lease_lost", resource=str(resource.id))

    async def _fail(self, resource: Resource, watch: Watch, refusal: ProviderError) -> None:
        await self._sessions.drop(resource.id)
        watch.failures += 1
        now = self._runtime.clock.now()
        pause_s = domain.pause_s(
            watch.failures, resource.interval_s, login_refused=refusal.cause is Cause.AUTH
        )
        watch.due_at = now + timedelta(seconds=pause_s)
        log.warning(
            "monitor.round_failed",
            resource=str(resource.id),
            cause=refusal.cause.value,
            detail=refusal.detail,
            failures=watch.failures,
            pause_s=pause_s,
        )
        failure = usecases.Failure(refusal.cause.value, refusal.detail[:1000], now, watch.due_at)
        async with self._database.transaction() as session:
            await usecases.settle_failure(session, self._token, resource.id, failure)

    def _connection(self, resource: Resource) -> Connection:
        return Connection(
            resource_id=resource.id,
            installation_id=self._runtime.settings.installation_id or UUID(int=0),
            url=resource.url,
            username=resource.username,
            sealed_secret=resource.sealed_secret,
            ca_pem=resource.ca_pem,
            thumbprint=resource.thumbprint,
            settings=resource.settings,
        )


def _refusal(error: Exception) -> ProviderError:
    """Whatever went wrong, in a driver's words; of an unexpected error only its kind, for it may hold anything."""
    if isinstance(error, ProviderError):
        return error
    if isinstance(error, TimeoutError):
        return Unavailable(Cause.TIMEOUT, f"no answer within {ROUND_WITHIN_S:.0f} s")
    if isinstance(error, Unsealable | UnknownDriver):
        return Rejected(Cause.INVALID, str(error))
    return Unavailable(Cause.UNKNOWN, f"the driver failed: {type(error).__name__}")
