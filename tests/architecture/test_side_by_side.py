"""Old and new processes run side by side: what the older one reads and writes still fits each new schema."""

from dataclasses import dataclass
from typing import Any

import pytest
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from libs.common.db import async_url, new_metadata
from libs.common.migrate import open_scripts
from tools.schemas import service_names

MOST = 10**9
BEFORE_THE_FIRST_RELEASE = {"workload": ["0002: cluster.occupied is new, and a row without it is refused"]}
"""No installation was ever there that it could have broken."""
COLUMNS = text(
    "select table_name, column_name, data_type, is_nullable = 'YES' as nullable,"
    " coalesce(column_default, is_identity) <> 'NO' as filled, character_maximum_length as most"
    " from information_schema.columns where table_schema = current_schema() order by 1, 2"
)
UNIQUE = text(
    "select i.indexrelid::regclass::text as name, i.indrelid::regclass::text as table_name,"
    " array_agg(a.attname::text order by a.attname) as columns from pg_index i"
    " join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)"
    " where i.indisunique and i.indrelid::regclass::text !~ '\\.' group by 1, 2 order by 1"
)


@dataclass(frozen=True)
class Shape:
    """What a process that knows this schema relies on."""

    columns: dict[tuple[str, str], Any]
    unique: dict[str, tuple[str, frozenset[str]]]


def shape_of(connection: Connection) -> Shape:
    columns = {(row.table_name, row.column_name): row for row in connection.execute(COLUMNS)}
    unique = {row.name: (row.table_name, frozenset(row.columns)) for row in connection.execute(UNIQUE)}
    return Shape(columns, unique)


def broken_by(before: Shape, after: Shape) -> list[str]:
    """What an older process could no longer do."""
    known = {table: {column for one, column in before.columns if one == table} for table, _ in before.columns}
    return [
        *(what for at, was in before.columns.items() if (what := _lost(was, after.columns.get(at)))),
        *(
            f"{table}.{column} is new, and a row without it is refused"
            for (table, column), now in after.columns.items()
            if table in known and column not in known[table] and not (now.nullable or now.filled)
        ),
        *(
            f"{name} refuses rows that were allowed"
            for name, (table, columns) in after.unique.items()
            if name not in before.unique and table in known and columns <= known[table]
        ),
    ]


def _lost(was: Any, now: Any) -> str | None:
    name = f"{was.table_name}.{was.column_name}"
    if now is None:
        return f"{name} is gone"
    if now.data_type != was.data_type or (now.most or MOST) < (was.most or MOST):
        return f"{name} is another type"
    return f"{name} may no longer be null" if was.nullable and not now.nullable else None


def step(connection: Connection, scripts: str, revision: str) -> None:
    script = open_scripts(scripts)
    with EnvironmentContext(
        Config(), script, fn=lambda at, _: script._upgrade_revs(revision, at)
    ) as environment:
        environment.configure(
            connection=connection, version_table="alembic_version", target_metadata=new_metadata()
        )
        environment.run_migrations()


@pytest.mark.parametrize("name", service_names())
async def test_every_migration_leaves_an_older_process_able_to_work(database_url: str, name: str) -> None:
    scripts = f"services.{name}.migrations"
    history = [one.revision for one in reversed(list(open_scripts(scripts).walk_revisions()))]
    engine = create_async_engine(async_url(database_url))
    broken: list[str] = []
    try:
        async with engine.connect() as connection:
            await connection.execute(text(f'create schema "{name}"'))
            await connection.execute(text(f'set local search_path to "{name}"'))
            before = Shape({}, {})
            for revision in history:
                await connection.run_sync(step, scripts, revision)
                after = await connection.run_sync(shape_of)
                broken += [f"{revision}: {what}" for what in broken_by(before, after)]
                before = after
    finally:
        await engine.dispose()
    assert before.columns
    assert broken == BEFORE_THE_FIRST_RELEASE.get(name, [])


async def test_what_breaks_an_older_process_is_seen(database_url: str) -> None:
    engine = create_async_engine(async_url(database_url))
    try:
        async with engine.connect() as connection:
            await connection.execute(text("create table t (a text, b varchar(9), c int, d int)"))
            before = await connection.run_sync(shape_of)
            await connection.execute(
                text(
                    "alter table t alter a set not null, alter b type varchar(5), alter c type text, drop d,"
                    " add e int not null, add f int not null default 1, add g int, add unique (a), add unique (g)"
                )
            )
            after = await connection.run_sync(shape_of)
    finally:
        await engine.dispose()
    assert broken_by(before, after) == [
        "t.a may no longer be null",
        "t.b is another type",
        "t.c is another type",
        "t.d is gone",
        "t.e is new, and a row without it is refused",
        "t_a_key refuses rows that were allowed",
    ]
