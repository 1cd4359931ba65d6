"""The beat `collect`: hold a fair share of the resources and start whatever round is due."""

import os
import random
import socket
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import structlog

from libs.common.clock import Clock, Timer
from libs.common.db import Database
from libs.common.ids import new_id
from libs.common.lanes import Lanes
from libs.common.service import Runtime
from libs.common.wake import Activity, Wake
from libs.providers.counted import Counting
from libs.providers.sessions import Sessions
from services.monitor import usecases
from services.monitor.models import Resource
from services.monitor.reconcile.backlog import Backlog
from services.monitor.reconcile.instruments import Instruments
from services.monitor.reconcile.rounds import Rounds, Watch

log = structlog.get_logger(__name__)

COLLECT_EVERY_S = 5.0
HOLD_EVERY_S = 1.0
"""Not for every round that is due: of a thousand resources fifty are in a second, and each look reads all of them."""
SWEEP_EVERY_S = 300.0


class Collector:
    """Rounds run side by side, each in its own lane: a slow or dead cloud delays no other."""

    def __init__(self, runtime: Runtime, database: Database) -> None:
        self._database = database
        self._clock = runtime.clock
        self._jitter = runtime.settings.jitter
        self._chance = random.Random()
        token = new_id()
        holder = f"{socket.gethostname()[:150]}:{os.getpid()}:{token.hex[-4:]}"
        self._lease = usecases.Lease(token, holder)
        clock = _IdleWhileAsleep(runtime.clock, runtime.activity)
        self._sessions = Sessions(runtime.vault, clock, Counting(runtime.metrics, "monitor"))
        self._instruments = Instruments(runtime.registry)
        self._rounds = Rounds(runtime, database, self._sessions, self._instruments, token)
        self._lanes = Lanes(runtime.activity, runtime.metrics)
        self._watches: dict[UUID, Watch] = {}
        self._running: set[UUID] = set()
        self._held: list[Resource] = []
        self._hold_at: datetime | None = None
        """When leases are to be renewed; None: at once."""

    def look_again(self) -> None:
        """A resource has changed: what is held is read anew at the next beat."""
        self._hold_at = None

    async def collect(self) -> float | None:
        """Hold, start what is due, and say in how many seconds the next round is due."""
        now = self._clock.now()
        if self._hold_at is None or now >= self._hold_at:
            await self._hold(now)
        now = self._clock.now()
        for resource in self._held:
            watch = self._watch(resource, now)
            if watch.due_at <= now:
                self._start(resource, watch, now)
        due = [watch.due_at for watch in self._watches.values()]
        return (min(due) - now).total_seconds() if due else None

    async def _hold(self, now: datetime) -> None:
        """Renew, give up, claim: as often as leases need it, not for every round that is due."""
        # First: what changes meanwhile is read at the next beat.
        self._hold_at = now + timedelta(seconds=HOLD_EVERY_S)
        try:
            async with self._database.transaction() as session:
                resources = await usecases.hold(session, self._lease, self._running)
        except BaseException:
            self._hold_at = None
            raise
        self._held = sorted(resources, key=lambda resource: resource.id)
        self._forget_others({resource.id for resource in resources})
        self._instruments.holds(len(resources))

    async def sweep(self) -> None:
        """Forget replicas that have ended."""
        async with self._database.transaction() as session:
            await usecases.sweep_replicas(session)

    async def aclose(self) -> None:
        """End rounds, let others take over at once, then end the sessions: a dead cloud takes its time over that."""
        await self._lanes.aclose()
        try:
            async with self._database.transaction() as session:
                await usecases.let_go(session, self._lease.token)
        finally:
            await self._sessions.aclose()

    def _forget_others(self, held: set[UUID]) -> None:
        """Close what is no longer held; in lanes, for a dead cloud takes its time to say goodbye."""
        lost = self._watches.keys() - held
        for resource_id in lost:
            del self._watches[resource_id]
        for resource_id in lost - self._running:
            work = partial(self._sessions.drop, resource_id)
            self._lanes.start(("close", resource_id), work, kind="close", resource=str(resource_id))

    def _watch(self, resource: Resource, now: datetime) -> Watch:
        watch = self._watches.get(resource.id)
        if watch is None:
            watch = self._watches[resource.id] = Watch(
                revision=resource.revision,
                due_at=max(now, resource.retry_at or now),
                fresh_at=now,
                backlog=Backlog(usecases.marks_of(resource)),
                inventory=usecases.inventory_of(resource),
                clock_offset_s=resource.clock_offset_s,
                failures=resource.failures,
            )
        elif watch.revision != resource.revision:
            watch.revision, watch.due_at = resource.revision, now
        return watch

    def _start(self, resource: Resource, watch: Watch, now: datetime) -> None:
        """Begin a round; one that still runs is left alone, and its next turn comes an interval later."""
        interval = timedelta(seconds=resource.interval_s)
        early = 0.1 * self._jitter * self._chance.random()
        due_at = watch.due_at + interval * (1 - early)
        watch.due_at = due_at if due_at > now else now + interval
        if resource.id not in self._running:
            self._running.add(resource.id)
            work = partial(self._run, resource, watch)
            about = {"resource": resource.name, "resource_id": str(resource.id)}
            self._lanes.start(resource.id, work, kind="round", **about)

    async def _run(self, resource: Resource, watch: Watch) -> None:
        try:
            await self._rounds.run(resource, watch)
        finally:
            self._running.discard(resource.id)
            if watch.is_lost:
                self.look_again()
            if self._watches.get(resource.id) is not watch:
                await self._sessions.drop(resource.id)


class _IdleWhileAsleep:
    """The clock that drivers get: who sleeps on it is not busy, so that stepped time can move on."""

    def __init__(self, clock: Clock, activity: Activity) -> None:
        self._clock = clock
        self._activity = activity

    def now(self) -> datetime:
        return self._clock.now()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return self._clock.call_later(seconds, callback)

    async def sleep(self, seconds: float) -> None:
        await Wake(self._activity).wait(self._clock, seconds)
