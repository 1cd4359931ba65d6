"""Many concurrent calls become few statements: what arrives while one runs goes together in the next."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog

from libs.common.bus.handling import heed_cancellation
from libs.common.bus.retry import Backoff

log = structlog.get_logger(__name__)

Item = TypeVar("Item")


class Unwritable(Exception):
    """The server refuses these items for what they are; trying again is useless."""


class Batch(Generic[Item]):
    """Items waiting to be written together, in the order of their arrival.

    Items stay while the server is away, except those whose caller gave up. Where `write` raises Unwritable
    each item is tried alone, so that a bad one fails alone.
    """

    def __init__(self, write: Callable[[list[Item]], Awaitable[None]], size: int) -> None:
        self._write = write
        self._size = size
        self._waiting: list[tuple[Item, asyncio.Future[None]]] = []
        self._arrived = asyncio.Event()
        self.trouble: Exception | None = None
        """Why the last write failed; None after a good one."""

    def put(self, item: Item) -> "asyncio.Future[None]":
        """Add an item; the future is done when it is written, and cancelling it takes the item back."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, written))
        self._arrived.set()
        return written

    async def run(self) -> None:
        """Write until cancelled."""
        backoff = Backoff()
        while True:
            await self._arrived.wait()
            await self.flush()
            heed_cancellation()
            if self.trouble is None:
                backoff.reset()
            else:
                await backoff.pause()

    async def flush(self) -> None:
        """Write what is waiting, up to one batch. After a failure the items are waiting still."""
        self._waiting = [pair for pair in self._waiting if not pair[1].done()]
        batch = self._waiting[: self._size]
        if batch:
            await self._write_together(batch)
            self._waiting = [pair for pair in self._waiting if not pair[1].done()]
        if not self._waiting:
            self._arrived.clear()

    def abandon(self, error: Exception) -> None:
        """Fail everything that is waiting."""
        for _, written in self._waiting:
            if not written.done():
                written.set_exception(error)

    async def _write_together(self, batch: list[tuple[Item, "asyncio.Future[None]"]]) -> None:
        try:
            await self._write([item for item, _ in batch])
        except Unwritable as error:
            if len(batch) == 1:
                _settle(batch, error)
            for single in batch if len(batch) > 1 else []:
                await self._write_together([single])
        except Exception as error:
            if self.trouble is None:
                log.warning("bus.database_lost", error=type(error).__name__, items=len(batch))
            self.trouble = error
        else:
            self.trouble = None
            _settle(batch, None)


def _settle(batch: list[tuple[Item, "asyncio.Future[None]"]], error: Exception | None) -> None:
    for _, written in batch:
        if written.done():
            continue
        if error is None:
            written.set_result(None)
        else:
            written.set_exception(error)
