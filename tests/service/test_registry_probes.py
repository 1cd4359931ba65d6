"""Activation: a resource that one machine must vouch for before it is lent: registry waits, hears, ends it in time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.auth import Role
from libs.common.clock import WallClock
from libs.common.contracts.probe import ProbeFact, ProbeMoved, ProbeReported, Step
from libs.common.contracts.resource import Mode, ResourceChanged
from libs.providers.simulated import create_cloud, driver
from services.registry.main import build
from services.registry.reconcile import end_late_probes
from tests.service.lone_service import Answer, Lone, serve

PASSWORD = "correct horse"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MACHINE = uuid4()


class Calendar(WallClock):
    """A date that only a test changes."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at


@dataclass
class House:
    """Registry with one resource that must be probed."""

    lone: Lone
    clock: Calendar
    path: str = ""

    async def lend(self, role: Role = Role.OPERATOR, **more: Any) -> Answer:
        return await self.lone.ask("POST", f"{self.path}/mode", {"mode": "lend", **more}, role=role)

    async def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.lone.ask("GET", self.path)).body
        return found

    async def probe(self) -> tuple[str, str, str]:
        """Mode, outcome, and why or what it waits for."""
        shown = await self.shown()
        probe = shown["probe"]
        return shown["mode"], probe["outcome"], probe["why"] or f"{probe['step']}: {probe['reason']}"

    def state(self) -> ResourceChanged:
        """What was last said of the resource."""
        states = [event for event in self.lone.said if isinstance(event, ResourceChanged)]
        return max(states, key=lambda event: event.revision)

    async def open(self, **more: Any) -> UUID:
        answer = await self.lend(**more)
        assert answer.status == 200, answer.body
        assert (answer.body["mode"], answer.body["probe"]["outcome"]) == ("observe", "open")
        await self.lone.settle()
        probe_id = self.state().probe_id
        assert probe_id is not None
        return probe_id

    async def hear(
        self, probe_id: UUID, step: Step, reason: str = "", *, kind: type[ProbeFact] | None = None
    ) -> None:
        by_guest = step in (Step.ENROLLED, Step.CONTACTED, Step.ATTACHED)
        kind = kind or (ProbeReported if by_guest else ProbeMoved)
        machine_id = None if step is Step.WAITING else MACHINE
        resource_id = UUID(self.path.rpartition("/")[2])
        about = {"probe_id": probe_id, "resource_id": resource_id, "machine_id": machine_id}
        await self.lone.tell(kind(at=self.clock.now(), step=step, reason=reason, **about))

    async def later(self, **much: float) -> None:
        self.clock.at += timedelta(**much)
        await end_late_probes(self.lone.run.services[0].database, self.clock)


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    url, clock = f"sim://{uuid4().hex}", Calendar()
    create_cloud(url, PASSWORD)
    try:
        async with serve(build, "registry", database_url, clock) as lone:
            given = {
                "name": "Lab",
                "provider": "simulated",
                "url": url,
                "username": "tides",
                "password": PASSWORD,
            }
            made = await lone.ask("POST", "/v1/resources", given | {"requires_probe": True})
            assert made.body["requires_probe"], made.body
            yield House(lone, clock, f"/v1/resources/{made.body['id']}")
    finally:
        driver.forget_cloud(url)


