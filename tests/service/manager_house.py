"""The account manager with a project and a machine, whose client a test plays."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

from libs.boinc.manager import (
    HostInfo,
    ManagerReply,
    ManagerRequest,
    ReportedProject,
    parse_reply,
    render_request,
)
from libs.boinc.signing import SigningKey
from libs.common.clock import WallClock
from libs.common.contracts.action import MachineFact, MachineRequested
from services.contribution.main import build
from tests.service.lone_service import OURS, Lone, serve

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEY = SigningKey.generate()
WEAK = "17_a2d3122f4a70a8a03d05fef689443657"
TOKEN = "one-time-token"


MACHINE, RESOURCE = UUID(int=7), UUID(int=8)


class Calendar(WallClock):
    """A date that only a test changes; waiting is real."""

    def __init__(self) -> None:
        self._now = NOW

    def now(self) -> datetime:
        return self._now

    def pass_by(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


@dataclass
class House:
    """The service, a project of it, a machine of it."""

    lone: Lone
    clock: Calendar
    project_url: str = "https://science.example/p/"
    project_id: str = ""
    contribution: str = ""
    machine_id: UUID = MACHINE
    resource_id: UUID = RESOURCE

    async def add_project(self, url: str, weight: float, **changes: Any) -> tuple[str, str]:
        made = await self.lone.ask("POST", "/v1/projects", {"name": url, "url": url})
        signed = {"url_signature": KEY.sign(url)}
        assert (await self.lone.ask("PATCH", f"/v1/projects/{made.body['id']}", signed)).status == 200
        body = {"project_id": made.body["id"], "weight": weight, "authenticator": WEAK} | changes
        lent = await self.lone.ask("POST", "/v1/contributions", body)
        assert lent.status == 201, lent.body
        return made.body["id"], lent.body["id"]

    async def say(self, kind: type[MachineFact], machine_id: UUID | None = None, **more: Any) -> None:
        await self.lone.tell(
            kind(
                at=self.clock.now(), machine_id=machine_id or self.machine_id, name="tides-1", workload_id=uuid4(),
                organisation_id=OURS, resource_id=self.resource_id, cluster_id=uuid4(), vcpus=2, reason="test", **more,
            )
        )  # fmt: skip

    async def post(self, body: bytes, kind: str = "application/x-www-form-urlencoded") -> bytes:
        headers = {"Content-Type": kind}
        async with self.lone.http.post(
            f"{self.lone.run.url}/boinc/rpc.php", data=body, headers=headers
        ) as answer:
            assert (answer.status, answer.content_type) == (200, "text/xml")
            return await answer.read()

    async def come(self, token: str, *projects: ReportedProject, **more: Any) -> ManagerReply:
        asked = ManagerRequest(authenticator=token, projects=projects, host=HostInfo(2, 4e9), **more)
        return parse_reply(await self.post(render_request(asked)))

    async def refused(self, token: str) -> bool:
        return b"<error_num>-206</error_num>" in await self.post(
            render_request(ManagerRequest(authenticator=token))
        )

    async def settled_token(self) -> str:
        """A machine that has its own token and its project."""
        first = await self.come(TOKEN)
        assert first.authenticator is not None
        await self.come(first.authenticator)
        return first.authenticator


@asynccontextmanager
async def opened(database_url: str, **more: Any) -> AsyncIterator[House]:
    clock, key = Calendar(), KEY.public.text
    async with serve(build, "contribution", database_url, clock, boinc_signing_key=key, **more) as lone:
        house = House(lone, clock)
        await house.say(MachineRequested, guest_token_sha256=sha256(TOKEN.encode()).hexdigest())
        house.project_id, house.contribution = await house.add_project(house.project_url, 3.0)
        yield house


def attached(url: str, share: float = 3.0, **more: Any) -> ReportedProject:
    return ReportedProject(url=url, resource_share=share, attached_by_manager=True, **more)
