"""A cloud that does not answer can be given up, and only such a one; the answer says what may run there still."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.auth import Role
from libs.common.contracts.action import MachineLeft, ResourceAbandoned
from libs.common.contracts.resource import ResourceChanged, ResourceDegraded
from libs.providers.simulated import create_cloud, driver
from services.registry.main import build
from tests.service.identity_support import ShiftedClock
from tests.service.lone_service import THEIRS, Answer, Lone, serve

PASSWORD = "correct horse"


class Site:
    """Registry on a clock that is moved by hand, with one cloud registered."""

    def __init__(self, registry: Lone, clock: ShiftedClock, given: dict[str, Any], resource_id: UUID) -> None:
        self.registry, self.clock, self.given, self.id = registry, clock, given, resource_id

    async def remove(self, wish: str, role: Role = Role.ADMIN) -> Answer:
        return await self.registry.ask("DELETE", f"/v1/resources/{self.id}?{wish}", role=role)

    async def degrade(self) -> None:
        event = ResourceDegraded(
            at=self.clock.now(), resource_id=self.id, cause="unreachable", detail="no route to host"
        )
        await self.registry.tell(event)

    def word(self, *machines: MachineLeft) -> ResourceAbandoned:
        return ResourceAbandoned(at=self.clock.now(), resource_id=self.id, reason="x", machines=machines)


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    clock, url = ShiftedClock(), f"sim://{uuid4().hex}"
    create_cloud(url, PASSWORD)
    given = {"name": "Lab", "provider": "simulated", "url": url, "username": "tides", "password": PASSWORD}
    try:
        async with serve(build, "registry", database_url, clock) as registry:
            made = await registry.ask("POST", "/v1/resources", given)
            assert made.status == 201, made.body
            yield Site(registry, clock, given, UUID(made.body["id"]))
    finally:
        driver.forget_cloud(url)


async def test_a_cloud_that_is_silent_for_long_enough_is_given_up_and_its_address_is_free(site: Site) -> None:
    answers = await site.remove("abandon=true")
    assert (answers.status, "force=true" in answers.body["remedy"]) == (409, True)
    assert (await site.remove("abandon=true&force=true")).field == "force"
    await site.degrade()
    early = await site.remove("abandon=true")
    assert early.status == 409
    assert "unreachable" in early.body["detail"]
    assert f"{site.clock.now() + timedelta(minutes=10):%H:%M UTC}" in early.body["remedy"]
    assert (await site.remove("abandon=true", role=Role.OPERATOR)).status == 403
    site.clock.shift += timedelta(minutes=11)

    asked = asyncio.create_task(site.remove("abandon=true"))
    left = MachineLeft(uuid4(), "tides-1", uuid4(), "East", "host-9", "running", "on")
    await site.registry.hear(2)
    await site.registry.tell(site.word(left))
    given_up = await asked

    assert (given_up.status, given_up.headers["location"]) == (202, f"/v1/abandonments/{site.id}")
    (machine,) = given_up.body["machines"]
    assert (machine["name"], machine["cluster"], machine["host"]) == ("tides-1", "East", "host-9")
    assert "tides-<machine id>" in given_up.body["find"]
    last = site.registry.said[-1]
    assert isinstance(last, ResourceChanged)
    assert (last.gone, last.sealed_secret) == (True, "")
    assert last.abandoned == given_up.body["reason"]
    for words in ("abandoned by someone", "the cloud was not asked", "(unreachable)"):
        assert words in last.abandoned

    await site.registry.tell(site.word())  # of a workload that has lost its database
    assert (await site.remove("abandon=true")).body == given_up.body
    assert (await site.remove("force=true")).status == 404
    mine = await site.registry.ask("GET", "/v1/abandonments", role=Role.VIEWER)
    assert mine.body["items"] == [given_up.body]
    path = f"/v1/abandonments/{site.id}"
    assert (await site.registry.ask("GET", path, organisation=THEIRS)).status == 404
    again = await site.registry.ask("POST", "/v1/resources", site.given)
    assert again.status == 201
    assert again.body["id"] != str(site.id)


async def test_what_is_drained_by_force_for_an_hour_without_an_end_is_given_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.registry.api.abandonments._LOOKS", 0)
    assert (await site.remove("force=false")).status == 202
    site.clock.shift += timedelta(hours=2)
    assert (await site.remove("abandon=true")).status == 409
    assert (await site.remove("force=true")).status == 202
    site.clock.shift += timedelta(minutes=59)
    assert (await site.remove("force=true")).status == 202
    assert "by force since" in (await site.remove("abandon=true")).body["detail"]
    site.clock.shift += timedelta(minutes=2)

    given_up = await site.remove("abandon=true")

    assert (given_up.status, given_up.body["machines"]) == (202, None)
    assert "by force has come to no end" in given_up.body["reason"]
