"""The embedded PostgreSQL dies under a process that needs it: said in one line, and the next start goes on."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from tests.support import until
from tools.parts.slots import free_port

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(200)]
READY_WITHIN_S = 60.0
END_WITHIN_S = 60.0
LINE = "tides: The embedded PostgreSQL has ended ("


@asynccontextmanager
async def command(folder: Path, *words: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`tides ...` with its data in a folder; killed at the end at the latest."""
    with (folder / "said").open("ab") as sink:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.cli", *words),
            env={**os.environ, "TIDES_DATA_DIR": str(folder), "TMPDIR": str(folder), **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=sink,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def postmaster(folder: Path) -> int | None:
    """The server's process id, once it is ready."""
    with suppress(FileNotFoundError):  # initdb's folder is renamed under our eyes
        for file in folder.glob("**/cluster/postmaster.pid"):
            lines = file.read_text().splitlines()
            if len(lines) >= 8 and lines[7].strip() == "ready":
                return int(lines[0])
    return None


async def lose_server(folder: Path, process: asyncio.subprocess.Process) -> None:
    """Kill it; the process must end by itself and say why in its last line."""
    pid = postmaster(folder)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(END_WITHIN_S):
        assert await process.wait() == 1
    said = (folder / "said").read_text(errors="replace").splitlines()
    assert said[-1].startswith(LINE), said[-3:]


async def is_ready(port: int) -> bool:
    await asyncio.sleep(0.1)
    try:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def test_a_process_ends_with_its_server_and_starts_again(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for _ in range(2):
        port = free_port()
        async with command(tmp_path, "run", "all", TIDES_PORT=str(port)) as process:
            await until(lambda: is_ready(port), READY_WITHIN_S, "the process to be ready")  # noqa: B023
            await lose_server(tmp_path, process)
    assert (tmp_path / "said").read_text().count(LINE) == 2


@pytest.mark.parametrize("words", [("--speed", "60", "--dir", "{}/demo"), ("--days", "30")])
async def test_the_demo_ends_with_its_server(tmp_path: Path, words: tuple[str, ...]) -> None:
    tmp_path.chmod(0o755)
    given = [word.format(tmp_path) for word in words]
    async with command(tmp_path, "demo", *given, TIDES_PORT="0") as process:
        await until(lambda: postmaster(tmp_path), READY_WITHIN_S, "the server")
        await asyncio.sleep(6)  # it may die at any time: here while the services begin or work
        await lose_server(tmp_path, process)
