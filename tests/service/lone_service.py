"""One service by itself, as it runs in production: real PostgreSQL as database and bus, real HTTP, real tokens."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg

from libs.common.auth import Principal, Role, Signer, generate_signing_keys
from libs.common.bus.base import Message, Queue
from libs.common.bus.messages import decode, to_message
from libs.common.clock import Clock
from libs.common.contracts.base import Event
from libs.common.contracts.catalogue import CATALOGUE
from libs.common.runner import Build, Running, running
from libs.common.secrets import Vault, fresh_key
from libs.common.settings import Settings
from tests.support import until

OURS = UUID("00000000-0000-7000-8000-00000000000a")
THEIRS = UUID("00000000-0000-7000-8000-00000000000b")


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def field(self) -> str | None:
        """The field that a problem names."""
        found: str | None = self.body.get("field")
        return found


async def as_an_older_process_left_it(database_url: str, statement: str) -> None:
    """Change rows behind the service's back, as they are where a program of before wrote them."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@dataclass
class Lone:
    """A running service with ways to ask it, to tell it and to hear it."""

    run: Running
    signer: Signer
    http: aiohttp.ClientSession
    vault: Vault
    said: list[Event] = field(default_factory=list)
    """Events that the service published, in order of arrival."""

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        role: Role | None = Role.OPERATOR,
        organisation: UUID = OURS,
        **more: Any,
    ) -> Answer:
        """One request as a user of this role and organisation; `role=None` sends no token."""
        headers = dict(more.pop("headers", {}))
        if role is not None:
            who = Principal(uuid4(), "someone", role, organisation, uuid4())
            headers["Authorization"] = f"Bearer {self.signer.sign(who)}"
        if body is not None:
            more["json"] = body
        async with self.http.request(method, self.run.url + path, headers=headers, **more) as response:
            is_json = "json" in response.content_type
            content = await response.json(content_type=None) if is_json else await response.text()
            return Answer(
                response.status, content, {name.lower(): text for name, text in response.headers.items()}
            )

    async def tell(self, *events: Event) -> None:
        """Publish events to the service, and wait until it has handled them."""
        for event in events:
            await self.run.bus.publish(to_message(event, "/tides/test"))
        await self.settle()

    async def settle(self) -> None:
        """Wait until nothing waits on the bus and nothing goes on."""

        async def quiet() -> bool:
            await self.run.activity.idle()
            return await self.run.bus.depth() == 0

        await until(quiet, what="the service to be quiet")

    async def hear(self, count: int) -> list[Event]:
        """The service's events once it has published this many, and no more."""
        await until(lambda: len(self.said) >= count, what=f"{count} events")
        await self.settle()
        assert len(self.said) == count, self.said
        return self.said


@asynccontextmanager
async def serve(
    build: Build, name: str, database_url: str, clock: Clock | None = None, **more: Any
) -> AsyncIterator[Lone]:
    """Run one service on a database of its own, with `more` settings."""
    private, verify_keys = generate_signing_keys()
    settings = Settings.model_validate(
        {
            "database_url": database_url,
            "sealing_keys": f"test:{fresh_key()}",
            "verify_keys": verify_keys,
            "installation_id": str(uuid4()),
            "port": 0,
            "pool_size": 4,
            "boinc_local_projects": "127.0.0.1",  # where stand-in projects are
            **more,
        }
    )
    async with running([build], settings, clock=clock) as run, aiohttp.ClientSession() as http:
        lone = Lone(run, Signer(private), http, settings.vault())
        async with _listening(lone, [row.event.key for row in CATALOGUE if row.publisher == name]):
            yield lone


@asynccontextmanager
async def _listening(lone: Lone, keys: Iterable[str]) -> AsyncIterator[None]:
    queue = Queue("test.said", tuple(keys))

    async def note(message: Message) -> None:
        lone.said.append(decode(message))

    if not queue.keys:
        yield
        return
    await lone.run.bus.declare([queue])
    ear = asyncio.create_task(lone.run.bus.consume(queue, note))
    try:
        yield
    finally:
        ear.cancel()
        with suppress(asyncio.CancelledError):
            await ear
