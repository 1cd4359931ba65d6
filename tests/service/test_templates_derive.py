"""A version made from another, as templates keeps it: asked for once, ended once, and seen with its reason."""

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.auth import Role
from libs.common.clock import WallClock
from libs.common.contracts.derivation import DerivationChanged, DerivationMoved
from libs.common.contracts.supply import TemplateChanged
from libs.providers.base import Capability
from libs.providers.simulated import Cloud, SimulatedSettings, create_cloud, driver
from services.templates.main import build
from services.templates.reconcile import end_overdue
from tests.service.lone_service import THEIRS, Answer, Lone, serve
from tests.service.test_templates import NOW, PASSWORD, RESOURCE, register, resource

WITH = {"components": ["boinc", "agent"]}


@pytest.fixture
async def templates(database_url: str) -> AsyncIterator[Lone]:
    async with serve(build, "templates", database_url) as lone:
        yield lone


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = create_cloud(f"sim://{uuid4().hex}", PASSWORD)
    yield made
    driver.forget_cloud(made.url)


class Later(WallClock):
    """Two hours from now."""

    def now(self) -> datetime:
        return super().now() + timedelta(hours=2)


async def approved(templates: Lone, cloud: Cloud) -> str:
    """The path of a template whose first version is approved."""
    await templates.tell(resource(templates, cloud.url))
    made = await register(templates)
    path = f"/v1/templates/{made['id']}"
    assert (await templates.ask("POST", f"{path}/versions/1/approve")).status == 200
    return path


async def derive(templates: Lone, path: str, **changes: Any) -> Answer:
    return await templates.ask("POST", f"{path}/versions/1/derive", WITH | changes)


def moved(known_as: str, step: str, **more: Any) -> DerivationMoved:
    values: dict[str, Any] = {"at": NOW, "derivation_id": known_as, "resource_id": RESOURCE, "step": step}
    return DerivationMoved.model_validate(values | {"machine_id": uuid4(), "reason": f"it is {step}"} | more)


async def newest(templates: Lone, path: str) -> dict[str, Any]:
    listed = await templates.ask("GET", f"{path}/derivations", role=Role.VIEWER)
    found: dict[str, Any] = listed.body["items"][0]
    return found


async def test_a_version_comes_of_it_once_and_is_a_draft_or_approved(templates: Lone, cloud: Cloud) -> None:
    path = await approved(templates, cloud)
    asked = await derive(templates, path)
    assert (asked.status, asked.body["state"], asked.body["step"]) == (202, "running", "waiting")
    again = await derive(templates, path)
    assert (again.status, "already" in again.body["detail"]) == (409, True)
    await templates.tell(moved(asked.body["id"], "running", reason="it installs"))
    assert (await newest(templates, path))["reason"] == "it installs"

    made = moved(asked.body["id"], "made", reference="vm-20001", disk_gib=16, guest_os="Debian")
    await templates.tell(made, made, moved(asked.body["id"], "made", reference="vm-20002"))

    done = await newest(templates, path)
    assert (done["state"], done["version"], done["remedy"]) == ("succeeded", 2, None)
    versions = (await templates.ask("GET", path)).body["versions"]
    assert [(v["version"], v["state"], v["reference"], v["components"]) for v in versions] == [
        (1, "approved", "vm-9001", []),
        (2, "draft", "vm-20001", ["agent", "boinc"]),
    ]
    assert versions[1]["derived_from"]["version"] == 1
    assert versions[1]["id"] == asked.body["id"]

    at_once = await derive(templates, path, auto_approve=True, components=["boinc"])
    await templates.tell(moved(at_once.body["id"], "made", reference="vm-20003", disk_gib=16))
    versions = (await templates.ask("GET", path)).body["versions"]
    assert [v["state"] for v in versions] == ["approved", "draft", "approved"]

    late = await derive(templates, path, auto_approve=True)
    await templates.ask("POST", f"{path}/versions/1/revoke")
    await templates.tell(moved(late.body["id"], "made", reference="vm-20004", disk_gib=16))
    failed = await newest(templates, path)
    assert (failed["state"], failed["version"]) == ("failed", None)
    assert "was revoked before it was done" in failed["reason"]
    heard = await templates.hear(11)
    said = {one.id: one for one in heard}.values()
    changed = [one for one in said if isinstance(one, DerivationChanged)]
    changed.sort(key=lambda one: one.revision)
    told = [(one.over, one.kept) for one in changed if str(one.derivation_id) == late.body["id"]]
    assert told == [(False, False), (True, False)]
    assert len([one for one in said if isinstance(one, TemplateChanged)]) == 5


