"""Argon2id beside the event loop, a bounded number at a time: each takes 64 MiB and a core for a moment."""

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from libs.common.errors import unavailable

_AT_ONCE = 2
_WAIT_S = 10.0


class Passwords:
    """Hashes and compares. Comparing with nothing takes as long as comparing with a wrong password."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._nobody = self._hasher.hash("nobody's password")
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def hash(self, password: str) -> str:
        """The stored form. Raises a 503 Problem when too many are waiting."""
        await self._enter()
        try:
            return await asyncio.to_thread(self._hasher.hash, password)
        finally:
            self._slots.release()

    async def matches(self, password: str, stored: str | None) -> bool:
        """Whether this is the password; False where there is none. Raises 503 when too many wait."""
        await self._enter()
        try:
            right = await asyncio.to_thread(self._compare, password, stored or self._nobody)
        finally:
            self._slots.release()
        return right and stored is not None

    def _compare(self, password: str, stored: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (Argon2Error, InvalidHashError):
            return False

    async def _enter(self) -> None:
        try:
            async with asyncio.timeout(_WAIT_S):
                await self._slots.acquire()
        except TimeoutError:
            raise unavailable("Too many people are logging in.", retry_after_s=10) from None
