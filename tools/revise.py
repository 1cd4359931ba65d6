"""Writes the next migration of a service: the difference between its models and its migrations, for a person to read.

`python -m tools.revise SERVICE WORDS...`
"""

import asyncio
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine

from libs.common.db import async_url
from libs.common.embedded import EmbeddedPostgres
from libs.common.migrate import migrate, open_scripts
from libs.common.tables import common_metadata

_HEAD = '''"""{words}."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "{revision}"
down_revision = {down}


def upgrade() -> None:
    {body}
'''


def main() -> None:
    """Write the file and say where."""
    service, *words = sys.argv[1:]
    print(asyncio.run(_revise(service, " ".join(words) or "First tables")))


async def _revise(service: str, words: str) -> str:
    scripts = f"services.{service}.migrations"
    metadata: MetaData = import_module(f"services.{service}.models").Base.metadata
    with tempfile.TemporaryDirectory() as folder:
        server = await EmbeddedPostgres.start(Path(folder), durable=False)
        try:
            await migrate(server.url, service, scripts)
            engine = create_async_engine(async_url(server.url))
            async with engine.connect() as connection:
                body = await connection.run_sync(_difference, service, metadata)
            await engine.dispose()
        finally:
            await server.stop()
    known = [script.revision for script in open_scripts(scripts).walk_revisions()]
    revision = f"{len(known) + 1:04d}"
    path = Path(*scripts.split(".")) / f"{revision}_{'_'.join(words.lower().split())}.py"
    down = f'"{known[0]}"' if known else "None"
    path.write_text(_HEAD.format(words=words, revision=revision, down=down, body=body))
    return str(path)


def _difference(connection: Connection, schema: str, metadata: MetaData) -> str:
    connection.execute(text(f'set search_path to "{schema}"'))
    context = MigrationContext.configure(connection, opts={"include_object": _is_own, "compare_type": True})
    changes = produce_migrations(context, metadata).upgrade_ops
    if changes is None:
        return "pass"
    code = render_python_code(changes, migration_context=context).splitlines()
    return "\n    ".join(line.strip() for line in code if not line.strip().startswith("# ###"))


def _is_own(item: object, name: str | None, kind: str, _reflected: bool, _other: object) -> bool:
    doors = {*common_metadata.tables, "doors_version", "alembic_version"}
    table = name if kind == "table" else getattr(getattr(item, "table", None), "name", None)
    return table not in doors


if __name__ == "__main__":
    main()
