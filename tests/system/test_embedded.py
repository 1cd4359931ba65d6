"""The embedded server keeps its data, has one owner, and cleans up after an owner that was killed."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest

from libs.common.embedded import EmbeddedPostgres, EmbeddedPostgresFailed
from tests.support import until


@asynccontextmanager
async def running(data_dir: Path, *, durable: bool = False) -> AsyncIterator[EmbeddedPostgres]:
    server = await EmbeddedPostgres.start(data_dir, durable=durable)
    try:
        yield server
    finally:
        await server.stop()


async def ask(server: EmbeddedPostgres, question: str) -> object:
    connection = await asyncpg.connect(server.url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_data_is_kept_between_runs(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        await ask(server, "CREATE TABLE kept AS SELECT 7 AS answer")

    async with running(tmp_path) as server:
        assert await ask(server, "SELECT answer FROM kept") == 7


async def test_a_durable_server_waits_for_the_disk_and_a_throw_away_one_does_not(tmp_path: Path) -> None:
    names = "concat_ws(' ', current_setting('fsync'), current_setting('synchronous_commit'))"

    async with running(tmp_path, durable=True) as server:
        assert await ask(server, f"SELECT {names}") == "on on"
    async with running(tmp_path, durable=False) as server:
        assert await ask(server, f"SELECT {names}") == "off off"


async def test_a_second_owner_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        with pytest.raises(EmbeddedPostgresFailed, match="Another process of Tides"):
            await EmbeddedPostgres.start(tmp_path)

        assert await ask(server, "SELECT 1") == 1


OWNER = """
import asyncio, sys
from pathlib import Path
from libs.common.embedded import EmbeddedPostgres

async def own() -> None:
    server = await EmbeddedPostgres.start(Path(sys.argv[1]), durable=False)
    (Path(sys.argv[1]) / "started").write_text(str(server.pid))
    await asyncio.Event().wait()

asyncio.run(own())
"""


async def start_and_kill_an_owner(data_dir: Path) -> psutil.Process:
    """The server that a killed process left running."""
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OWNER, str(data_dir)), stdout=subprocess.DEVNULL
    )
    started = data_dir / "started"
    pid = await until(lambda: started.exists() and started.read_text(), timeout=30, what="the owner's server")
    owner.kill()
    await owner.wait()
    return psutil.Process(int(pid))


async def test_the_server_of_a_killed_owner_is_replaced(tmp_path: Path) -> None:
    leftover = await start_and_kill_an_owner(tmp_path)
    assert leftover.is_running()

    async with running(tmp_path) as server:
        assert server.pid != leftover.pid
        assert await ask(server, "SELECT 1") == 1
        assert not leftover.is_running() or leftover.status() == psutil.STATUS_ZOMBIE


async def test_a_server_that_was_killed_itself_is_recovered(tmp_path: Path) -> None:
    leftover = await start_and_kill_an_owner(tmp_path)
    os.kill(leftover.pid, signal.SIGKILL)

    async with running(tmp_path) as server:
        assert await ask(server, "SELECT 1") == 1


async def test_a_process_that_got_the_old_number_is_left_alone(tmp_path: Path) -> None:
    async with running(tmp_path):
        pass
    bystander = await asyncio.create_subprocess_exec("sleep", "60")
    (tmp_path / "cluster" / "postmaster.pid").write_text(f"{bystander.pid}\n{tmp_path / 'cluster'}\n")

    async with running(tmp_path) as server:
        assert await ask(server, "SELECT 1") == 1
        assert bystander.returncode is None
        bystander.kill()
        assert await bystander.wait() == -signal.SIGKILL


async def test_an_interrupted_first_start_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "cluster.new").mkdir()
    (tmp_path / "cluster.new" / "half").touch()

    async with running(tmp_path) as server:
        assert await ask(server, "SELECT 1") == 1


@pytest.mark.parametrize("temporary", ["t", "deep" * 25])
async def test_a_path_too_long_for_a_socket_works_and_is_private(
    tmp_path: Path, temporary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / temporary).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / temporary))
    async with running(tmp_path / ("long" * 25)) as server:
        assert await ask(server, "SELECT 1") == 1
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
    assert not server.socket_dir.exists()


async def test_a_failure_says_what_the_server_said(tmp_path: Path) -> None:
    async with running(tmp_path):
        pass
    (tmp_path / "cluster" / "PG_VERSION").write_text("9.6\n")

    with pytest.raises(EmbeddedPostgresFailed, match=r"database files are incompatible"):
        await EmbeddedPostgres.start(tmp_path)
