"""Which credential registry tells others: the first, or while that is refused the alternate; once, however late."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from libs.common.auth import Role
from libs.common.clock import WallClock
from libs.common.contracts.action import ActionLoginRefused
from libs.common.contracts.resource import LoginRefused, ResourceChanged, ResourceDegraded
from libs.providers.base import MissingPrivilege
from services.registry.main import build
from services.registry.reconcile import try_first_credentials
from services.registry.usecases import failing_over
from tests.service.lone_service import Answer, Lone, serve
from tests.service.registry_house import FINGERPRINT, PASSWORD, scripted_body, states
from tests.service.scripted_cloud import Script, ScriptedDriver, make_sample

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND, SECRET = "tides-2", "another horse"


class Calendar(WallClock):
    """A date that only a test changes."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at


@dataclass
class House:
    """Registry with one resource, and the cloud behind it."""

    lone: Lone
    clock: Calendar
    script: Script
    path: str = ""

    async def change(self, **changes: Any) -> Answer:
        return await self.lone.ask("PATCH", self.path, changes, headers={"If-Match": "*"})

    async def set(self, username: str = SECOND, password: str = SECRET) -> Answer:
        return await self.change(alternate={"username": username, "password": password})

    async def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.lone.ask("GET", self.path)).body
        return found

    async def told(self) -> tuple[str, str]:
        """User name and password that others were told last."""
        await self.lone.settle()
        newest = states(self.lone)[-1]
        context = "\x00".join((newest.url, "", (newest.thumbprint or "").lower())).encode()
        return newest.username, self.lone.vault.open(newest.sealed_secret, context)

    async def refuse(
        self, revision: int, kind: type[LoginRefused] | type[ActionLoginRefused] = LoginRefused
    ) -> None:
        """A cloud refused what this revision told."""
        resource_id = UUID(self.path.rpartition("/")[2])
        about = {"resource_id": resource_id, "resource_revision": revision, "detail": "no such user"}
        await self.lone.tell(kind(at=self.clock.now(), **about))

    async def beat(self, times: int = 1) -> None:
        """So many replicas at once."""
        database = self.lone.run.services[0].database
        ask = self.lone.run.services[0].beats[1].run.args[2]  # type: ignore[attr-defined]
        await asyncio.gather(*(try_first_credentials(database, self.clock, ask) for _ in range(times)))


@pytest.fixture
async def house(database_url: str, scripted: ScriptedDriver) -> AsyncIterator[House]:
    script, clock = scripted.clouds["vc.example"], Calendar()
    script.others[SECOND], script.samples = SECRET, [make_sample("c1", NOW)]
    async with serve(build, "registry", database_url, clock) as lone:
        made = await lone.ask("POST", "/v1/resources", scripted_body())
        assert made.status == 201, made.body
        script.logins.clear()
        yield House(lone, clock, script, f"/v1/resources/{made.body['id']}")


async def test_a_refused_credential_gives_way_and_comes_back_whatever_comes_twice_or_late(
    house: House,
) -> None:
    await house.refuse(1)
    assert (await house.shown())["revision"] == 1, "there is no alternate yet"
    assert (await house.set()).body["alternate"]["in_use"] is False
    assert await house.told() == ("tides", PASSWORD)

    await house.refuse(2)
    assert await house.told() == (SECOND, SECRET)
    assert states(house.lone)[-1].uses_alternate
    await house.refuse(2, ActionLoginRefused)
    shown = await house.shown()
    assert shown["revision"] == 3, "both had tried the first one"
    assert (shown["username"], shown["health"]["state"]) == ("tides", "degraded")
    assert shown["alternate"]["why"] == "no such user"
    await house.refuse(3)
    assert (await house.shown())["revision"] == 3, "both are refused: nobody goes to and fro"

    house.script.password = "changed"
    house.clock.at += timedelta(minutes=14)
    await house.beat()
    assert house.script.logins[1:] == [], "not before its time"
    house.clock.at += timedelta(minutes=2)
    await house.beat(4)
    assert house.script.logins[1:] == [("tides", PASSWORD)], "one of four replicas tries"
    assert (await house.shown())["alternate"]["why"] == "wrong password"
    house.script.password = PASSWORD
    house.script.missing = (MissingPrivilege("VirtualMachine.Interact.PowerOff", "giving back"),)
    house.clock.at += timedelta(minutes=16)
    await house.beat()
    assert "lacks what it had: VirtualMachine.Interact.PowerOff" in (await house.shown())["alternate"]["why"]
    assert await house.told() == (SECOND, SECRET), "it was made anew without its role"
    house.script.missing = ()
    house.clock.at += timedelta(minutes=16)
    await house.beat(4)
    assert await house.told() == ("tides", PASSWORD)
    shown = await house.shown()
    assert (shown["revision"], shown["alternate"]["in_use"], shown["health"]["state"]) == (
        4,
        False,
        "unknown",
    )
    await house.refuse(2)
    assert (await house.shown())["revision"] == 4, "that was of before"


