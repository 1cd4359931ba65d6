"""The runner: composes services, migrates, declares queues, runs beats and consumers, serves HTTP, stops in order.

`tides run all` and `tides run monitor` are this same code with a longer or shorter list.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from structlog.contextvars import bind_contextvars

from libs.common.auth import Verifier
from libs.common.bus.base import Bus, BusUnavailable, Queue
from libs.common.bus.handling import heed_cancellation
from libs.common.bus.traced import traced
from libs.common.clock import Clock, WallClock
from libs.common.contracts.supply import TokenRevoked
from libs.common.db import Database, Session
from libs.common.figures import READ_EVERY_S, Gauge, measuring
from libs.common.hearing import handler
from libs.common.inbox import prune, remember_revoked, revoked_tokens
from libs.common.metrics import Metrics
from libs.common.outbox import FIGURES as OUTBOX
from libs.common.outbox import relay
from libs.common.reaching import declare_reached, migrate_reached, reach_bus, reach_database
from libs.common.readiness import Readiness
from libs.common.replay import ASK_EVERY_S, answering, asking, state_keys
from libs.common.rotation import RESEAL_EVERY_S, resealing
from libs.common.secrets import Vault, parse_keys
from libs.common.serve import serving
from libs.common.service import Beat, Hears, Runtime, Service, queue_name
from libs.common.settings import Settings
from libs.common.tracing import OFF, Tracing
from libs.common.wake import Activity, Wake

log = structlog.get_logger(__name__)

Build = Callable[[Runtime], Service]
PROCESS = "process"
"""Owner of the beats that are no service's."""
DEAD_LETTERS = Gauge("tides_dead_letters", "Messages that were given up and wait for a person.")
RELAY_EVERY_S = 5.0
LOOK_WITHIN_S = 5.0
HOUSEKEEPING_EVERY_S = 3600.0
REVOCATIONS_EVERY_S = 5.0
STOP_WITHIN_S = 6.0
"""For beats and handlers to settle what they are at; HTTP has three seconds after that."""
CLOSED_WITHIN_S = 15.0
"""For leases and sessions, counted from the order to stop."""
RELAY_REST_WITHIN_S = 2.0
HANG_UP_WITHIN_S = 3.0


@dataclass(frozen=True, slots=True)
class Running:
    """A running process: its services and the address it serves."""

    services: tuple[Service, ...]
    bus: Bus
    activity: Activity
    clock: Clock
    url: str
    failed: asyncio.Future[None]
    """Done when a loop that must not end has ended."""


@dataclass(slots=True)
class _Composition:
    runtime: Runtime
    databases: list[tuple[Database, Wake]] = field(default_factory=list)


@asynccontextmanager
async def running(
    builders: Sequence[Build], settings: Settings, *, clock: Clock | None = None, tracing: Tracing = OFF
) -> AsyncIterator[Running]:
    """Run these services until the block ends. Migrates first; stops in order:

    readiness, beats and consumers, HTTP, leases and sessions, outbox, bus; all within 20 s.
    """
    async with AsyncExitStack() as stack:
        await reach_database(settings)
        bus = traced(await reach_bus(settings), tracing, settings.bus_dsn)
        stack.push_async_callback(_hang_up, bus, tracing)
        composition = _compose(settings, bus, clock or WallClock(), tracing)
        services = tuple(build(composition.runtime) for build in builders)
        for database, _ in composition.databases:
            stack.push_async_callback(database.dispose)
        for service in services:
            await migrate_reached(settings, service.name, service.migrations)
        registry = composition.runtime.registry
        metrics = composition.runtime.metrics
        services = tuple(_with_doors(service, composition, metrics) for service in services)
        queues = [queue_of(service, hears) for service in services for hears in service.hears]
        await declare_reached(settings, bus, queues)
        readiness = Readiness(services, bus, composition.runtime.clock, metrics)
        stopped = Deadline()
        stack.push_async_callback(_relay_rest, services, bus)
        stack.push_async_callback(_close, services, stopped)
        url = await stack.enter_async_context(serving(services, settings, registry, readiness, tracing))
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        loops = _loops(services, composition.runtime, readiness)
        await stack.enter_async_context(_looping(loops, failed))
        readiness.start()
        log.info("runner.started", services=[service.name for service in services], url=url)
        try:
            yield Running(services, bus, composition.runtime.activity, composition.runtime.clock, url, failed)
        finally:
            log.info("runner.stopping")
            readiness.stopping.set()
            stopped.begin(CLOSED_WITHIN_S)


