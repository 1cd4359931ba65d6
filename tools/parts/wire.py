"""A wire to a server that can be made slow, or cut in silence: packets are lost, and neither end is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import parse_qs, urlsplit

CHUNK = 65_536
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Wire:
    """Between a server and a port of ours; the server's is a socket of PostgreSQL's, or an address."""

    def __init__(self, url: str) -> None:
        self.url = url
        """Of the server, by way of the wire; once it is open."""
        self.delay_s = 0.0
        """How much later every answer comes."""
        self._whole = asyncio.Event()
        self._whole.set()
        self._address = urlsplit(url)
        self._running: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def before(cls, url: str) -> AsyncIterator[Self]:
        """A wire before the server of this URL, for as long as the block lasts."""
        wire = cls(url)
        server = await asyncio.start_server(wire._serve, "127.0.0.1", 0)
        parts, port = wire._address, server.sockets[0].getsockname()[1]
        user = parts.netloc.rpartition("@")[0] or "postgres"
        wire.url = f"{parts.scheme}://{user}@127.0.0.1:{port}{parts.path}"
        try:
            yield wire
        finally:
            server.close()
            for task in wire._running:
                task.cancel()
            await asyncio.gather(*wire._running, return_exceptions=True)

    def cut(self) -> None:
        """From now on nothing arrives, in either direction, and nobody is told; new connections get no answer."""
        self._whole.clear()

    def mend(self) -> None:
        """What was under way arrives now, as after TCP has sent it again."""
        self._whole.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        ends = [writer]
        try:
            await self._whole.wait()
            near, far = await self._connect()
            ends.append(far)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, far))
                both.create_task(self._carry(near, writer, late=True))
        except* OSError:
            pass
        finally:
            for end in ends:
                end.transport.abort()

    async def _connect(self) -> Streams:
        folder = parse_qs(self._address.query).get("host")
        port = parse_qs(self._address.query).get("port", ["5432"])[0]
        if folder:
            return await asyncio.open_unix_connection(f"{folder[0]}/.s.PGSQL.{port}")
        return await asyncio.open_connection(self._address.hostname, self._address.port)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late: bool = False
    ) -> None:
        """Raises an OSError at the end of either end, so that the other is told."""
        while chunk := await reader.read(CHUNK):
            if late and self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self._whole.wait()
            writer.write(chunk)
            await writer.drain()
        await self._whole.wait()
        raise ConnectionAbortedError
