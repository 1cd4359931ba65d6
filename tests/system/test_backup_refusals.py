"""What a restore refuses before it writes, and that an interrupted one leaves nothing behind."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr

from libs.common.migrate import migrate
from libs.common.secrets import Vault, fresh_key, parse_keys
from libs.common.settings import Settings
from services.cli.backup.manifest import FILE
from services.cli.backup.programs import reach
from services.cli.backup.work import restore_backup, take_backup
from services.cli.client import Failed
from tools.parts import postgres
from tools.schemas import compose

pytestmark = pytest.mark.xdist_group("backup")
KEY = f"k1:{fresh_key()}"
SCHEMAS = "select count(*) from pg_namespace where nspname in ('contribution', 'workload')"


async def ask(url: str, *questions: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        for question in questions:
            answer = await connection.fetchval(question)
        return answer
    finally:
        await connection.close()


@pytest.fixture
async def settings(database_url: str) -> Settings:
    """An installation of two services with one sealed secret, whose processes are stopped."""
    for name in ("contribution", "workload"):
        await migrate(database_url, name, f"services.{name}.migrations")
    ours = Settings(
        database_url=SecretStr(database_url),
        sealing_keys=SecretStr(KEY),
        verify_keys="{}",
        installation_id=uuid4(),
    )
    sealed = Vault(parse_keys(KEY)).seal("weak key", b"context")
    await ask(
        database_url,
        f"insert into workload.installation values ('{ours.installation_id}', now())",
        "insert into workload.contribution values (gen_random_uuid(), 1, gen_random_uuid(), gen_random_uuid(),"
        f" 'Lab', 'https://p.example/', 1, true, null, '{sealed}')",
    )
    return ours


@pytest.fixture
async def elsewhere(settings: Settings, postgres_url: str) -> AsyncIterator[Settings]:
    """The same settings on an empty database."""
    name = f"t_{uuid4().hex}"
    url = await postgres.create_database(postgres_url, name)
    yield settings.model_copy(update={"database_url": SecretStr(url)})
    await postgres.drop_database(postgres_url, name)


async def test_refusals_come_before_anything_is_written(
    settings: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    made = await take_backup(settings, backup)
    assert {name: key.secrets for name, key in made.sealing_keys.items()} == {"k1": 1}
    assert KEY.removeprefix("k1:") not in (backup / FILE).read_text()
    assert {path.name: path.stat().st_mode & 0o777 for path in backup.iterdir()} == dict.fromkeys(
        (FILE, "services.dump"), 0o600
    )
    with pytest.raises(Failed, match="exists and is never overwritten"):
        await take_backup(settings, backup)

    for change, complaint in (
        ({"sealing_keys": SecretStr("")}, "1 secrets of the backup are sealed with key 'k1'"),
        ({"sealing_keys": SecretStr(f"k1:{fresh_key()}")}, "another key under the id 'k1'"),
        ({"installation_id": uuid4()}, "set TIDES_INSTALLATION_ID"),
    ):
        with pytest.raises(Failed, match=complaint):
            await restore_backup(elsewhere.model_copy(update=change), backup)
    with pytest.raises(Failed, match="is not empty"):
        await restore_backup(settings, backup)
    spoil(backup, lambda manifest: manifest["schemas"]["workload"].update(service="9999"))
    with pytest.raises(Failed, match="migration 9999, which this version does not know"):
        await restore_backup(elsewhere, backup)
    spoil(backup, lambda manifest: manifest["schemas"].update(workload=made.schemas["workload"].model_dump()))
    dump = backup / "services.dump"
    whole = dump.read_bytes()
    dump.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(Failed, match="damaged"):
        await restore_backup(elsewhere, backup)
    assert await ask(elsewhere.database_dsn, SCHEMAS) == 0

    dump.write_bytes(whole)
    await restore_backup(elsewhere, backup, only_check=True)
    assert await ask(elsewhere.database_dsn, SCHEMAS) == 0
    await restore_backup(elsewhere, backup)
    owner = "select tableowner from pg_tables where schemaname = 'workload' and tablename = 'contribution'"
    assert await ask(elsewhere.database_dsn, owner) == "tides_workload"
    for name in ("contribution", "workload"):
        await migrate(elsewhere.database_dsn, name, f"services.{name}.migrations")


def spoil(backup: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Another manifest."""
    manifest = json.loads((backup / FILE).read_text())
    change(manifest)
    (backup / FILE).write_text(json.dumps(manifest))


async def test_a_restore_that_dies_on_its_way_has_changed_nothing_and_replacing_takes_the_name(
    settings: Settings, elsewhere: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await take_backup(settings, tmp_path / "backup")
    url = elsewhere.database_dsn
    await migrate(url, "workload", "services.workload.migrations")
    await ask(url, "create table workload.mine as select 7 as answer")

    monkeypatch.setattr(sys, "stdin", StringIO("another\n"))
    with pytest.raises(Failed, match="not its name"):
        await restore_backup(elsewhere, tmp_path / "backup", replace=True)

    name = str(await ask(url, "select current_database()"))
    monkeypatch.setattr(sys, "stdin", StringIO(f"{name}\n"))
    # Somebody holds the lock under which schemas change: the restore waits for it in its transaction, and is cancelled.
    holder = await asyncpg.connect(url)
    await holder.execute("select pg_advisory_lock(hashtext('tides.migrate'))")
    restoring = asyncio.create_task(restore_backup(elsewhere, tmp_path / "backup", replace=True))
    waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
    while not await holder.fetchval(waits):  # noqa: ASYNC110 - another process's doing
        await asyncio.sleep(0.02)
    restoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await restoring
    await holder.close()
    assert await ask(url, "select answer from workload.mine") == 7
    assert await ask(url, SCHEMAS) == 1

    monkeypatch.setattr(sys, "stdin", StringIO(f"{name}\n"))
    await restore_backup(elsewhere, tmp_path / "backup", replace=True)
    assert await ask(url, "select to_regclass('workload.mine') is null") is True
    assert await ask(url, SCHEMAS) == 2


async def test_a_backup_that_fails_leaves_no_folder(settings: Settings, tmp_path: Path) -> None:
    await ask(settings.database_dsn, "drop table contribution.doors_version")
    with pytest.raises(Failed, match="the database refused"):
        await take_backup(settings, tmp_path / "backup")
    assert list(tmp_path.iterdir()) == []


def test_a_password_is_no_argument() -> None:
    url, environment = reach("postgresql+asyncpg://ada:p%40ss@db:5432/tides?sslmode=require")
    assert url == "postgresql://ada@db:5432/tides?sslmode=require"
    assert environment["PGPASSWORD"] == "p@ss"
    url, environment = reach("postgresql://postgres@/t?host=%2Frun%2Fpg&password=secret")
    assert url == "postgresql://postgres@/t?host=%2Frun%2Fpg"
    assert environment["PGPASSWORD"] == "secret"


def test_every_sealed_column_is_found_by_its_name() -> None:
    """The manifest's key ids are counted by the columns' names."""
    names = [sealed.column.key for service in compose() for sealed in service.seals]
    assert names
    assert all(name.startswith("sealed_") for name in names)
