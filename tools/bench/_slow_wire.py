"""A wire to a server that can be made slow: what is read from it comes later, and nobody's code knows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self
from urllib.parse import parse_qs, urlsplit

CHUNK = 65_536


class SlowWire:
    """Between PostgreSQL's socket and a port of ours."""

    def __init__(self, path: str, url: str) -> None:
        self._path = path
        self.url = url
        """Of the database, by way of the wire."""
        self.delay_s = 0.0
        """How much later every answer comes."""

    @classmethod
    @asynccontextmanager
    async def before(cls, database_url: str) -> AsyncIterator[Self]:
        """A wire before the server of this URL, which is reached by a socket in a folder."""
        parts = urlsplit(database_url.replace("postgresql://", "http://", 1))
        folder = parse_qs(parts.query)["host"][0]
        user = parts.netloc.rpartition("@")[0] or "postgres"
        port = parse_qs(parts.query).get("port", ["5432"])[0]
        wire = cls(f"{folder}/.s.PGSQL.{port}", "")
        server = await asyncio.start_server(wire._serve, "127.0.0.1", 0)
        wire.url = f"postgresql://{user}@127.0.0.1:{server.sockets[0].getsockname()[1]}{parts.path}"
        try:
            yield wire
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near, far = await asyncio.open_unix_connection(self._path)
        tasks = [
            asyncio.create_task(self._carry(reader, far)),
            asyncio.create_task(self._carry(near, writer, late=True)),
        ]
        with suppress(OSError):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for end in (writer, far):
            end.close()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late: bool = False
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(CHUNK):
                if late and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(chunk)
                await writer.drain()
