"""Migrations against models, and roles against schemas, on a real PostgreSQL."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine

from libs.common.bus import open_bus
from libs.common.db import Database, async_url, new_metadata
from libs.common.migrate import migrate, open_scripts
from libs.common.service import Service
from libs.common.tables import common_metadata
from libs.common.wake import Activity, Wake
from tools.parts import postgres
from tools.schemas import service_names

VERSIONS = {"doors_version", "alembic_version"}


@pytest.fixture(scope="module")
def migrated(postgres_url: str, composed: list[Service]) -> Iterator[str]:
    """The URL of a database with every service's schema."""

    async def prepare() -> str:
        url = await postgres.create_database(postgres_url, name)
        for service in composed:
            await migrate(url, service.name, service.migrations)
        await (await open_bus(url)).aclose()
        return url

    name = f"t_{uuid4().hex}"
    yield asyncio.run(prepare())
    asyncio.run(postgres.drop_database(postgres_url, name))


async def test_migrations_give_exactly_the_models(migrated: str, composed: list[Service]) -> None:
    engine = create_async_engine(async_url(migrated))
    async with engine.connect() as connection:
        found = [
            f"{service.name}: {difference}"
            for service in composed
            for difference in await connection.run_sync(_differences, service)
        ]
    await engine.dispose()
    assert found == []


async def test_a_service_reads_no_other_schema(migrated: str) -> None:
    others = [*service_names(), "bus"]
    tables = {name: "outbox" if name != "bus" else "message" for name in others}
    for name in service_names():
        database = Database(migrated, name, committed=Wake(Activity()))
        async with database.transaction() as session:
            await session.execute(text("select * from outbox"))
        for other in set(others) - {name}:
            with pytest.raises(ProgrammingError, match=f"permission denied for schema {other}"):
                await _read(database, f"{other}.{tables[other]}")
        await database.dispose()


async def test_a_service_can_change_no_other_schema(migrated: str) -> None:
    database = Database(migrated, "policy", committed=Wake(Activity()))
    for statement in (
        "create table registry.mine (id int)",
        "create table public.mine (id int)",
        "create schema mine",
        "drop schema registry cascade",
    ):
        with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
            async with database.transaction() as session:
                await session.execute(text(statement))
    await database.dispose()


def test_histories_are_straight_and_numbered(composed: list[Service]) -> None:
    for service in composed:
        revisions = [script.revision for script in open_scripts(service.migrations).walk_revisions()]
        assert revisions[::-1] == [f"{number:04d}" for number in range(1, len(revisions) + 1)], service.name


async def _read(database: Database, table: str) -> None:
    async with database.transaction() as session:
        await session.execute(text(f"select * from {table}"))


def _differences(connection: Connection, service: Service) -> list[Any]:
    connection.execute(text(f'set search_path to "{service.name}"'))
    options = {"include_object": _is_ours, "compare_type": True, "compare_server_default": True}
    context = MigrationContext.configure(connection, opts=options)
    found: list[Any] = compare_metadata(context, _with_doors(service.metadata))
    return found


def _with_doors(metadata: MetaData) -> MetaData:
    whole = new_metadata()
    for table in (*metadata.tables.values(), *common_metadata.tables.values()):
        table.to_metadata(whole)
    return whole


def _is_ours(_item: object, name: str | None, kind: str, _reflected: bool, _other: object) -> bool:
    return kind != "table" or name not in VERSIONS
