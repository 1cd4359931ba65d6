"""The moments at which a process may die: around each commit, each act on the cloud, each word to the bus."""

import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import asyncpg.transaction
from sqlalchemy import event
from sqlalchemy.engine import Engine

from libs.common.bus.postgres.store import Store
from libs.common.db import Database
from libs.providers.simulated.session import SimulatedProvider

DIED = 9
"""Exit code of a process that died at its point."""
WRITES = ("create", "delete", "set_power", "set_limits", "release")
_CHANGE = re.compile(r"\s*(insert into|update|delete from)\s+(\w+)", re.IGNORECASE)
_QUIET = ("inbox", "outbox", "answered_request", "revoked_token")


@dataclass(frozen=True, slots=True)
class Point:
    """The n-th time (from 1) that something of this name happens, before or after it."""

    name: str
    nth: int
    after: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.name} #{self.nth}"


@dataclass
class Points:
    """Counts what happens; dies at the chosen point as kill -9 does: nothing is closed, nothing is said."""

    chosen: Point | None = None
    seen: Counter[str] = field(default_factory=Counter)

    async def around(self, name: str, act: Callable[[], Awaitable[Any]]) -> Any:
        """Act, with a point before and one after it."""
        self.seen[name] += 1
        nth = self.seen[name]
        self._meet(Point(name, nth, after=False))
        result = await act()
        self._meet(Point(name, nth, after=True))
        return result

    def _meet(self, point: Point) -> None:
        if point == self.chosen:
            os._exit(DIED)


def instrument(points: Points) -> None:
    """Put points into this process, for good. It must be one that was made for dying."""
    _around_acts(points)
    _around_words(points)
    _around_commits(points)


def _around_acts(points: Points) -> None:
    for verb in WRITES:
        original = getattr(SimulatedProvider, verb)
        setattr(SimulatedProvider, verb, _wrapped(points, original, lambda *_, verb=verb: f"cloud {verb}"))


def _around_words(points: Points) -> None:
    """Publishing, and acknowledging what was handled."""

    def published(_self: Store, outgoing: Any) -> str:
        return f"publish {outgoing[0].message.key}"

    def settled(_self: Store, outcomes: Any) -> str:
        return f"acknowledge {outcomes[0].claimed.queue}"

    setattr(Store, "publish", _wrapped(points, Store.publish, published))  # noqa: B010 - mypy forbids the assignment
    setattr(Store, "settle", _wrapped(points, Store.settle, settled))  # noqa: B010


def _around_commits(points: Points) -> None:
    """Commits of transactions that change something, named by service and by what they change."""
    changes: dict[int, dict[str, None]] = {}
    schemas: dict[Engine, str] = {}
    build = Database.__init__

    @wraps(build)
    def remember(self: Database, *given: Any, **named: Any) -> None:
        build(self, *given, **named)
        schemas[self.engine.sync_engine] = self.schema

    setattr(Database, "__init__", remember)  # noqa: B010

    @event.listens_for(Engine, "before_cursor_execute")
    def note(conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        found = _CHANGE.match(statement)
        if found:
            key = id(conn.connection.driver_connection)
            verb, table = found[1].split()[0].lower(), found[2].lower()
            changes.setdefault(key, {})[f"{schemas.get(conn.engine, '?')}:{verb} {table}"] = None

    def named(transaction: Any) -> str:
        done = changes.pop(id(transaction._connection), {})
        said = [each for each in done if each.split()[-1] not in _QUIET] or list(done)
        schema = said[0].split(":")[0] if said else ""
        return f"commit {schema} " + ", ".join(each.split(":")[1] for each in said[:3]) if said else ""

    commit, rollback = asyncpg.transaction.Transaction.commit, asyncpg.transaction.Transaction.rollback

    async def committed(self: Any) -> Any:
        name = named(self)
        return await (points.around(name, lambda: commit(self)) if name else commit(self))

    async def rolled_back(self: Any) -> Any:
        changes.pop(id(self._connection), None)
        return await rollback(self)

    asyncpg.transaction.Transaction.commit = committed
    asyncpg.transaction.Transaction.rollback = rolled_back


def _wrapped(points: Points, original: Any, name: Callable[..., str]) -> Any:
    @wraps(original)
    async def act(self: Any, *given: Any, **named: Any) -> Any:
        return await points.around(name(self, *given), lambda: original(self, *given, **named))

    return act
