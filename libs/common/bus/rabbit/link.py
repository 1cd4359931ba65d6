"""A connection to the broker that is opened again by whoever next needs it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError
from pamqp.exceptions import PAMQPException

from libs.common.bus.base import BusUnavailable
from libs.common.bus.handling import cancel_requests, heed_cancellation
from libs.common.bus.retry import Lost

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 3.0
HEARTBEAT_S = 15

LOST: Lost = (AMQPError, OSError, PAMQPException, RuntimeError)
"""What a broker that went away looks like; RuntimeError is what a closed transport raises."""


class Link:
    """One connection, opened at first use and again after it was lost."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: AbstractConnection | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def connection(self) -> AbstractConnection:
        """The open connection. Raises one of LOST; BusUnavailable once this link is closed."""
        async with self._opening:
            if self._closed:
                raise BusUnavailable("the bus is closed")
            # `is_closed` would only tell of our own closing.
            if self._connection is None or not self._connection.connected.is_set():
                self._connection = await self._connect()
                log.info("bus.connected", connection=self._name)
            return self._connection

    async def _connect(self) -> AbstractConnection:
        """A new one. Raises one of LOST, also where the broker hangs up in the middle of a greeting."""
        try:
            return await aio_pika.connect(
                self._url,
                timeout=CONNECT_TIMEOUT_S,
                heartbeat=HEARTBEAT_S,
                client_properties={"connection_name": self._name},
            )
        except (StopAsyncIteration, EOFError) as error:  # what aiormq's reader of frames ends with
            raise ConnectionAbortedError("the broker hung up before it had greeted") from error

    async def open_channel(self, *, confirms: bool) -> AbstractChannel:
        """A new channel. Raises one of LOST."""
        connection = await self.connection()
        try:
            channel = connection.channel(publisher_confirms=confirms)
            await channel.initialize(timeout=CONNECT_TIMEOUT_S)
        except LOST:
            await close_quietly(connection)
            raise
        return channel

    @asynccontextmanager
    async def channel(self, *, confirms: bool = False) -> AsyncIterator[AbstractChannel]:
        """A new channel, closed at the end of the block; what it left unacknowledged is delivered again."""
        channel = await self.open_channel(confirms=confirms)
        try:
            yield channel
        finally:
            await close_quietly(channel)

    async def aclose(self) -> None:
        """Close for good."""
        self._closed = True
        if self._connection is not None:
            await close_quietly(self._connection)


async def close_quietly(resource: AbstractChannel | AbstractConnection) -> None:
    """Close what may be lost already."""
    before = cancel_requests()
    with suppress(*LOST):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await resource.close()
    heed_cancellation(before)
