"""Monitors at work: one database and bus, any number of replicas, and an ear for all that they say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID, uuid4

import aiohttp
import asyncpg

from libs.common.auth import Principal, Role, Signer, generate_signing_keys
from libs.common.bus import open_bus
from libs.common.bus.base import Bus, Message, Queue
from libs.common.bus.messages import decode, to_message
from libs.common.clock import Clock
from libs.common.contracts.base import Event
from libs.common.contracts.resource import (
    InventoryChanged,
    LoginRefused,
    Mode,
    ResourceChanged,
    ResourceDegraded,
    ResourceRecovered,
)
from libs.common.contracts.usage import UsageSampled
from libs.common.runner import Running, running
from libs.common.secrets import fresh_key
from libs.common.settings import Settings
from libs.providers.base import sealing_context
from services.monitor.main import build
from tests.service.lone_service import OURS

E = TypeVar("E", bound=Event)
SAID = (UsageSampled, InventoryChanged, ResourceDegraded, ResourceRecovered, LoginRefused)


@dataclass
class House:
    """What the replicas share."""

    settings: Settings
    signer: Signer
    bus: Bus
    messages: list[Event] = field(default_factory=list)
    """All that was delivered to the ear, repeats included."""

    @asynccontextmanager
    async def monitor(self, clock: Clock | None = None) -> AsyncIterator[Running]:
        """One more replica."""
        async with running([build], self.settings, clock=clock) as run:
            yield run

    async def announce(self, resource: ResourceChanged) -> None:
        """Say it as registry would."""
        await self.bus.publish(to_message(resource, "/tides/registry"))

    def resource(self, url: str, password: str, **changes: Any) -> ResourceChanged:
        """A resource on a cloud, sampled five times a second."""
        sealed = self.settings.vault().seal(password, sealing_context(url, None, None))
        given: dict[str, Any] = {
            "at": datetime(2026, 11, 20, tzinfo=UTC), "revision": 1, "resource_id": uuid4(), "organisation_id": OURS,
            "name": "Lab", "provider": "simulated", "url": url, "settings": {}, "username": "tides",
            "sealed_secret": sealed, "ca_pem": None, "thumbprint": None, "mode": Mode.OBSERVE, "interval_s": 0.2,
        }  # fmt: skip
        return ResourceChanged(**(given | changes))

    def heard(self, kind: type[E], resource_id: UUID | None = None) -> list[E]:
        """What was said of this kind, once per message id, in order of arrival."""
        found: dict[UUID, E] = {}
        for event in self.messages:
            if isinstance(event, kind) and resource_id in (None, UUID(event.subject)):
                found.setdefault(event.id, event)
        return list(found.values())

    async def monitors(self, run: Running, **who: Any) -> list[dict[str, Any]]:
        """`GET /v1/monitors` of a replica."""
        principal = Principal(
            uuid4(), "someone", who.get("role", Role.VIEWER), who.get("organisation", OURS), uuid4()
        )
        headers = {"Authorization": f"Bearer {self.signer.sign(principal)}"}
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{run.url}/v1/monitors", headers=headers) as answer,
        ):
            assert answer.status == 200, await answer.text()
            items: list[dict[str, Any]] = (await answer.json())["items"]
            return items

    async def execute(self, statement: str, *values: Any) -> None:
        """Change monitor's schema behind its back."""
        connection = await asyncpg.connect(self.settings.database_dsn)
        try:
            await connection.execute("set search_path to monitor")
            await connection.execute(statement, *values)
        finally:
            await connection.close()

    async def fetch(self, query: str) -> list[tuple[Any, ...]]:
        """Look into monitor's schema."""
        connection = await asyncpg.connect(self.settings.database_dsn)
        try:
            await connection.execute("set search_path to monitor")
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    async def let_leases_expire(self) -> None:
        """What half a minute does to leases that nobody renews."""
        await self.execute("update replica set alive_until = now() - interval '1 second'")
        await self.execute("update resource set lease_until = now() - interval '1 second'")


def settings_for(database_url: str, bus_url: str | None = None, **more: Any) -> tuple[Settings, Signer]:
    """Settings of every replica, and who signs for their users."""
    private, verify_keys = generate_signing_keys()
    given = {
        "database_url": database_url, "bus_url": bus_url, "sealing_keys": f"test:{fresh_key()}",
        "verify_keys": verify_keys, "installation_id": str(uuid4()), "port": 0, "pool_size": 3,
    }  # fmt: skip
    return Settings.model_validate(given | more), Signer(private)


@asynccontextmanager
async def open_house(database_url: str, bus_url: str | None = None, **more: Any) -> AsyncIterator[House]:
    """The bus with an ear on it, before any replica runs."""
    settings, signer = settings_for(database_url, bus_url, **more)
    async with AsyncExitStack() as stack:
        bus = await open_bus(settings.bus_dsn)
        stack.push_async_callback(bus.aclose)
        house = House(settings, signer, bus)
        said = Queue("test.said", tuple(kind.key for kind in SAID), prefetch=50)
        await bus.declare([said, Queue(f"monitor.{ResourceChanged.key}", (ResourceChanged.key,))])

        async def note(message: Message) -> None:
            house.messages.append(decode(message))

        ear = asyncio.create_task(bus.consume(said, note))
        try:
            yield house
        finally:
            ear.cancel()
            with suppress(asyncio.CancelledError):
                await ear
