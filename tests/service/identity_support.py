"""A running identity over real HTTP and PostgreSQL, and a caller."""

import base64
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import aiohttp
from argon2 import PasswordHasher
from multidict import CIMultiDictProxy

from libs.common import log, personal_tokens
from libs.common.auth import generate_signing_keys
from libs.common.clock import WallClock
from libs.common.runner import Build, Running, running
from libs.common.settings import Settings
from services.identity.main import build as build_identity
from services.identity.usecases.passwords import Passwords
from tests.support import until

PRIVATE, PUBLIC = generate_signing_keys()
QUICK = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
"""Argon2 as cheap as it gets: most tests are not about its cost."""


class ShiftedClock(WallClock):
    """Wall time, moved by hand."""

    def __init__(self) -> None:
        self.shift = timedelta()

    def now(self) -> datetime:
        return super().now() + self.shift


def settings_for(database_url: str, **more: Any) -> Settings:
    """Settings of a process that serves on a free port."""
    sealing_key = base64.urlsafe_b64encode(os.urandom(32)).decode()
    given: dict[str, Any] = {
        "database_url": database_url,
        "sealing_keys": f"k1:{sealing_key}",
        "signing_key": PRIVATE,
        "verify_keys": PUBLIC,
        "port": 0,
        "pool_size": 3,
    }
    return Settings(**{**given, **more})


@dataclass
class Caller:
    """Speaks HTTP to a process; `token` is an access token or empty."""

    http: aiohttp.ClientSession
    token: str = ""
    seen: list[str] = field(default_factory=list)
    """Every body that came back, for scans."""

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """Status and decoded body."""
        status, answer, _ = await self.call_with_headers(method, path, body, **more)
        return status, answer

    async def call_with_headers(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **more: Any
    ) -> tuple[int, Any, CIMultiDictProxy[str]]:
        """Status, decoded body and headers."""
        sent = dict(headers or {})
        if self.token:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None:
            more["json"] = body
        async with self.http.request(method, path, headers=sent, **more) as response:
            text = await response.text()
            self.seen.append(text)
            answer = await response.json(content_type=None) if text else None
            return response.status, answer, response.headers

    async def created(self, path: str, body: Any) -> dict[str, Any]:
        """What POST made; fails on anything but 201."""
        status, answer = await self.call("POST", path, body)
        assert status == 201, answer
        assert isinstance(answer, dict)
        return answer

    async def exchanged(self, token: str) -> "Caller":
        """A caller with the access token of this personal token."""
        status, answer = await self.call("POST", "/v1/tokens/exchange", {"token": token})
        assert status == 200, answer
        return Caller(self.http, answer["access_token"])

    async def user_with_token(self, name: str, role: str) -> tuple[str, str]:
        """A new user of this role: id and the text of a personal token."""
        user = await self.created("/v1/users", {"name": name, "role": role})
        token = await self.created("/v1/tokens", {"label": "test", "user_id": user["id"]})
        return user["id"], token["token"]


@dataclass
class Site:
    """A process with identity in it, its first administrator, and its clock."""

    run: Running
    clock: ShiftedClock
    admin_token: str
    nobody: Caller
    admin: Caller


@asynccontextmanager
async def identity_site(database_url: str, *others: Build, **more: Any) -> AsyncIterator[Site]:
    """Identity (and others beside it), bootstrapped, until the block ends."""
    log.configure("INFO", "console", sys.stdout)
    clock, token = ShiftedClock(), more.pop("token", None) or personal_tokens.fresh()
    passwords = more.pop("passwords", None) or Passwords(QUICK)
    settings = settings_for(database_url, bootstrap_admin_token=token, **more)
    async with (
        running([partial(build_identity, clock=clock, passwords=passwords), *others], settings) as run,
        aiohttp.ClientSession(run.url, timeout=aiohttp.ClientTimeout(total=20)) as http,
    ):
        nobody = Caller(http)

        async def is_bootstrapped() -> bool:
            status, _ = await nobody.call("POST", "/v1/tokens/exchange", {"token": token})
            return status == 200

        await until(is_bootstrapped)
        yield Site(run, clock, token, nobody, await nobody.exchanged(token))
