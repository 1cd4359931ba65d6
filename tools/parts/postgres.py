"""PostgreSQL for tests: the server that Tides itself embeds, without care for a power cut."""

import os
import re
from urllib.parse import urlsplit

import asyncpg

from libs.common.embedded import EmbeddedPostgres
from tools.parts import PartMissing, slots

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


class PostgresServer:
    """One private server. Its databases survive `restart` and `kill`, and end with `close`."""

    def __init__(self) -> None:
        self._slot: slots.Slot | None = None
        self._server: EmbeddedPostgres | None = None

    @property
    def url(self) -> str:
        """The database `postgres`, for its superuser; good for `create_database`."""
        if self._server is None:
            raise PartMissing("This PostgreSQL server was not started.")
        return self._server.url

    async def start(self) -> None:
        """Start it (half a second at the first time); after `stop` or `kill` it has the same URL and data."""
        if self._slot is None:
            self._slot = slots.claim("postgres")
        self._server = await EmbeddedPostgres.start(self._slot.folder / "data", durable=False)
        self._slot.record(self._server.pid)

    async def stop(self) -> None:
        """End it in order; connections are refused until `start`."""
        if self._server is not None:
            await self._server.stop()

    async def restart(self) -> None:
        """Cut every connection, as a restart by an operator does."""
        await self.stop()
        await self.start()

    async def kill(self) -> None:
        """End it as a crash would. The next `start` recovers from its log."""
        if self._server is not None:
            await self._server.kill()

    async def close(self) -> None:
        """End it and remove its data."""
        if self._slot is not None:
            await self.stop()
            self._slot.release()
            self._slot = None

    async def create_database(self, name: str) -> str:
        """A new, empty database; the answer is its URL."""
        return await create_database(self.url, name)

    async def drop_database(self, name: str) -> None:
        """Remove a database, cutting its connections."""
        await drop_database(self.url, name)


async def create_database(url: str, name: str, template: str = "template0") -> str:
    """A new database on the server of `url`, a copy of `template`; the answer is its URL."""
    await _execute(url, f"CREATE DATABASE {_checked(name)} TEMPLATE {_checked(template)}")
    return url_of(url, name)


async def drop_database(url: str, name: str) -> None:
    """Remove a database, cutting its connections; absent is success."""
    await _execute(url, f"DROP DATABASE IF EXISTS {_checked(name)} WITH (FORCE)")


def url_of(url: str, name: str) -> str:
    """The URL of another database on the server of `url`."""
    scheme, rest = url.split("://", 1)
    # urlunsplit drops the empty host of a socket's URL, so the path is replaced in the text.
    path = urlsplit(f"//{rest}").path
    return f"{scheme}://{rest.replace(path, f'/{name}', 1)}"


async def find_running() -> str | None:
    """The superuser's URL of a server that the environment names, if it answers."""
    url = os.environ.get("TIDES_TEST_DATABASE_URL")
    if url:
        await _execute(url, "SELECT 1")
    return url


async def _execute(url: str, statement: str) -> None:
    try:
        connection = await asyncpg.connect(url, timeout=15)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise PartMissing(f"The test's PostgreSQL server does not answer: {error}") from error
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a database.")
    return f'"{name}"'
