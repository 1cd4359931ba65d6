"""Contribution with two machines whose agents knock at its door."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar
from uuid import UUID, uuid4

from libs.common.clock import WallClock
from libs.common.contracts.action import MachineFact, MachineRequested
from services.contribution.api.limits import Limits
from services.contribution.main import build
from tests.service.lone_service import OURS, Answer, Lone, serve

F = TypeVar("F", bound=MachineFact)
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECRET = "drawn-by-the-machine-itself-0123456789"
MACHINES = [uuid4(), uuid4()]


class Calendar(WallClock):
    """A date that only a test changes."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        """Seconds since it began."""
        return (self.at - NOW).total_seconds()


class House:
    """The service, with two machines that were requested."""

    def __init__(self, lone: Lone, clock: Calendar) -> None:
        self.lone, self.clock = lone, clock

    def fact(self, kind: type[F], machine_id: UUID = MACHINES[0], **more: Any) -> F:
        """What workload would say of a machine."""
        return kind(
            at=self.clock.now(), machine_id=machine_id, name="tides-1", workload_id=uuid4(), organisation_id=OURS,
            resource_id=uuid4(), cluster_id=uuid4(), vcpus=2, reason="test", **more,
        )  # fmt: skip

    async def say(self, kind: type[MachineFact], machine_id: UUID = MACHINES[0], **more: Any) -> None:
        await self.lone.tell(self.fact(kind, machine_id, **more))

    async def enrol(self, token: str, secret: str = SECRET) -> Answer:
        body = {"token": token, "secret": secret, "version": "1"}
        return await self.lone.ask("POST", "/guests/enrol", body, role=None)

    async def beat(self, secret: str = SECRET, **body: Any) -> Answer:
        headers = {"Authorization": f"Bearer {secret}"}
        return await self.lone.ask("POST", "/guests/beat", body, role=None, headers=headers)


@asynccontextmanager
async def guest_house(database_url: str, **settings: Any) -> AsyncIterator[House]:
    """The service with these settings, as House says."""
    clock = Calendar()
    async with serve(build, "contribution", database_url, clock, **settings) as lone:
        house, app = House(lone, clock), lone.run.services[0].app
        app.state.door = replace(app.state.door, limits=Limits(clock.monotonic_s))
        for number, machine_id in enumerate(MACHINES):
            await house.say(
                MachineRequested, machine_id, guest_token_sha256=sha256(b"token-%d" % number).hexdigest()
            )
        yield house