def _compose(settings: Settings, bus: Bus, clock: Clock, tracing: Tracing) -> _Composition:
    activity = Activity()
    databases: list[tuple[Database, Wake]] = []

    def open_database(schema: str) -> Database:
        committed = Wake(activity)
        database = Database(settings.database_dsn, schema, committed=committed, pool_size=settings.pool_size)
        databases.append((database, committed))
        return database

    runtime = Runtime(
        settings=settings,
        clock=clock,
        bus=bus,
        vault=Vault(parse_keys(settings.sealing_keys.get_secret_value())),
        verifier=Verifier(settings.verify_keys),
        activity=activity,
        open_database=open_database,
        tracing=tracing,
    )
    return _Composition(runtime, databases)


def _with_doors(service: Service, composition: _Composition, metrics: Metrics) -> Service:
    """The service with what each has: outbox relay, housekeeping, replay, rotation, ears for revoked tokens."""
    runtime, database = composition.runtime, service.database
    committed = next(wake for known, wake in composition.databases if known is database)
    revocations = runtime.verifier.revocations

    async def relay_outbox() -> None:
        await relay(database, runtime.bus)

    measure = measuring(service.name, database, (OUTBOX, *service.figures), metrics.board)

    async def keep_house() -> None:
        await prune(database)

    async def load_revocations() -> None:
        revocations.load(await revoked_tokens(database))

    async def revoke(session: Session, event: TokenRevoked) -> None:
        await remember_revoked(session, event.token_id)
        revocations.add(event.token_id)

    floor_s = 10 * runtime.settings.beat_floor_s  # what mends rarely needs to, may beat rarely in a fast run
    beats = [
        Beat("relay", max(RELAY_EVERY_S, floor_s), relay_outbox, committed),
        Beat("measure", max(READ_EVERY_S, floor_s), measure, runtime.wake()),
        Beat("housekeeping", max(HOUSEKEEPING_EVERY_S, floor_s), keep_house, runtime.wake()),
        Beat("revocations", max(REVOCATIONS_EVERY_S, floor_s), load_revocations, runtime.wake()),
    ]
    if state_keys(service):
        ask = asking(service, runtime.clock)
        beats.append(Beat("ask", max(ASK_EVERY_S, floor_s), ask, runtime.wake()))
    if service.seals:
        reseal = resealing(service, runtime.vault, runtime.clock, metrics)
        beats.append(Beat("reseal", max(RESEAL_EVERY_S, floor_s), reseal, runtime.wake()))
    answers = [answering(service.tells)] if service.tells else []
    return replace(
        service,
        beats=(*service.beats, *beats),
        hears=(*service.hears, *answers, Hears(TokenRevoked, revoke)),
    )


class Deadline:
    """When everything that comes before must have ended; without one until it begins."""

    def __init__(self) -> None:
        self.at: float | None = None

    def begin(self, seconds: float) -> None:
        """From now on so long."""
        self.at = asyncio.get_running_loop().time() + seconds


async def _close(services: Sequence[Service], stopped: Deadline) -> None:
    """Every service hands back what it holds, side by side: one whose cloud is dead does not keep another's leases."""

    async def close(service: Service) -> None:
        for give_back in service.closes:
            try:
                async with asyncio.timeout_at(stopped.at):
                    await give_back()
            except Exception as error:
                log.warning("service.not_closed", service=service.name, error=type(error).__name__)

    await asyncio.gather(*(close(service) for service in services))