async def test_a_resource_is_lent_when_its_machine_has_reached_a_project_whatever_comes_twice_or_late(
    house: House,
) -> None:
    probe_id = await house.open(probe_for_s=7200)
    said = house.state()
    assert (said.mode, said.probe_until, said.probe_outcome) == (Mode.OBSERVE, NOW + timedelta(hours=2), "")
    assert (await house.lend()).body["revision"] == said.revision  # again is the same probe
    assert (await house.lone.ask("POST", f"{house.path}/check", {})).status == 409

    await house.hear(probe_id, Step.WAITING, "lab: the owner is busy")
    assert await house.probe() == ("observe", "open", "waiting: lab: the owner is busy")
    await house.hear(probe_id, Step.ENROLLED)
    await house.hear(probe_id, Step.REQUESTED)  # late
    await house.hear(probe_id, Step.RUNNING)
    await house.hear(uuid4(), Step.ATTACHED)  # of another probe
    assert await house.probe() == ("observe", "open", "enrolled: ")
    await house.hear(probe_id, Step.CONTACTED, "the client has not been taken by Lab yet")
    await house.hear(probe_id, Step.ATTACHED)
    await house.hear(probe_id, Step.ATTACHED)
    await house.hear(probe_id, Step.ENDED, "late word")

    shown = await house.shown()
    assert (shown["mode"], shown["activated_at"], shown["probe"]["machine_id"]) == (
        "lend",
        "2026-11-20T12:00:00Z",
        str(MACHINE),
    )
    said = house.state()
    assert (said.mode, said.probe_id, said.probe_outcome) == (
        Mode.LEND,
        None,
        "passed: its machine works for a project",
    )
    for mode in ("paused", "lend", "observe", "lend"):  # once is enough
        answer = await house.lone.ask("POST", f"{house.path}/mode", {"mode": mode})
        assert answer.body["mode"] == mode
    await house.later(days=1)
    assert (await house.shown())["mode"] == "lend"


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([], "no machine could be made"),
        ([(Step.WAITING, "no approved template")], "no machine could be made for it: no approved template"),
        ([(Step.REQUESTED, "no space")], "the cloud has not brought its machine up: no space"),
        ([(Step.REQUESTED, ""), (Step.RUNNING, "")], "its guest was never heard of: it may have no network"),
        ([(Step.RUNNING, ""), (Step.ENROLLED, "")], "its BOINC client never asked its account manager"),
        ([(Step.CONTACTED, "Lab refuses")], "no project took it: Lab refuses"),
    ],
)
async def test_a_probe_that_comes_to_nothing_ends_in_time_and_says_how_far_it_came(
    house: House, steps: list[tuple[Step, str]], why: str
) -> None:
    probe_id = await house.open()
    for step, reason in steps:
        await house.hear(probe_id, step, reason)
    await house.later(minutes=59)
    assert (await house.probe())[1] == "open"
    await house.later(minutes=1)
    mode, outcome, told = await house.probe()
    assert (mode, outcome) == ("observe", "failed")
    assert why in told
    await house.lone.settle()
    assert (house.state().probe_id, house.state().probe_outcome) == (None, f"failed: {told}")
    await house.hear(probe_id, Step.ATTACHED)  # too late: its machine is leaving
    assert (await house.shown())["mode"] == "observe"
    assert await house.open() != probe_id


async def test_two_replicas_end_a_probe_once_and_a_machine_that_is_gone_ends_it_at_once(house: House) -> None:
    probe_id = await house.open()
    await house.hear(probe_id, Step.ENDED, "its host went down")
    assert await house.probe() == ("observe", "failed", "its machine is gone: its host went down")
    await house.open()
    before = (await house.shown())["revision"]
    house.clock.at += timedelta(hours=2)
    database = house.lone.run.services[0].database
    await asyncio.gather(*(end_late_probes(database, house.clock) for _ in range(4)))
    assert (await house.shown())["revision"] == before + 1


async def test_only_an_administrator_lends_without_the_probe_that_is_required(house: House) -> None:
    assert (await house.lend(probe=False)).status == 403
    assert (await house.lone.ask("POST", f"{house.path}/mode", {"mode": "paused"})).status == 200
    assert (await house.lend()).status == 409  # paused first is no way around it
    assert (await house.lone.ask("POST", f"{house.path}/mode", {"mode": "observe"})).status == 200
    await house.open()
    assert (await house.lend(probe=False)).status == 403
    etag = {"If-Match": "*"}
    change = {"requires_probe": False}
    assert (await house.lone.ask("PATCH", house.path, change, headers=etag)).status == 403

    lent = await house.lend(Role.ADMIN, probe=False)
    assert (lent.body["mode"], lent.body["probe"]["outcome"]) == ("lend", "overridden")
    assert lent.body["probe"]["why"] == "someone lent the resource without it"
    await house.lone.settle()
    assert (house.state().mode, house.state().probe_id) == (Mode.LEND, None)
    taken = await house.lone.ask("PATCH", house.path, change, headers=etag, role=Role.ADMIN)
    assert not taken.body["requires_probe"]


async def test_whoever_asks_for_another_mode_takes_the_probe_back(house: House) -> None:
    for mode in ("observe", "paused", "draining"):
        await house.lone.ask("POST", f"{house.path}/mode", {"mode": "observe"})
        await house.open()
        await house.lone.ask("POST", f"{house.path}/mode", {"mode": mode})
        assert await house.probe() == (mode, "withdrawn", f"someone asked for mode {mode}")
    await house.lone.ask("POST", f"{house.path}/mode", {"mode": "observe"})
    await house.open()
    gone = await house.lone.ask("DELETE", house.path, role=Role.ADMIN)
    assert (gone.body["probe"]["outcome"], gone.body["mode"]) == ("withdrawn", "draining")


async def test_a_probe_can_be_had_without_being_required_and_bad_wishes_are_refused(house: House) -> None:
    etag = {"If-Match": "*"}
    await house.lone.ask("PATCH", house.path, {"requires_probe": False}, headers=etag, role=Role.ADMIN)
    wrong = await house.lone.ask("POST", f"{house.path}/mode", {"mode": "paused", "probe": True})
    assert (wrong.status, wrong.field) == (422, "probe")
    for seconds in (0, 1e9, "nan"):
        assert (await house.lend(probe=True, probe_for_s=seconds)).status == 422
    await house.open(probe=True)
    assert (await house.lend()).body["mode"] == "lend"
    assert (await house.probe())[1] == "overridden"
