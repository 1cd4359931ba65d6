"""Taking a backup: one snapshot of every service's schema and of the bus in the same database."""

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import asyncpg

from libs.common.secrets import parse_keys
from libs.common.settings import Settings
from services.cli.backup.manifest import CHUNK, FILE, Dump, Key, Manifest, Migrations, check_of
from services.cli.backup.programs import child, find_program, reach
from services.cli.client import Failed
from services.cli.run import SERVICES

BUS = "bus"
CONNECT_WITHIN_S = 10.0
QUESTION_WITHIN_S = 60.0
Progress = Callable[[str, int], None]
"""Told the file and how many bytes of it there are."""
_SEALED = """
select table_schema, table_name, column_name from information_schema.columns
where table_schema = any($1) and column_name like 'sealed\\_%'"""


@asynccontextmanager
async def database(url: str) -> AsyncIterator[Any]:
    """A connection. Raises Failed in one line."""
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_WITHIN_S, command_timeout=QUESTION_WITHIN_S)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise Failed(
            f"the database cannot be reached ({type(error).__name__}); see TIDES_DATABASE_URL"
        ) from None
    try:
        yield connection
    finally:
        await connection.close(timeout=CONNECT_WITHIN_S)


async def take(url: str, settings: Settings, folder: Path, progress: Progress) -> Manifest:
    """Write a backup of the database at `url` to a folder that does not exist yet: whole, or not at all.

    Services go on meanwhile. Raises Failed.
    """
    draft = _draft_of(folder)
    try:
        async with (
            database(url) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            manifest = await _describe(connection, settings)
            snapshot = await connection.fetchval("select pg_export_snapshot()")
            major = connection.get_server_version().major
            dumps = [
                await _dump(url, snapshot, schemas, draft / name, find_program("pg_dump", major), progress)
                for name, schemas in (
                    ("services.dump", list(manifest.schemas)),
                    ("bus.dump", await _present(connection, [BUS])),
                )
                if schemas
            ]
        manifest = manifest.model_copy(update={"dumps": tuple(dumps)})
        _write(draft / FILE, manifest.model_dump_json(indent=2).encode())
        await asyncio.to_thread(_finish, draft, folder)
    except asyncpg.PostgresError as error:
        raise Failed(f"the database refused ({type(error).__name__}): {error}") from None
    except OSError as error:
        raise Failed(f"{folder}: {error.strerror}; name a folder on a disk with room") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def _draft_of(folder: Path) -> Path:
    if folder.exists():
        raise Failed(f"{folder} exists and is never overwritten; name a new folder")
    try:
        return Path(tempfile.mkdtemp(prefix=f".{folder.name}.unfinished-", dir=folder.absolute().parent))
    except OSError as error:
        raise Failed(f"{folder}: {error.strerror}; name a folder in one that you can write") from None


async def _present(connection: Any, schemas: list[str]) -> list[str]:
    rows = await connection.fetch("select nspname from pg_namespace where nspname = any($1)", schemas)
    found = {row["nspname"] for row in rows}
    return [name for name in schemas if name in found]


async def _describe(connection: Any, settings: Settings) -> Manifest:
    schemas = await _present(connection, list(SERVICES))
    if not schemas:
        raise Failed("this database holds nothing of Tides: see TIDES_DATABASE_URL and TIDES_DATA_DIR")
    return Manifest(
        tides=installed_version("tides"),
        made_at=await connection.fetchval("select now()"),
        postgresql=await connection.fetchval("show server_version"),
        installation_id=await connection.fetchval("select id from workload.installation")
        if "workload" in schemas
        else None,
        schemas={
            name: Migrations(
                service=await connection.fetchval(f'select version_num from "{name}".alembic_version'),
                doors=await connection.fetchval(f'select version_num from "{name}".doors_version'),
            )
            for name in schemas
        },
        sealing_keys=await _needed_keys(connection, schemas, settings),
        dumps=(),
    )


async def _needed_keys(connection: Any, schemas: list[str], settings: Settings) -> dict[str, Key]:
    here = parse_keys(settings.sealing_keys.get_secret_value())
    counts: dict[str, int] = {}
    for schema, table, column in await connection.fetch(_SEALED, schemas):
        query = (
            f'select split_part("{column}", \'.\', 1), count(*) from "{schema}"."{table}"'
            f" where \"{column}\" <> '' group by 1"
        )
        for key_id, count in await connection.fetch(query):
            counts[key_id] = counts.get(key_id, 0) + count
    return {
        key_id: Key(secrets=count, check=check_of(here[key_id]) if key_id in here else None)
        for key_id, count in sorted(counts.items())
    }


async def _dump(
    url: str, snapshot: str, schemas: list[str], path: Path, program: str, progress: Progress
) -> Dump:
    where, environment = reach(url)
    words = [f"--schema={schema}" for schema in schemas]
    words += ["--format=custom", f"--snapshot={snapshot}", "--lock-wait-timeout=30s", "--no-password"]
    digest, size = hashlib.sha256(), 0
    async with child(program, *words, f"--dbname={where}", environment=environment, feeds=False) as dumping:
        assert dumping.process.stdout is not None
        with path.open("xb") as file:
            path.chmod(0o600)
            while chunk := await dumping.process.stdout.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                progress(path.name, size)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        await dumping.ended_well()
    return Dump.model_validate({"file": path.name, "size": size, "sha256": digest.hexdigest()})


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        path.chmod(0o600)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _finish(draft: Path, folder: Path) -> None:
    _sync(draft)
    if folder.exists():
        raise FileExistsError(0, "somebody else made it meanwhile")
    draft.rename(folder)
    _sync(folder.absolute().parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
