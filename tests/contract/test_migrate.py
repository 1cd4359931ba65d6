"""Migrations: one winner among many starters, all or nothing, and no more rights than needed."""

import asyncio
import shutil
import sys
from importlib import invalidate_caches
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from libs.common.migrate import migrate
from libs.common.reaching import migrate_reached
from libs.common.settings import load_settings
from tests.contract.tiny import MIGRATIONS
from tests.support import until
from tools.parts.postgres import PostgresServer

HISTORY = Path(__file__).parent / "tiny_history"
ROOT = Path(__file__).parents[2]
_CUT = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and wait_event = 'advisory'
"""
_MIGRATE = "import asyncio, sys; from libs.common.migrate import migrate; asyncio.run(migrate(*sys.argv[1:]))"


async def _fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


class History:
    """A package of revisions that grows."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder / name
        self._folder.mkdir()
        (self._folder / "__init__.py").write_text("")

    def add(self, *numbers: int) -> str:
        """The package with these revisions as well; its import path."""
        for number in numbers:
            (file,) = HISTORY.glob(f"{number:04d}_*.py")
            shutil.copy(file, self._folder)
        invalidate_caches()
        return self.name


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    """An empty one."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return History(tmp_path, f"history_of_{tmp_path.name}")


async def test_three_processes_at_once_are_one_migration(database_url: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _MIGRATE, database_url, "tiny", MIGRATIONS), cwd=ROOT
        )
        for _ in range(3)
    ]
    assert await asyncio.gather(*(process.wait() for process in processes)) == [0, 0, 0]
    tables = await _fetch(
        database_url, "select tablename from pg_tables where schemaname = 'tiny' order by 1"
    )
    assert [name for (name,) in tables] == [
        "alembic_version",
        "answered_request",
        "doors_version",
        "inbox",
        "note",
        "outbox",
        "revoked_token",
    ]


async def test_a_migration_whose_server_goes_away_begins_again(database_url: str) -> None:
    """Seen in a storm: a database that restarted just then ended every process that was starting."""
    holder = await asyncpg.connect(database_url)
    await holder.execute("begin; select pg_advisory_xact_lock(hashtext('tides.migrate'))")
    settings = load_settings(database_url=SecretStr(database_url))
    migrating = asyncio.create_task(migrate_reached(settings, "tiny", MIGRATIONS))
    for _ in range(2):
        await until(lambda: _fetch(database_url, _CUT), what="a migration that is cut off")
    await holder.close()
    await migrating
    assert await _fetch(database_url, "select to_regclass('tiny.outbox') is not null") == [(True,)]


async def test_services_of_one_process_and_of_many_have_schemas_of_their_own(database_url: str) -> None:
    await asyncio.gather(
        *(migrate(database_url, name, MIGRATIONS) for name in ("one", "two", "one", "three"))
    )
    owners = await _fetch(
        database_url,
        "select schemaname, tableowner, count(*) from pg_tables where tablename in ('note', 'outbox') group by 1, 2",
    )
    assert sorted(owners) == [(name, f"tides_{name}", 2) for name in ("one", "three", "two")]


async def test_databases_of_one_server_migrate_at_once() -> None:
    """Roles belong to the server, and an advisory lock to a database: two installations may meet."""
    server = PostgresServer()
    try:
        await server.start()
        urls = [await server.create_database(f"installation_{number}") for number in range(4)]
        for name in ("one", "two", "three"):
            await asyncio.gather(*(migrate(url, name, MIGRATIONS) for url in urls))
    finally:
        await server.close()


async def test_a_later_version_adds_to_what_is_there_and_keeps_it(
    database_url: str, history: History
) -> None:
    await migrate(database_url, "tiny", history.add(1))
    await migrate(database_url, "tiny", history.add(1))
    assert await _fetch(database_url, "select * from tiny.thing") == [(1, "kept")]
    await migrate(database_url, "tiny", history.add(2))
    assert await _fetch(database_url, "select * from tiny.thing") == [(1, "kept", 1.0)]
    assert await _fetch(database_url, "select version_num from tiny.alembic_version") == [("0002",)]


async def test_an_older_process_starts_on_a_newer_schema_and_leaves_it(
    database_url: str, history: History, tmp_path: Path
) -> None:
    await migrate(database_url, "tiny", history.add(1, 2))
    older = History(tmp_path, f"older_{history.name}")
    with capture_logs() as logs:
        await migrate(database_url, "tiny", older.add(1))
    assert [(line["event"], line["there"], line["newest_here"]) for line in logs] == [
        ("schema.newer", ["0002"], "0001")
    ]
    assert await _fetch(database_url, "select * from tiny.thing") == [(1, "kept", 1.0)]
    assert await _fetch(database_url, "select version_num from tiny.alembic_version") == [("0002",)]


async def test_a_migration_that_fails_changes_nothing(database_url: str, history: History) -> None:
    await migrate(database_url, "tiny", history.add(1))
    with pytest.raises(DBAPIError, match="division by zero"):
        await migrate(database_url, "tiny", history.add(2, 3))
    assert await _fetch(database_url, "select * from tiny.thing") == [(1, "kept")]
    assert await _fetch(database_url, "select version_num from tiny.alembic_version") == [("0001",)]
    with pytest.raises(DBAPIError, match="division by zero"):
        await migrate(database_url, "other", history.name)
    assert await _fetch(database_url, "select 1 from pg_namespace where nspname = 'other'") == []


async def test_constraints_are_called_as_in_the_models(database_url: str, history: History) -> None:
    await migrate(database_url, "tiny", history.add(1))
    query = (
        "select conname from pg_constraint where conrelid = 'tiny.thing'::regclass and contype in ('p', 'u')"
    )
    names = await _fetch(database_url, f"{query} order by 1")
    assert names == [("pk_thing",), ("uq_thing_name",)]


async def test_an_owner_of_the_database_who_may_make_roles_is_enough(
    private_postgres: PostgresServer,
) -> None:
    """No superuser: what an operator gives Tides on a server of the house."""
    admin = private_postgres.url
    await _fetch(admin, "create role lender login createrole")
    await _fetch(admin, "create database lending owner lender")
    url = admin.replace("postgres@/postgres", "lender@/lending")
    await migrate(url, "tiny", MIGRATIONS)
    await migrate(url, "tiny", MIGRATIONS)
    assert await _fetch(
        url, "select schema_owner from information_schema.schemata where schema_name = 'tiny'"
    ) == [("tides_tiny",)]
    # What the role owns is still the role's alone to see.
    other = await asyncpg.connect(url, server_settings={"role": "tides_tiny", "search_path": "tiny"})
    assert await other.fetchval("select count(*) from note") == 0
    await other.close()


async def test_revisions_that_are_nowhere_are_an_error(database_url: str) -> None:
    with pytest.raises(LookupError, match="no migrations package"):
        await migrate(database_url, "tiny", "tests.contract.nowhere_at_all")
