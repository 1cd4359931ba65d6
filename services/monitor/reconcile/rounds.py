"""One round over one resource: ask the cloud, publish what is new, keep how far it went."""

import asyncio
import random
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
from libs.providers.base import (
    Cause,
    Connection,
    LoginRefused,
    Provider,
    ProviderError,
    Rejected,
    Unavailable,
)
from libs.providers.registry import UnknownDriver
from libs.providers.sessions import Sessions, is_spent
from services.monitor import domain, usecases
from services.monitor.domain import Refusal, Tick
from services.monitor.models import Resource
from services.monitor.reconcile.backlog import Backlog
from services.monitor.reconcile.instruments import Instruments

log = structlog.get_logger(__name__)

ROUND_WITHIN_S = 25.0
"""Shorter than a lease, less the time between two renewals."""
LOOK_WITHIN_S = 15.0
"""For asking what hosts are made of, after the samples went out."""
LOOK_AGAIN_AFTER = timedelta(minutes=5)
"""They are asked again, though none came or went: a GPU may have been put in, or a right been given."""
LOOK_AROUND_EVERY = 30
"""Rounds between two looks for clusters whose clock is too slow for their samples to be new."""
STALE_INTERVALS = 3
SOURCE = "/tides/monitor"


@dataclass(slots=True)
class Watch:
    """What this process remembers of a resource while it holds it."""

    revision: int
    due_at: datetime
    fresh_at: datetime
    """When something new was last received."""
    backlog: Backlog
    inventory: tuple[ClusterFacts, ...]
    clock_offset_s: float
    failures: int
    offsets_s: dict[str, float] = field(default_factory=dict)
    """Per cluster its clock minus ours."""
    absent: dict[str, int] = field(default_factory=dict)
    interval_s: float = 0.0
    """Of the cloud's samples, once known."""
    rounds: int = 0
    """That the cloud answered."""
    looked_at: datetime | None = None
    """When hosts were last asked what they are made of; None: not since this process holds the resource."""
    is_lost: bool = False
    """Whether another replica holds the resource by now: a settlement was refused."""

    @property
    def misses_somebody(self) -> bool:
        """Whether to look for clusters that are there and that no question for new samples finds."""
        about_to_go = max(self.absent.values(), default=0) == domain.ABSENT_ROUNDS - 1
        return about_to_go or self.rounds % LOOK_AROUND_EVERY == 0


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
        self._chance = random.Random()

    async def run(self, resource: Resource, watch: Watch) -> None:
        """One round, whatever happens. Afterwards `watch` says when the next one is due."""
        with self._runtime.tracing.work("monitor.round", resource=resource.id, provider=resource.provider):
            await self._round(resource, watch)

    async def _round(self, resource: Resource, watch: Watch) -> None:
        started = perf_counter()
        try:
            async with asyncio.timeout(ROUND_WITHIN_S):
                samples, whole = await self._ask(resource, watch)
        except Exception as error:
            refusal = _refusal(error)
            if refusal is not error and refusal.cause is Cause.UNKNOWN:
                log.exception("monitor.round_broken", resource=str(resource.id), provider=resource.provider)
            self._instruments.round_failed(resource.id, perf_counter() - started, refusal.cause.value)
            await self._fail(resource, watch, refusal, is_spent(error, watch.failures + 1))
            return
        received_at = self._runtime.clock.now()
        is_new = self._take(resource, watch, samples, whole, received_at)
        published = await self._publish(resource, watch)
        waiting = len(watch.backlog.waiting)
        self._instruments.round_ended(resource.id, perf_counter() - started, published, waiting)
        inventory = await self._look(resource, watch, samples) if is_new else None
        await self._settle(resource, watch, received_at, inventory)

    async def _ask(self, resource: Resource, watch: Watch) -> tuple[Sequence[Sample], bool]:
        """What is new, and whether it is all. A session that the cloud has ended is opened again, once."""
        known = await self._sessions.get(resource.provider, self._connection(resource))
        ask = watch.backlog.ask(self._cloud_now(watch))
        try:
            samples = await known.sample(ask.since)
        except LoginRefused:
            raise  # a second try would bring the account nearer to being locked
        except Rejected as error:
            is_old = watch.revision != resource.revision
            if error.cause is not Cause.AUTH or not watch.backlog.marks or watch.failures or is_old:
                raise  # nobody logs in again with a password that has been replaced
            await self._sessions.drop(resource.id)
            known = await self._sessions.get(resource.provider, self._connection(resource))
            samples = await known.sample(ask.since)
        watch.rounds += 1
        if not samples:
            samples = await self._doubt(resource, watch, known)
        elif ask.since is not None and watch.misses_somebody:
            samples = [*samples, *domain.strays(await known.sample(None), samples, watch.backlog.marks)]
        gone_back = watch.backlog.take_back(samples, timedelta())
        if gone_back:
            log.warning("monitor.clock_went_back", resource=str(resource.id), clusters=sorted(gone_back))
        return samples, ask.whole

    async def _doubt(self, resource: Resource, watch: Watch, provider: Provider) -> Sequence[Sample]:
        """No answer is fine between two intervals; for long, it is an outage, or the cloud's clock went back.

        Returns what was measured since then. Raises Unavailable.
        """
        patience_s = STALE_INTERVALS * max(resource.interval_s, watch.interval_s)
        blind = self._runtime.clock.now() - watch.fresh_at
        if watch.backlog.marks and blind.total_seconds() <= patience_s:
            return []
        newest = await provider.sample(None)
        gone_back = watch.backlog.take_back(newest, blind)
        if gone_back:
            log.warning("monitor.clock_went_back", resource=str(resource.id), clusters=sorted(gone_back))
            return await provider.sample(min(watch.backlog.marks.values()))
        if newest:
            raise Unavailable(Cause.UNKNOWN, f"the cloud has measured nothing new for {patience_s:.0f} s")
        expected = sum(len(cluster.hosts) for cluster in watch.inventory)
        raise Unavailable(Cause.NOT_FOUND, f"the inventory is empty, {expected} hosts were expected")

    async def _look(
        self, resource: Resource, watch: Watch, samples: Sequence[Sample]
    ) -> tuple[ClusterFacts, ...] | None:
        """The inventory after this round; what its hosts are made of is asked when it changes, and now and then.

        None where it has changed and that cannot be had.
        """
        seen = domain.see_inventory(resource.id, samples, watch.inventory)
        watch.absent = domain.count_absent(seen, watch.inventory, watch.absent)
        clusters = domain.keep_absent(seen, watch.inventory, watch.absent)
        is_same, now = clusters == watch.inventory, self._runtime.clock.now()
        watch.looked_at = watch.looked_at or now
        if is_same and timedelta() <= now - watch.looked_at < LOOK_AGAIN_AFTER:
            return clusters
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                provider = await self._sessions.get(resource.provider, self._connection(resource))
                hardware = await provider.hardware()
        except Exception as error:
            refusal = _refusal(error)
            cause, detail = refusal.cause.value, refusal.detail
            log.warning("monitor.hardware_unknown", resource=str(resource.id), cause=cause, detail=detail)
            watch.looked_at = now
            return clusters if is_same else None
        watch.looked_at = now
        return domain.with_hardware(clusters, hardware)

    def _take(
        self, resource: Resource, watch: Watch, samples: Sequence[Sample], whole: bool, received_at: datetime
    ) -> bool:
        """Keep what is new of an answer, and what it says of the cloud's clocks; False where nothing is new."""
        fresh = domain.new_ticks(samples, watch.backlog.marks)
        if fresh:
            measured = [sample for tick in fresh for sample in tick.samples]
            watch.interval_s = measured[-1].interval_s
            watch.offsets_s |= domain.measure_offsets(measured, received_at)
            watch.clock_offset_s = domain.common_offset(watch.offsets_s.values())
            watch.fresh_at = received_at
        watch.backlog.take(
            samples, whole=whole, say=lambda tick: self._event(resource, watch, tick, received_at)
        )
        return bool(fresh)

    async def _publish(self, resource: Resource, watch: Watch) -> int:
        """Publish what waits, oldest first, as long as the bus confirms; returns how many samples went out."""
        public = entry_of(UsageSampled).public
        published = 0
        for at in sorted(watch.backlog.waiting):
            event = watch.backlog.waiting[at]
            try:
                await self._runtime.bus.publish(to_message(event, SOURCE), public=public)
            except BusUnavailable as error:
                log.warning("monitor.bus_unavailable", resource=str(resource.id), error=str(error))
                break
            watch.backlog.published(at)
            published += len(event.samples)
        watch.backlog.close(self._cloud_now(watch))
        return published

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
            watch.backlog.keep(there)
            watch.offsets_s = {
                cluster: offset_s for cluster, offset_s in watch.offsets_s.items() if cluster in there
            }
        outcome = usecases.Outcome(
            marks=watch.backlog.marks,
            received_at=received_at,
            clock_offset_s=watch.clock_offset_s,
            due_at=watch.due_at,
            inventory=inventory,
        )
        async with self._database.transaction() as session:
            kept = await usecases.settle(session, self._token, resource.id, outcome)
        if not kept:
            watch.is_lost = True
            log.info("monitor.lease_lost", resource=str(resource.id))

    async def _fail(self, resource: Resource, watch: Watch, refusal: ProviderError, spent: bool) -> None:
        if watch.revision != resource.revision:
            # What was refused was the old password, or the old address: it counts for nothing, and is used no more.
            await self._sessions.drop(resource.id)
            watch.due_at = self._runtime.clock.now()
            log.info("monitor.round_superseded", resource=str(resource.id), cause=refusal.cause.value)
            return
        if spent:
            await self._sessions.drop(resource.id)
        watch.failures += 1
        if refusal.cause is Cause.TIMEOUT:
            watch.backlog.timed_out()
        now = self._runtime.clock.now()
        pause_s = self._pause_s(resource, watch, refusal)
        watch.due_at = now + timedelta(seconds=pause_s)
        log.warning(
            "monitor.round_failed",
            resource=str(resource.id),
            cause=refusal.cause.value,
            detail=refusal.detail,
            failures=watch.failures,
            pause_s=pause_s,
        )
        refused = resource.revision if isinstance(refusal, LoginRefused) else None
        failure = usecases.Failure(refusal.cause.value, refusal.detail[:1000], now, watch.due_at, refused)
        async with self._database.transaction() as session:
            watch.is_lost = not await usecases.settle_failure(session, self._token, resource.id, failure)

    def _pause_s(self, resource: Resource, watch: Watch, refusal: ProviderError) -> float:
        """Until the next round; a bit less or more, so that many clouds that return at once are not asked at once."""
        told_s, kind = refusal.retry_after_s, _kind(refusal)
        pause_s = domain.pause_s(watch.failures, resource.interval_s, kind, told_s)
        part = 0.1 * self._runtime.settings.jitter * self._chance.random()
        return pause_s * (1 - part if told_s is None else 1 + part)

    def _cloud_now(self, watch: Watch) -> datetime:
        return self._runtime.clock.now() + timedelta(seconds=watch.clock_offset_s)

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
            revision=resource.revision,
        )


def _kind(refusal: ProviderError) -> Refusal:
    if not isinstance(refusal, Rejected):
        return Refusal.PASSES
    # A session that has just ended is no refused login: the next one may be as good as ever.
    return Refusal.LOGIN if refusal.cause is Cause.AUTH else Refusal.FINAL


def _refusal(error: Exception) -> ProviderError:
    """Whatever went wrong, in a driver's words; of an unexpected error only its kind, for it may hold anything."""
    if isinstance(error, ProviderError):
        return error
    if isinstance(error, TimeoutError):
        return Unavailable(Cause.TIMEOUT, f"no answer within {ROUND_WITHIN_S:.0f} s")
    if isinstance(error, Unsealable | UnknownDriver):
        return Rejected(Cause.INVALID, str(error))
    return Unavailable(Cause.UNKNOWN, f"the driver failed: {type(error).__name__}")