async def test_one_that_is_late_or_ended_has_failed_with_a_remedy(templates: Lone, cloud: Cloud) -> None:
    path = await approved(templates, cloud)
    late = (await derive(templates, path)).body["id"]
    await templates.tell(moved(late, "running", reason="tides-1: it installs"))
    await end_overdue(templates.run.services[0].database, Later())
    failed = await newest(templates, path)
    assert (failed["state"], failed["reason"]) == ("failed", "its time is over: tides-1: it installs")
    assert "proxy" in failed["remedy"]
    await templates.tell(moved(late, "made", reference="vm-20001"))
    assert len((await templates.ask("GET", path)).body["versions"]) == 1

    ended = (await derive(templates, path)).body["id"]
    await templates.tell(moved(ended, "ended", reason="its owner needs the host"))
    assert ((await newest(templates, path))["state"]) == "failed"

    third = (await derive(templates, path)).body["id"]
    cancel = f"{path}/derivations/{third}/cancel"
    assert (await templates.ask("POST", cancel, role=Role.VIEWER)).status == 403
    assert (await templates.ask("POST", cancel, organisation=THEIRS)).status == 404
    assert (await templates.ask("POST", cancel)).body["state"] == "cancelled"
    assert (await templates.ask("POST", cancel)).status == 409
    assert (await templates.ask("POST", f"{path}/derivations/{uuid4()}/cancel")).status == 404

    await derive(templates, path)
    await templates.tell(resource(templates, cloud.url, 2, gone=True))
    await end_overdue(templates.run.services[0].database, WallClock())
    assert (await newest(templates, path))["reason"].startswith("its resource was removed")


async def test_what_cannot_be_derived_is_refused_with_the_reason(templates: Lone, cloud: Cloud) -> None:
    path = await approved(templates, cloud)
    await templates.ask("POST", f"{path}/versions", {"reference": "boinc-worker"})
    for number, status in ((2, 409), (3, 404)):
        assert (await templates.ask("POST", f"{path}/versions/{number}/derive", WITH)).status == status
    for changes, field in (
        ({"components": []}, "components"),
        ({"components": ["docker"]}, "components.0"),
        ({"components": ["ca"]}, "ca_pem"),
        ({"components": ["boinc"], "ca_pem": "x"}, "ca_pem"),
        ({"proxy": "http://proxy"}, "proxy"),
        ({"proxy": "proxy:99999"}, "proxy"),
        ({"within_minutes": 1}, "within_minutes"),
    ):
        refused = await derive(templates, path, **changes)
        assert (refused.status, refused.field) == (422, field), changes
    viewer = await templates.ask("POST", f"{path}/versions/1/derive", WITH, role=Role.VIEWER)
    theirs = await templates.ask("POST", f"{path}/versions/1/derive", WITH, organisation=THEIRS)
    assert (viewer.status, theirs.status) == (403, 404)
    cloud.control.remove_template("boinc-worker")
    assert "no such template" in (await derive(templates, path)).body["detail"]
    cloud.control.set_fault("unavailable", True)
    assert (await derive(templates, path)).status == 503

    poor = create_cloud(f"sim://{uuid4().hex}", PASSWORD, SimulatedSettings(without=(Capability.TEMPLATES,)))
    there = UUID(int=9)
    await templates.tell(resource(templates, poor.url, resource_id=there))
    made = await register(templates, resource_id=str(there))
    other = f"/v1/templates/{made['id']}"
    await templates.ask("POST", f"{other}/versions/1/approve")
    cannot = await derive(templates, other)
    driver.forget_cloud(poor.url)
    assert (cannot.status, "capability" in cannot.body["detail"]) == (409, True)
    assert "by hand" in cannot.body["remedy"]
    assert (await templates.ask("GET", f"{path}/derivations")).body["items"] == []
