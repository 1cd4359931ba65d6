"""The smallest services that have everything: one table, events of the catalogue, whatever beats a test wants."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    Column,
    Identity,
    String,
    Table,
    UniqueConstraint,
    func,
    insert,
    select,
    update,
)

from libs.common.app import create_app
from libs.common.auth import generate_signing_keys
from libs.common.bus.base import Bus, Message
from libs.common.clock import SteppedClock
from libs.common.contracts.resource import ResourceRecovered
from libs.common.db import Database, Session, new_metadata
from libs.common.migrate import migrate
from libs.common.runner import Build, Running, running
from libs.common.secrets import fresh_key
from libs.common.service import Beat, Hears, Runtime, Service
from libs.common.settings import Settings
from libs.common.tables import outbox
from libs.common.wake import Activity, Wake

SCHEMA = "tiny"
MIGRATIONS = "tests.contract.tiny_migrations"
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
PRIVATE, PUBLIC = generate_signing_keys()

metadata = new_metadata()
note = Table(
    "note",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("text", String(200), nullable=False),
    UniqueConstraint("text", deferrable=True, initially="DEFERRED"),
)


def an_event(number: int = 0) -> ResourceRecovered:
    """A public fact, told apart by its number."""
    return ResourceRecovered(at=AT, resource_id=UUID(int=number), outage_s=number)


async def write(session: Session, text: str) -> None:
    """A note in this transaction."""
    await session.execute(insert(note).values(text=text))


async def texts(database: Database) -> list[str]:
    """Every committed note, in order of writing."""
    async with database.transaction() as session:
        return list((await session.execute(select(note.c.text).order_by(note.c.id))).scalars())


async def waiting(database: Database) -> list[Any]:
    """The rows of the outbox."""
    async with database.transaction() as session:
        return list((await session.execute(select(outbox).order_by(outbox.c.number))).all())


async def end_claims(database: Database) -> None:
    """As if the time of every claim were over."""
    async with database.transaction() as session:
        await session.execute(
            update(outbox).values(claimed_until=func.now() - func.make_interval(0, 0, 0, 0, 0, 0, 1))
        )


@asynccontextmanager
async def tiny_database(url: str, schema: str = SCHEMA) -> AsyncIterator[Database]:
    """A migrated schema, and a replica's own connections to it."""
    await migrate(url, schema, MIGRATIONS)
    database = Database(url, schema, committed=Wake(Activity()))
    try:
        yield database
    finally:
        await database.dispose()


def settings_for(database_url: str, bus_url: str | None = None, **more: Any) -> Settings:
    """Settings of a process that serves on a free port."""
    return Settings.model_validate(
        {
            "database_url": database_url,
            "bus_url": bus_url,
            "sealing_keys": f"test:{fresh_key()}",
            "verify_keys": PUBLIC,
            "installation_id": str(uuid4()),
            "port": 0,
            "pool_size": 3,
            **more,
        }
    )


def a_build(
    make: Callable[[Runtime, Database], Mapping[str, Any]] = lambda _, __: {},
    name: str = SCHEMA,
    **routes: Any,
) -> Build:
    """A service by this name; `make` says what it hears, beats and closes."""

    def build(runtime: Runtime) -> Service:
        database = runtime.open_database(name)
        app = create_app(
            name, routers=routes.get("routers", []), settings=runtime.settings, verifier=runtime.verifier
        )
        return Service(
            name=name,
            metadata=metadata,
            migrations=MIGRATIONS,
            database=database,
            app=app,
            prefixes=(f"/v1/{name}",),
            **make(runtime, database),
        )

    return build


@dataclass
class Wire:
    """A bus that notes what passes, and on which a test may lay obstacles before and after the real thing."""

    bus: Bus
    before: Callable[[Message], Awaitable[None]] | None = None
    after: Callable[[Message], Awaitable[None]] | None = None
    passed: list[tuple[str, bool]] = field(default_factory=list)

    async def publish(self, message: Message, *, public: bool = False) -> None:
        """Publish on the real bus."""
        if self.before is not None:
            await self.before(message)
        await self.bus.publish(message, public=public)
        self.passed.append((message.id, public))
        if self.after is not None:
            await self.after(message)

    async def send(self, queue: str, message: Message) -> None:
        """Send on the real bus; obstacles are for what is published."""
        await self.bus.send(queue, message)


async def hear(session: Session, event: ResourceRecovered) -> None:
    """Keep a note of it."""
    await write(session, str(event.resource_id.int))


def one_beat(run: Callable[[], Awaitable[Any]], every_s: float = 0.02) -> Build:
    """A service that does nothing but beat."""

    def make(runtime: Runtime, _: Database) -> Mapping[str, Any]:
        return {"beats": (Beat("act", every_s, run, runtime.wake()),)}

    return a_build(make)


HEARING = a_build(lambda _, __: {"hears": (Hears(ResourceRecovered, hear),)}, "hearing")


@asynccontextmanager
async def a_process(
    *builds: Build,
    database_url: str,
    bus_url: str | None = None,
    clock: SteppedClock | None = None,
    **more: Any,
) -> AsyncIterator[Running]:
    """These services, run as in production."""
    async with running(builds, settings_for(database_url, bus_url, **more), clock=clock) as run:
        yield run
