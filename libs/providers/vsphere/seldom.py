"""What an administrator seldom changes: read now and then, and what was read last holds while it cannot be read."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

import structlog

from libs.providers.base import ProviderError
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.session import Session

READ_EVERY = timedelta(minutes=5)
T = TypeVar("T")
log = structlog.get_logger()


class Seldom(Generic[T]):
    """Remembers what was read last; `nothing` before the first time."""

    def __init__(self, session: Session, what: str, nothing: T) -> None:
        self._session = session
        self._what = what
        self._known = nothing
        self._read_at: datetime | None = None

    @property
    def known(self) -> T:
        """As it was read last."""
        return self._known

    async def look(self, read: Callable[[Api], T], now: datetime) -> T:
        """As it was five minutes ago at most; after a refusal as it was before, until the next look."""
        if self._read_at is None or not timedelta() <= now - self._read_at < READ_EVERY:
            self._read_at = now
            try:
                self._known = await self._session.call(read, f"reading {self._what}")
            except ProviderError as refusal:
                log.info("vsphere.unread", what=self._what, cause=refusal.cause)
        return self._known