async def test_who_dies_while_trying_leaves_it_to_the_next_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.set()
    await house.refuse(2)
    house.clock.at += timedelta(minutes=16)

    async def die(*_: object) -> None:
        raise RuntimeError("killed after the cloud had answered")

    with monkeypatch.context() as broken:
        broken.setattr(failing_over, "note_accepted", die)
        with pytest.raises(RuntimeError):
            await house.beat()
    await house.beat()
    assert await house.told() == (SECOND, SECRET)
    house.clock.at += timedelta(minutes=16)
    await house.beat()
    assert await house.told() == ("tides", PASSWORD)
    assert house.script.logins[1:] == [("tides", PASSWORD)] * 2

    await house.refuse((await house.shown())["revision"])
    house.script.missing = (MissingPrivilege("VirtualMachine.Interact.PowerOff", "giving back"),)
    about = {"resource_id": UUID(house.path.rpartition("/")[2]), "cause": "auth", "detail": "no such user"}
    await house.lone.tell(ResourceDegraded(at=house.clock.now(), **about))
    house.clock.at += timedelta(minutes=16)
    await house.beat()
    assert await house.told() == ("tides", PASSWORD), "less is better than an alternate that is refused, too"


async def test_either_is_rotated_in_flight_and_the_first_is_tried_when_it_is_another(house: House) -> None:
    await house.set()
    await house.refuse(2)
    house.script.others[SECOND] = "fresh"
    assert (await house.set(password="fresh")).body["alternate"]["in_use"] is True
    assert await house.told() == (SECOND, "fresh")
    assert (await house.change(settings={"scope": "half"})).status == 200
    assert house.script.logins[-1] == (SECOND, "fresh"), "a refused account is not tried for other settings"
    assert (await house.shown())["alternate"]["in_use"]

    house.script.password = "new"
    assert (await house.change(password=PASSWORD)).field == "password"
    assert (await house.shown())["alternate"]["in_use"]
    assert (await house.change(password="new")).body["alternate"]["in_use"] is False
    assert await house.told() == ("tides", "new")

    await house.refuse((await house.shown())["revision"])
    assert (await house.change(alternate=None)).body["alternate"] is None
    assert await house.told() == ("tides", "new")

    await house.set(password="fresh")
    moved_up = await house.change(username=SECOND, password="fresh", alternate=None)
    assert (moved_up.status, moved_up.body["username"], moved_up.body["alternate"]) == (200, SECOND, None)


async def test_what_an_alternate_must_not_be_is_refused_by_its_field(house: House) -> None:
    same, wrong = await house.set(username="TIDES"), await house.set(password="wrong")
    assert (same.status, same.field, wrong.status, wrong.field) == (
        422, "alternate.username", 422, "alternate.password",
    )  # fmt: skip
    house.script.missing = (MissingPrivilege("VirtualMachine.Interact.PowerOff", "giving back"),)
    less = await house.set()
    assert (less.field, "VirtualMachine.Interact.PowerOff" in less.body["detail"]) == (
        "alternate.username",
        True,
    )
    house.script.missing, house.script.samples = (), []
    blind = await house.set()
    assert (blind.field, "C1" in blind.body["detail"]) == ("alternate.username", True)
    house.script.samples = [make_sample("c1", NOW)]
    unasked = await house.lone.ask(
        "PATCH", f"{house.path}?validate=false", {"alternate": {"username": SECOND, "password": SECRET}},
        headers={"If-Match": "*"},
    )  # fmt: skip
    assert unasked.status == 403
    assert (await house.shown())["alternate"] is None

    await house.set()
    swapped = await house.change(username=SECOND.upper(), password=SECRET)
    assert (swapped.status, swapped.field) == (422, "username"), "what locks one would lock both"
    moved = await house.change(thumbprint=FINGERPRINT, password=PASSWORD)
    assert (moved.status, moved.field) == (422, "alternate")
    both = await house.change(
        thumbprint=FINGERPRINT, password=PASSWORD, alternate={"username": SECOND, "password": SECRET}
    )
    assert both.status == 200, both.body
    await house.refuse(both.body["revision"])
    assert await house.told() == (SECOND, SECRET)
    gone = await house.lone.ask("DELETE", f"{house.path}?abandon=true", role=Role.ADMIN)
    assert gone.status == 409, "its cloud answers: it is no reason to abandon it"
    said = [event for event in house.lone.said if isinstance(event, ResourceChanged)]
    assert not any(SECRET in event.model_dump_json() for event in said)
