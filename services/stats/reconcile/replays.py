"""Backtests are worked out in a process of their own, one at a time, so that no loop waits for a replay.

The process is told by lines what it needs (libs and history, no secret) and gives way to everything else. If this one
dies, the other finds nobody to tell and ends; the lease runs out, and whoever looks next begins again.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

import structlog

from libs.common.bus.handling import heed_cancellation
from libs.common.clock import Clock
from libs.common.db import Database
from services.stats.domain.history import STEP_S
from services.stats.usecases import backtests, remembering
from services.stats.usecases.backtests import Claim

log = structlog.get_logger(__name__)

EVERY_S = 15.0
RENEW_EVERY_S = 5.0
RUN_WITHIN_S = 900.0
_LONGEST_LINE = 4_194_304
PROGRAM = """
import contextlib, os, sys
with contextlib.suppress(OSError):
    os.nice(5)  # where a sandbox allows it
from services.stats.domain.backtest import answer
for line in answer(sys.stdin):
    print(line, flush=True)
"""
"""What the process of a replay does."""


class Lost(Exception):
    """The backtest was cancelled, or is another's by now."""


class Broken(Exception):
    """The replay's process ended without a result."""


@dataclass(slots=True)
class Progress:
    """How far a replay is."""

    share: float = 0.0


class Replays:
    """Works out what is asked for. Time on a clock that is stepped does not wait for it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._task: asyncio.Task[None] | None = None
        self._look = asyncio.Event()
        """Something was asked for or cancelled."""

    async def begin(self) -> None:
        """Work off what is due, in a task of its own."""
        self._look.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work_off())

    async def aclose(self) -> None:
        """Leave what is being worked out to the next process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work_off(self) -> None:
        """One after the other, until none is due; what fails here is begun again when its lease has run out."""
        try:
            while self._look.is_set():
                self._look.clear()
                async with self._database.transaction() as session:
                    held = await backtests.claim(session, self._clock.now())
                if held is not None:
                    await self._work(held)
                    self._look.set()
        except Exception:
            log.exception("backtest.interrupted")

    async def _work(self, held: Claim) -> None:
        log.info("backtest.begun", backtest=str(held.id), cluster=str(held.cluster_id), days=held.days)
        result, error = None, None
        try:
            async with asyncio.timeout(RUN_WITHIN_S) as within:
                found = await self._replay(held)
            result, error = found.get("result"), found.get("error")
        except TimeoutError:
            if not within.expired():
                raise
            error = f"It took longer than {RUN_WITHIN_S / 60:.0f} minutes: ask for fewer days."
        except Lost:
            log.info("backtest.given_up", backtest=str(held.id))
            return
        except Broken as problem:
            log.error("backtest.broken", backtest=str(held.id), error=f"{problem}")
            error = "The replay ended without a result; what it said is in the log of stats."
        except asyncio.CancelledError:
            with suppress(Exception):
                async with self._database.transaction() as session:
                    await backtests.give_back(session, held)
            raise
        async with self._database.transaction() as session:
            await backtests.settle(session, held, self._clock.now(), result=result, error=error)
        log.info("backtest.ended", backtest=str(held.id), failed=error)

    async def _replay(self, held: Claim) -> dict[str, Any]:
        progress = Progress()
        async with _process() as child:
            listening: asyncio.Future[Any] = asyncio.create_task(_listen(child, progress))
            beside: asyncio.Future[Any] = asyncio.ensure_future(
                asyncio.gather(self._tell(child, held), self._hold(held, progress))
            )
            try:
                await asyncio.wait([listening, beside], return_when=asyncio.FIRST_COMPLETED)
                if not listening.done():
                    beside.result()  # it never ends but by what it raises
                found: dict[str, Any] = listening.result()
                return found
            finally:
                for task in (listening, beside):
                    task.cancel()
                await asyncio.gather(listening, beside, return_exceptions=True)

    async def _tell(self, child: asyncio.subprocess.Process, held: Claim) -> None:
        """What is asked and the history, a day at a time: never all of it in this process."""
        assert child.stdin is not None
        since, until = held.since.astimezone(UTC), held.until.astimezone(UTC)
        day = since.replace(hour=0, minute=0)
        async with self._database.transaction() as session:
            cores = await remembering.read_cores(session, held.cluster_id)
        asked = {
            **held.asked,
            "days": held.days,
            "since": since.isoformat(),
            "first_step": round((since - day).total_seconds() / STEP_S),
            "cores": cores,
        }
        # A child that has ended says why on its other side.
        with suppress(BrokenPipeError, ConnectionResetError):
            child.stdin.write(f"{json.dumps(asked)}\n".encode())
            number = 0
            while day < until:
                async with self._database.transaction() as session:
                    rows = await remembering.read_day(
                        session, held.cluster_id, day, (since, until), self._clock.now()
                    )
                for row in rows:
                    child.stdin.write(f"{json.dumps([number, *row])}\n".encode())
                    await child.stdin.drain()
                day, number = day + timedelta(days=1), number + 1
            child.stdin.close()

    async def _hold(self, held: Claim, progress: Progress) -> None:
        """Keep the lease while it runs. Raises Lost."""
        while True:
            async with self._database.transaction() as session:
                if not await backtests.renew(session, held, progress.share):
                    raise Lost
            heed_cancellation()  # which a client library may have swallowed: it would be held for ever
            self._look.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_EVERY_S):
                    await self._look.wait()


@asynccontextmanager
async def _process() -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that finds the code where this one does, and knows nothing else of this one; killed at the end."""
    one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    environment = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(sys.path), **one_thread}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, env=environment, limit=_LONGEST_LINE,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def _listen(child: asyncio.subprocess.Process, progress: Progress) -> dict[str, Any]:
    """The last line, which says result or error. Raises Broken."""
    assert child.stdout is not None
    assert child.stderr is not None
    said = asyncio.create_task(child.stderr.read())
    try:
        async for line in child.stdout:
            found: dict[str, Any] = json.loads(line)
            if "done" not in found:
                return found
            progress.share = float(found["done"])
        raise Broken((await said).decode("utf-8", "replace")[-2000:])
    finally:
        said.cancel()