async def _relay_rest(services: Sequence[Service], bus: Bus) -> None:
    """Publish what was said while stopping; what is left waits for the next process."""
    try:
        async with asyncio.timeout(RELAY_REST_WITHIN_S):
            for service in services:
                await relay(service.database, bus)
    except Exception as error:
        log.warning("outbox.left_behind", error=type(error).__name__)


async def _hang_up(bus: Bus, tracing: Tracing) -> None:
    async def close() -> None:
        try:
            async with asyncio.timeout(HANG_UP_WITHIN_S):
                await bus.aclose()
        except TimeoutError:
            log.warning("bus.not_closed")

    await asyncio.gather(close(), tracing.aclose())


def queue_of(service: Service, hears: Hears) -> Queue:
    """The queue in which replicas of a service compete for an event."""
    key = hears.event.key
    return Queue(queue_name(service.name, key), (key,), expires_s=hears.expires_s, prefetch=hears.prefetch)


@asynccontextmanager
async def _looping(
    loops: Sequence[Coroutine[Any, Any, None]], failed: asyncio.Future[None]
) -> AsyncIterator[None]:
    """Run loops that must not end; cancelled and awaited when the block ends. One that dies by itself is said aloud."""
    stopping = False

    def note_end(task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if not stopping and not failed.done():
            failed.set_exception(error or RuntimeError(f"{task.get_name()} ended"))

    tasks = [asyncio.create_task(loop) for loop in loops]
    for task in tasks:
        task.add_done_callback(note_end)
    try:
        yield
    finally:
        stopping = True
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_WITHIN_S)


def _loops(
    services: Sequence[Service], runtime: Runtime, readiness: Readiness
) -> list[Coroutine[Any, Any, None]]:
    metrics = runtime.metrics
    beats = [_beat(service.name, beat, runtime, metrics) for service in services for beat in service.beats]
    beats.append(_beat(PROCESS, _looking(runtime, readiness), runtime, metrics))
    ears = [
        runtime.bus.consume(queue_of(service, hears), handler(service, hears, runtime, metrics))
        for service in services
        for hears in service.hears
    ]
    return [*beats, *ears]


def _looking(runtime: Runtime, readiness: Readiness) -> Beat:
    """The process's own beat: is the bus there, and does anything wait among its dead for a person?"""
    metrics = runtime.metrics
    metrics.board.declare([DEAD_LETTERS])

    async def look() -> None:
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                seen = await runtime.bus.look()
        except (BusUnavailable, TimeoutError) as error:
            readiness.note_bus(f"it did not answer when it was last asked ({type(error).__name__})")
            raise BusUnavailable(f"no answer within {LOOK_WITHIN_S:g} s") from error
        readiness.note_bus("")
        metrics.board.put("", DEAD_LETTERS, {(): seen.dead})

    return Beat("look", max(READ_EVERY_S, 10 * runtime.settings.beat_floor_s), look, runtime.wake())


async def _beat(service: str, beat: Beat, runtime: Runtime, metrics: Metrics) -> None:
    every_s = max(beat.every_s, runtime.settings.beat_floor_s)
    chance = random.Random()
    metrics.begins(service, beat.name, every_s)
    bind_contextvars(service=service)  # of this task, and of those that it starts
    runtime.activity.begin()
    try:
        while True:
            next_s = await _run_once(service, beat, metrics)
            heed_cancellation()  # which a client library may have swallowed
            pause = every_s if next_s is None else max(0.0, min(next_s, every_s))
            await beat.wake.wait(runtime.clock, pause * (1 + 0.1 * runtime.settings.jitter * chance.random()))
    finally:
        runtime.activity.end()


async def _run_once(service: str, beat: Beat, metrics: Metrics) -> float | None:
    try:
        with metrics.beat(service, beat.name):
            return await beat.run()
    except BusUnavailable as error:
        log.warning("beat.bus_unavailable", service=service, beat=beat.name, error=str(error))
    except asyncio.CancelledError:
        heed_cancellation()
        log.exception("beat.failed", service=service, beat=beat.name)
    except Exception:
        log.exception("beat.failed", service=service, beat=beat.name)
    return None
