"""Whether a process can answer requests, and whether it can do all its work: its parts, each asked with a deadline.

Requests need the databases. The bus is what work between processes needs: what a request says while it is away waits
in the outbox, and who reads does not miss it. Liveness is another question, and has no part in it: a process that waits
for its database must not be killed for that.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import text

from libs.common.bus.base import Bus
from libs.common.clock import Clock
from libs.common.db import Database
from libs.common.metrics import VERSION, Metrics
from libs.common.service import Service

READY_WITHIN_S = 3.0
KEPT_FOR_S = 1.0
"""Whoever asks again so soon has the same answer: anybody may ask, and each question costs every part one."""
BUS = "bus"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the process as it was found."""

    up: bool
    since: datetime
    """When it was first found so."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What `/readyz` and `/readyz/work` tell."""

    status: str
    parts: dict[str, Part] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        """Whether requests are welcome."""
        return self.status == "ready"

    def for_work(self) -> "Report":
        """The same for who asks whether everything can be done: nothing may be missing."""
        is_whole = all(part.up for part in self.parts.values())
        return self if is_whole or not self.is_ready else replace(self, status="not ready")

    def as_json(self) -> dict[str, object]:
        """The answer's body; `missing` says in words what is not there."""
        return {
            "status": self.status,
            "version": VERSION,
            "parts": {name: part.up for name, part in self.parts.items()},
            "since": {name: part.since.isoformat() for name, part in self.parts.items()},
            "missing": [f"{name}: {part.why}" for name, part in self.parts.items() if not part.up],
        }


class Readiness:
    """Asks the parts, and remembers since when each is as it is."""

    def __init__(self, services: Sequence[Service], bus: Bus, clock: Clock, metrics: Metrics) -> None:
        self._checks = {service.name: _asking(service.database) for service in services}
        self._bus = bus
        self._clock = clock
        self._metrics = metrics
        self._known: dict[str, Part] = {}
        self._asking = {work: asyncio.Lock() for work in (False, True)}
        self._fresh_until: dict[str, float] = {}
        self._is_started = False
        self.stopping = asyncio.Event()
        """Set when the process begins to stop: answers without end are over then."""

    def start(self) -> None:
        """Everything runs, the bus was reached."""
        self._is_started = True
        self.note_bus("")

    def note_bus(self, why: str) -> None:
        """Whoever asked the bus says how it is; empty: it answered."""
        self._note(BUS, why)

    async def __call__(self, work: bool = False) -> Report:
        """How things are, at most a second ago.

        The bus is asked for work alone: who answers requests does not wait for it, and says how it was when last asked.
        """
        if self.stopping.is_set():
            return Report("stopping")
        async with self._asking[work]:
            checks = {**self._checks, BUS: self._bus.look} if work else self._checks
            now_s = asyncio.get_running_loop().time()
            due = {name: check for name, check in checks.items() if now_s >= self._fresh_until.get(name, 0)}
            await self._ask(due)
        if self.stopping.is_set():
            return Report("stopping", dict(self._known))
        if not self._is_started:
            return Report("starting", dict(self._known))
        can_answer = all(part.up for name, part in self._known.items() if name != BUS)
        report = Report("ready" if can_answer else "not ready", dict(self._known))
        return report.for_work() if work else report

    async def _ask(self, checks: Mapping[str, "Check"]) -> None:
        found = await asyncio.gather(*(_why_not(check) for check in checks.values()))
        fresh_until = asyncio.get_running_loop().time() + KEPT_FOR_S
        for name, why in zip(checks, found, strict=True):
            self._note(name, why)
            self._fresh_until[name] = fresh_until

    def _note(self, name: str, why: str) -> None:
        known, up = self._known.get(name), not why
        since = known.since if known is not None and known.up == up else self._clock.now()
        self._known[name] = Part(up, since, why)
        self._metrics.answered(name, up)


Check = Callable[[], Awaitable[object]]


async def _why_not(check: Check) -> str:
    """Empty if it answered. Of an error only its kind: anybody may read this."""
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            await check()
    except TimeoutError:
        return f"no answer within {READY_WITHIN_S:g} s"
    except Exception as error:
        return f"it does not answer ({type(error).__name__})"
    return ""


def _asking(database: Database) -> Check:
    async def ask() -> None:
        async with database.transaction() as session:
            await session.execute(text("select 1"))

    return ask
