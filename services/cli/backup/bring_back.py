"""Bringing a backup back: every check first, then one transaction, whatever happens to this process meanwhile."""

import asyncio
from pathlib import Path

from libs.common.bus.left import count_left
from libs.common.contracts.catalogue import ANY, CATALOGUE
from libs.common.db import role_of
from libs.common.migrate import open_scripts
from libs.common.service import queue_name
from libs.common.settings import Settings
from services.cli.backup.manifest import (
    CHUNK,
    Manifest,
    check_dumps,
    check_installation,
    check_keys,
    read_manifest,
)
from services.cli.backup.programs import Child, child, find_program, reach
from services.cli.backup.take import BUS, Progress, database
from services.cli.client import Failed, plain
from services.cli.run import SERVICES

RESTORED = "restored from a backup"
"""Where a resource's sweeper begins after it: machines that are younger than the backup are for a person to judge."""
_DEAD = "tides.dead"
# A dump of PostgreSQL 17 or newer begins with a setting that an older server does not know.
_UNKNOWN_BEFORE_17 = b"SET transaction_timeout = 0;\n"
_HEADER_LINES = 60
_LOCK = "select pg_advisory_xact_lock(hashtext('tides.migrate'));"
_ROLE = """do $$ begin
    if not exists (select from pg_roles where rolname = '{role}') then create role "{role}" nologin; end if;
    if not pg_has_role(current_user, '{role}', 'member') then grant "{role}" to current_user; end if;
end $$;"""
_EMPTY = """do $$ begin
    if exists (select from pg_namespace where nspname in ({names})) then
        raise exception 'the database is no longer empty: somebody else began to use it';
    end if;
end $$;"""


async def check(folder: Path, settings: Settings) -> Manifest:
    """All that can be told without a database. Raises Failed."""
    manifest = read_manifest(folder)
    check_installation(manifest, settings)
    check_keys(manifest, settings)
    for name, migrations in manifest.schemas.items():
        if name not in SERVICES:
            raise Failed(
                f"the backup holds {plain(name)}, which this version of Tides has not: use a newer one"
            )
        _check_known(name, f"services.{name}.migrations", migrations.service)
        _check_known(name, "libs.common.migrations", migrations.doors)
    await asyncio.to_thread(check_dumps, folder, manifest)
    return manifest


def _check_known(name: str, scripts: str, revision: str) -> None:
    known = {script.revision for script in open_scripts(scripts).walk_revisions()}
    if revision not in known:
        raise Failed(
            f"the backup's {name} is at migration {plain(revision)}, which this version does not know: restore it with"
            " the version that made it, or a newer one"
        )


async def check_place(url: str, settings: Settings, *, replace: bool) -> str:
    """The name of the database, once it may be written to. Raises Failed."""
    async with database(url) as connection:
        name: str = await connection.fetchval("select current_database()")
        users = await connection.fetchval(
            "select count(*) from pg_stat_activity where datname = current_database()"
            " and application_name like 'tides-%'"
        )
        if users:
            raise Failed(
                f"{users} connections of Tides are open to database {name!r}: stop every process first"
            )
        schemas = await connection.fetch(
            "select nspname from pg_namespace where nspname = any($1)", [*SERVICES, BUS]
        )
    if schemas and not replace:
        raise Failed(
            f"database {name!r} is not empty: give a new one, or --replace to put the backup in place of what it holds"
        )
    await _check_bus(url, settings)
    return name


async def _check_bus(url: str, settings: Settings) -> None:
    """A bus beside the database may hold messages of days that have not been, after the restore."""
    if settings.bus_url is None or settings.bus_dsn == url:
        return
    entries = [entry for entry in CATALOGUE if entry.publisher == ANY or entry.consumers]
    queues = [
        queue_name(service, entry.event.key) for entry in entries for service in sorted(entry.consumers)
    ]
    left = await count_left(settings.bus_dsn, [*queues, _DEAD])
    if left:
        raise Failed(
            f"the bus still holds {left} messages of another state: give an empty virtual host, or purge its queues"
        )


async def bring_back(
    folder: Path, manifest: Manifest, url: str, *, replace: bool, progress: Progress
) -> None:
    """Everything in one transaction: it is all there at the end, or nothing has changed. Raises Failed."""
    async with database(url) as connection:
        version = connection.get_server_version().major
    where, environment = reach(url)
    words = ["--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", f"--dbname={where}"]
    path = find_program("psql", 0)
    async with child(path, *words, environment=environment, feeds=True) as writing:
        try:
            await _say(writing, "begin;", _LOCK, *_making_room(manifest, replace=replace))
            for dump in manifest.dumps:
                owners = [] if dump.file == "services.dump" else ["--no-owner"]
                program = find_program("pg_restore", version)
                await _pour(program, [*owners, str(folder / dump.file)], writing, version, progress)
            # Without this line the server forgets all of it: an end of input is no word to keep it.
            await _say(writing, *_amends(manifest), "commit;")
            _stdin(writing).close()
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended, and says why
        await writing.ended_well()


def _making_room(manifest: Manifest, *, replace: bool) -> list[str]:
    names = [*SERVICES, BUS]
    if replace:
        room = [f'drop schema if exists "{name}" cascade;' for name in names]
    else:
        room = [_EMPTY.format(names=", ".join(f"'{name}'" for name in names))]
    return [
        "set client_min_messages = warning;",
        *room,
        *(_ROLE.format(role=role_of(n)) for n in manifest.schemas),
    ]


def _amends(manifest: Manifest) -> list[str]:
    """What was true of the old server alone, and what must not be believed before somebody has looked."""
    rows = [f'update "{name}".outbox set claimed_until = null;' for name in manifest.schemas]
    if "workload" in manifest.schemas:
        rows += [
            # Transaction numbers are a server's own: a fresh one would hide these rows until it has counted as far.
            "update workload.action_event set transaction = 0;",
            "update workload.resource set lease_token = null, lease_until = null, seen_at = null,"
            f" sweep_stopped = '{RESTORED}' where not gone;",
        ]
    if "monitor" in manifest.schemas:
        rows += [
            "update monitor.resource set lease_token = null, lease_until = null;",
            "delete from monitor.replica;",
        ]
    return rows


async def _pour(path: str, words: list[str], writing: Child, version: int, progress: Progress) -> None:
    done = 0
    arguments = ("--file=-", "--no-privileges", "--no-comments", *words)
    async with child(path, *arguments, environment={}, feeds=False) as reading:
        assert reading.process.stdout is not None
        out = reading.process.stdout
        for _ in range(_HEADER_LINES):
            line = await out.readline()
            if not (version < 17 and line == _UNKNOWN_BEFORE_17):
                await _write(writing, line)
            if line.startswith(b"CREATE"):
                break
        while chunk := await out.read(CHUNK):
            await _write(writing, chunk)
            done += len(chunk)
            progress(Path(words[-1]).name, done)
        await reading.ended_well()


async def _say(writing: Child, *lines: str) -> None:
    await _write(writing, "".join(f"{line}\n" for line in lines).encode())


async def _write(writing: Child, content: bytes) -> None:
    stdin = _stdin(writing)
    stdin.write(content)
    await stdin.drain()


def _stdin(writing: Child) -> asyncio.StreamWriter:
    assert writing.process.stdin is not None
    return writing.process.stdin
