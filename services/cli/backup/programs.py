"""PostgreSQL's own programs, told where the server is without a password in their arguments."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from libs.common.embedded import EmbeddedPostgresFailed, program
from services.cli.client import Failed, plain

_SAID_BYTES = 64 * 1024
_ENDS_WITHIN_S = 10.0


def find_program(name: str, server_major: int) -> str:
    """A program that can speak to this server: the one that Tides brings, else the one on PATH. Raises Failed."""
    candidates = [_brought(name), shutil.which(name)]
    for path in candidates:
        if path is not None and _major_of(path) >= server_major:
            return path
    raise Failed(
        f"no {name} of PostgreSQL {server_major} or newer: install the client programs of the server's version"
    )


def _brought(name: str) -> str | None:
    try:
        return program(name)
    except EmbeddedPostgresFailed:
        return None


def _major_of(path: str) -> int:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r"(\d+)(\.\d+|devel|beta\d+|rc\d+)", said)
    return int(found[1]) if found else 0


def reach(url: str) -> tuple[str, dict[str, str]]:
    """The URL as libpq takes it, and the environment that holds its password."""
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    options = parse_qsl(parts.query)
    password = password or quote(dict(options).get("password", ""))
    kept = urlencode([(name, value) for name, value in options if name != "password"], quote_via=quote)
    bare = urlunsplit(("postgresql", f"{user}@{host}" if user else host, parts.path, kept, ""))
    environment = {"PGCONNECT_TIMEOUT": "10", "PGAPPNAME": "tides backup"}
    if password:
        environment["PGPASSWORD"] = unquote(password)
    return bare, environment


class Child:
    """A program that runs; what it says on standard error is kept, not shown."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self._said = asyncio.create_task(self._listen())

    async def _listen(self) -> str:
        assert self.process.stderr is not None
        said = b""
        while chunk := await self.process.stderr.read(4096):
            said = (said + chunk)[-_SAID_BYTES:]
        return said.decode(errors="replace")

    async def ended_well(self) -> None:
        """Wait for its end. Raises Failed with its first complaint."""
        code = await self.process.wait()
        said = [line for line in (await self._said).splitlines() if line.strip()]
        if code != 0:
            wrong = [line for line in said if "ERROR:" in line or "error:" in line or "FATAL:" in line]
            line = (wrong or said or [f"it ended with {code}"])[0]
            raise Failed(f"{self.name}: {plain(line)}")

    async def end(self) -> None:
        """End it if it still runs."""
        if self.process.returncode is None:
            self.process.terminate()
            try:
                async with asyncio.timeout(_ENDS_WITHIN_S):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        await asyncio.wait([self._said])


@asynccontextmanager
async def child(path: str, *words: str, environment: dict[str, str], feeds: bool) -> AsyncIterator[Child]:
    """Run a program for as long as the block lasts; `feeds`: the block writes to it, else it reads from it."""
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        path,
        *words,
        stdin=pipe if feeds else nothing,
        stdout=nothing if feeds else pipe,
        stderr=pipe,
        env={**os.environ, **environment},
        start_new_session=True,  # Ctrl-C is for us, who then end it
    )
    running = Child(os.path.basename(path), process)
    try:
        yield running
    finally:
        await running.end()
