"""A project's stand-in, an organisation that has to do with it, and the service between them, on a shared clock."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from libs.boinc.demo_project import DemoProject, User
from libs.boinc.web import client, password_hash
from libs.common.clock import WallClock
from libs.common.contracts.action import MachineFact, MachineRequested
from libs.common.contracts.supply import ContributionChanged
from libs.common.secrets import authenticator_context
from services.contribution.main import build
from tests.boinclab.web import serving
from tests.service.lone_service import Answer, Lone, serve
from tools.parts import postgres

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
EMAIL, PASSWORD = "Ent1@example.com", "s3cret-password"
CPID = "67ca5b3951c52e06fe5e2bb2720c322e"


class Calendar(WallClock):
    """A date that only a test changes; waiting is real."""

    def __init__(self) -> None:
        self._now = NOW

    def now(self) -> datetime:
        return self._now

    def pass_by(self, **much: float) -> None:
        """Move on."""
        self._now += timedelta(**much)

    def next_noon(self) -> datetime:
        """Move to the next noon, for a test's days to be its own."""
        self._now = self._now.replace(hour=12, minute=0) + timedelta(days=2)
        return self._now


@dataclass
class World:
    """The service, a project that it knows, and a clock."""

    lone: Lone
    project: DemoProject
    clock: Calendar
    project_id: str
    began_at: datetime
    ours: UUID = field(default_factory=uuid4)
    """The organisation."""
    machine_id: UUID = field(default_factory=uuid4)
    other_machine_id: UUID = field(default_factory=uuid4)

    @property
    def born(self) -> int:
        """When the test began, as a project tells it."""
        return int(self.began_at.timestamp())

    async def call(self, method: str, path: str, body: Any = None) -> Answer:
        """One request of the organisation's operator."""
        return await self.lone.ask(method, path, body, organisation=self.ours)

    async def look(self) -> None:
        """Let the beat look what is due, and wait until that is done."""
        self.lone.run.services[0].app.state.door.visits_due.set()
        await self.lone.settle()

    async def later(self, **much: float) -> None:
        """Let time pass, and let the beat look."""
        self.clock.pass_by(**much)
        await self.look()

    async def seen(self) -> dict[str, Any]:
        """The project as the service shows it."""
        found: dict[str, Any] = (await self.call("GET", f"/v1/projects/{self.project_id}")).body
        return found

    async def agree(self) -> None:
        """Agree to the terms that the project has."""
        path = f"/v1/projects/{self.project_id}/consent"
        digest = sha256(self.project.terms.encode()).hexdigest()
        assert (await self.call("PUT", path, {"terms_sha256": digest})).status == 200

    async def ask(self, **changes: Any) -> Answer:
        """Ask for the account, and let it be let in."""
        body = {"project_id": self.project_id, "email": EMAIL, "password": PASSWORD} | changes
        answer = await self.call("POST", "/v1/accounts", body)
        await self.lone.settle()
        return answer

    async def account(self) -> dict[str, Any]:
        """The organisation's account."""
        [found] = (await self.call("GET", "/v1/accounts")).body["items"]
        assert isinstance(found, dict)
        return found

    async def ready(self) -> tuple[User, dict[str, Any]]:
        """An account that is at the project already, stored here."""
        user = self.project.user(EMAIL, password_hash(PASSWORD, EMAIL))
        assert (await self.ask()).status == 202
        account = await self.account()
        assert (account["state"], account["user_id"]) == ("ready", user.id), account
        return user, account

    async def lend(self, **key: Any) -> Answer:
        """Lend to the project."""
        return await self.call(
            "POST", "/v1/contributions", {"project_id": self.project_id, "weight": 1} | key
        )

    def key_in(self, event: ContributionChanged) -> str:
        """The weak key that an event tells."""
        context = authenticator_context(event.contribution_id)
        return self.lone.vault.open(event.sealed_authenticator, context)

    async def told(self) -> list[ContributionChanged]:
        """What was said of the organisation's contributions, in order."""
        await self.lone.settle()
        said = [event for event in self.lone.said if isinstance(event, ContributionChanged)]
        found = [event for event in said if event.organisation_id == self.ours]
        return sorted(found, key=lambda event: event.revision)

    async def sql(self, query: str, **values: Any) -> list[Any]:
        """Look into, or change, the service's tables."""
        async with self.lone.run.services[0].database.transaction() as session:
            if query.startswith("select"):
                return list((await session.execute(text(query), values)).all())
            await session.execute(text(query), values)
            return []

    async def machine(
        self, host_id: int = 0, machine_id: UUID | None = None, since: datetime | None = None
    ) -> None:
        """A machine whose client has come, and which is this host at the project."""
        machine_id, since = machine_id or self.machine_id, since or self.began_at
        await self.say(MachineRequested, machine_id)
        await self.sql(
            "insert into contact values (:m, :at, :at, '7.20.5', :cpid, 4e9)",
            m=machine_id,
            at=since,
            cpid=CPID,
        )
        if host_id:
            await self.sql(
                "insert into counter values (:m, :p, :at, :host, 0, 0, 0, false, 1)",
                m=machine_id, p=UUID(self.project_id), at=since, host=host_id,
            )  # fmt: skip

    async def say(self, kind: type[MachineFact], machine_id: UUID | None = None, **more: Any) -> None:
        """A fact of a machine."""
        await self.lone.tell(
            kind(
                at=self.clock.now(),
                machine_id=machine_id or self.machine_id,
                name="tides-1",
                workload_id=uuid4(),
                organisation_id=self.ours,
                resource_id=uuid4(),
                cluster_id=uuid4(),
                vcpus=2,
                reason="test",
                **more,
            )
        )

    async def metric(self, name: str) -> float:
        """A figure without labels that the process shows now."""
        async with self.lone.http.get(f"{self.lone.run.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    async def granted(self, by: str = "machine") -> tuple[dict[str, float], float]:
        """Credit by machine or day, and that of strangers."""
        answer = await self.call("GET", f"/v1/grants?by={by}&since={self.began_at.date()}&until=2036-01-01")
        assert answer.body["credit"] == pytest.approx(sum(item["credit"] for item in answer.body["items"]))
        return {item["of"]: item["credit"] for item in answer.body["items"]}, answer.body["others"]


@asynccontextmanager
async def open_service(postgres_url: str) -> AsyncIterator[tuple[Lone, Calendar]]:
    """The service for a module's tests, on a database of its own; it does not wait between its calls to a project."""
    clock, name = Calendar(), f"t_{uuid4().hex}"
    url = await postgres.create_database(postgres_url, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "GAP_S", 0.0)
        async with serve(build, "contribution", url, clock, jitter=0) as lone:
            yield lone, clock
    await postgres.drop_database(postgres_url, name)


@asynccontextmanager
async def open_world(lone: Lone, clock: Calendar) -> AsyncIterator[World]:
    """A project of a test's own; nobody asks it any more when the block has ended."""
    began_at = clock.next_noon()
    async with serving() as project:
        body = {"name": "Lab", "url": project.url, "verify": True}
        made = await lone.ask("POST", "/v1/projects", body)
        world = World(lone, project, clock, made.body["id"], began_at)
        yield world
        await lone.settle()
        await world.sql("update visit set due_at = '2100-01-01', failing_since = null")
