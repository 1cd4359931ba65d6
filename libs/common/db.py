"""The database of one service: its own schema and role on one PostgreSQL server, and transactions that emit events."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import from_json, to_json
from sqlalchemy import ARRAY, ColumnElement, DateTime, MetaData, Uuid, any_, cast, func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import InstrumentedAttribute

from libs.common.bus.messages import to_message
from libs.common.contracts.base import Event
from libs.common.contracts.catalogue import entry_of
from libs.common.tables import outbox
from libs.common.tracing import carried
from libs.common.wake import Wake

CONNECT_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 30
_NAMING = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

Utc = DateTime(timezone=True)
"""Every time column: aware, in UTC."""


def among(column: InstrumentedAttribute[UUID], ids: Iterable[UUID]) -> ColumnElement[bool]:
    """Whether the column is one of these: one array, in order, where `in_` would send a value for each."""
    return column == any_(cast(sorted(ids), ARRAY(Uuid)))


def new_metadata() -> MetaData:
    """The metadata of one service's tables: named constraints, no schema name."""
    return MetaData(naming_convention=_NAMING)


class Json(Mapping[str, Any]):
    """A JSON object that is written already: a column takes its text, and who looks into it has it read then."""

    __slots__ = ("_read", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._read: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        return self._value[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._value)

    def __len__(self) -> int:
        return len(self._value)

    @property
    def _value(self) -> dict[str, Any]:
        if self._read is None:
            self._read = from_json(self.text)
        return self._read


def as_json_text(value: Any) -> str:
    """What a JSON column is written as; several times quicker than the standard library's."""
    return value.text if type(value) is Json else to_json(value).decode()


def role_of(schema: str) -> str:
    """The role that owns a service's schema and sees no other."""
    return f"tides_{schema}"


class Session(AsyncSession):
    """One transaction. Events emitted in it are published if, and only if, it commits."""

    def emit(self, event: Event, *, queue: str | None = None) -> None:
        """Write the event to the outbox in this transaction, for whoever hears it or for one queue alone.

        Raises KeyError if it is not in the catalogue.
        """
        entry_of(type(event))
        self._unwritten.append(_Emitted(event, queue, carried()))

    def once_committed(self, tell: Callable[[], None]) -> None:
        """Call this after the commit, and only then: for a hint to somebody in this process."""
        self.sync_session.info.setdefault("to_tell", []).append(tell)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """A part of the transaction that may fail alone: on an exception what it wrote and emitted is undone."""
        emitted = len(self._unwritten)
        try:
            async with self.begin_nested():
                yield
        except BaseException:
            del self._unwritten[emitted:]
            raise

    async def write_out(self) -> None:
        """Insert what was emitted so far, as the commit does: a long transaction need not hold all of it."""
        if not self._unwritten:
            return
        source = self.sync_session.info["source"]
        await self.execute(insert(outbox), [_outbox_row(emitted, source) for emitted in self._unwritten])
        self._unwritten.clear()
        self.sync_session.info["has_emitted"] = True

    @property
    def has_emitted(self) -> bool:
        """Whether the outbox got anything from this transaction."""
        return bool(self.sync_session.info.get("has_emitted"))

    @property
    def _unwritten(self) -> list["_Emitted"]:
        unwritten: list[_Emitted] = self.sync_session.info.setdefault("unwritten", [])
        return unwritten

    async def database_now(self) -> datetime:
        """The database's clock, by which leases run."""
        now: datetime = (await self.execute(select(func.clock_timestamp()))).scalar_one()
        return now


class Database:
    """Transactions on one schema. `committed` is woken after each commit that emitted something."""

    def __init__(self, url: str, schema: str, *, committed: Wake, pool_size: int = 5) -> None:
        self.schema = schema
        self._committed = committed
        self.engine: AsyncEngine = create_async_engine(
            async_url(url),
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=CONNECT_TIMEOUT_S,
            pool_pre_ping=False,
            hide_parameters=True,  # an error text must not hold what was written
            json_serializer=as_json_text,
            json_deserializer=from_json,
            connect_args={
                "timeout": CONNECT_TIMEOUT_S,
                "command_timeout": STATEMENT_TIMEOUT_S,
                "server_settings": {
                    "search_path": schema,
                    "role": role_of(schema),
                    "application_name": f"tides-{schema}",
                    "lock_timeout": "10s",
                    "idle_in_transaction_session_timeout": "60s",
                },
            },
        )
        self._sessions = async_sessionmaker(
            self.engine, class_=Session, expire_on_commit=False, info={"source": f"/tides/{schema}"}
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """One transaction: commits at the end, rolls back on any exception. No network call belongs inside."""
        async with self._sessions() as session:
            async with session.begin():
                yield session
                await session.write_out()
            if session.has_emitted:
                self._committed.set()
            for tell in session.sync_session.info.get("to_tell", ()):
                tell()

    async def answers(self) -> bool:
        """Whether the server can be asked anything just now."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S), self.engine.connect() as connection:
                await connection.execute(select(1))
        except Exception:
            return False
        return True

    async def dispose(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


_SERVERS_OWN = {
    "53100": "disk_full",
    "53200": "out_of_memory",
    "53300": "too_many_connections",
    "53400": "limit_exceeded",
    "25006": "read_only",
    "57P01": "shutting_down",
    "57P02": "shutting_down",
    "57P03": "shutting_down",
    "58030": "io_error",
}
"""By SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html"""


def refusal_of_server(error: BaseException) -> str | None:
    """Why the server could not do what was right, in a word; None where the error speaks of what was asked."""
    for one in (error, getattr(error, "orig", None), error.__cause__):
        word = _SERVERS_OWN.get(str(getattr(one, "sqlstate", "")))
        if word is not None:
            return word
    return None


def async_url(url: str) -> str:
    """The SQLAlchemy form of a PostgreSQL URL."""
    return url.replace("postgresql://", "postgresql+asyncpg://", 1).replace(
        "postgres://", "postgresql+asyncpg://", 1
    )


class _Emitted(NamedTuple):
    """An event on its way into the outbox."""

    event: Event
    queue: str | None
    came_from: dict[str, str]
    """The trace of what emitted it, which may have ended when it is written."""


def _outbox_row(emitted: _Emitted, source: str) -> dict[str, object]:
    message = to_message(emitted.event, source)
    return {
        "message_id": emitted.event.id,
        "key": message.key,
        "body": message.body,
        "headers": {**message.headers, **emitted.came_from},
        "public": emitted.queue is None and entry_of(type(emitted.event)).public,
        "queue": emitted.queue,
    }
