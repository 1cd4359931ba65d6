"""Migrations: one history per service under an advisory lock, and one shared history for the doors' tables."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import structlog
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from libs.common.db import async_url, new_metadata, role_of

log = structlog.get_logger(__name__)

DOORS = "libs.common.migrations"
# Roles belong to the server, but the lock to one database: another installation may be as far.
_CREATE_ROLE = """
do $$ begin
    create role "{role}" nologin;
exception when duplicate_object or unique_violation then null;
end $$
"""


async def migrate(url: str, schema: str, scripts: str) -> None:
    """Bring a service's schema to the newest version; safe to run from several processes at once.

    Creates the schema and its role at first. `scripts` is the import path of the service's revision files. A schema
    that is newer is left as it is: an older process that starts during an upgrade, or after going back, works on it.
    """
    engine = create_async_engine(async_url(url), poolclass=NullPool, connect_args={"timeout": 10})
    try:
        async with engine.begin() as connection:
            await connection.execute(
                text("select pg_advisory_xact_lock(hashtext('tides.migrate'))")
            )  # roles are shared by all schemas, so one lock serves all
            await connection.run_sync(_prepare, schema)
            await connection.run_sync(_upgrade, DOORS, "doors_version")
            await connection.run_sync(_upgrade, scripts, "alembic_version")
    finally:
        await engine.dispose()


def _prepare(connection: Connection, schema: str) -> None:
    role = role_of(schema)
    if (
        connection.execute(text("select 1 from pg_roles where rolname = :role"), {"role": role}).first()
        is None
    ):
        connection.execute(text(_CREATE_ROLE.format(role=role)))
    if (
        connection.execute(text("select 1 from pg_namespace where nspname = :name"), {"name": schema}).first()
        is None
    ):
        connection.execute(text(f'grant "{role}" to current_user'))
        connection.execute(text(f'create schema "{schema}" authorization "{role}"'))
    connection.execute(text(f'set local role "{role}"'))
    connection.execute(text(f'set local search_path to "{schema}"'))


def _upgrade(connection: Connection, scripts: str, version_table: str) -> None:
    script = open_scripts(scripts)

    known = {one.revision for one in script.walk_revisions()}

    def to_head(revision: Any, _context: Any) -> Sequence[Any]:
        strange = sorted(set(revision) - known)
        if strange:
            log.warning("schema.newer", scripts=scripts, there=strange, newest_here=script.get_current_head())
            return []
        return script._upgrade_revs("head", revision)

    with EnvironmentContext(Config(), script, fn=to_head) as environment:
        # The metadata is for its naming convention: a constraint is called in the database as in the models.
        environment.configure(
            connection=connection, version_table=version_table, target_metadata=new_metadata()
        )
        environment.run_migrations()


def open_scripts(scripts: str) -> ScriptDirectory:
    """The revision files of a package, found without importing it."""
    spec = find_spec(scripts)
    if spec is None or spec.submodule_search_locations is None:
        raise LookupError(f"no migrations package {scripts}")
    folder = str(Path(next(iter(spec.submodule_search_locations))))
    return ScriptDirectory(folder, version_locations=[folder])
