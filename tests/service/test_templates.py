"""Templates, from outside: registered after a look into the cloud, approved by a person, revoked for good."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.auth import Role
from libs.common.clock import WallClock
from libs.common.contracts.resource import Mode, ResourceChanged
from libs.common.contracts.supply import TemplateChanged, TemplateState
from libs.providers.base import TemplateSeen, sealing_context
from libs.providers.sessions import Sessions
from libs.providers.simulated import Cloud, create_cloud, driver
from services.templates.domain import TRANSITIONS, Verb, follow
from services.templates.main import build
from services.templates.reconcile import look_after_approved
from tests.service.lone_service import OURS, THEIRS, Lone, serve
from tests.service.scripted_cloud import Script, installed

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
RESOURCE = uuid4()
PASSWORD = "correct horse"


@pytest.fixture
async def templates(database_url: str) -> AsyncIterator[Lone]:
    async with serve(build, "templates", database_url) as lone:
        yield lone


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = create_cloud(f"sim://{uuid4().hex}", PASSWORD)
    yield made
    driver.forget_cloud(made.url)


def resource(lone: Lone, url: str, revision: int = 1, **changes: Any) -> ResourceChanged:
    values: dict[str, Any] = {
        "at": NOW, "revision": revision, "resource_id": RESOURCE, "organisation_id": OURS, "name": "vc",
        "provider": "simulated", "url": url, "settings": {}, "username": "tides", "ca_pem": None,
        "thumbprint": None, "mode": Mode.OBSERVE, "interval_s": 20,
        "sealed_secret": lone.vault.seal(PASSWORD, sealing_context(url, None, None)),
    }  # fmt: skip
    return ResourceChanged.model_validate(values | changes)


def wanted(**changes: Any) -> dict[str, Any]:
    return {"name": "worker", "resource_id": str(RESOURCE), "reference": "boinc-worker"} | changes


async def register(templates: Lone, **changes: Any) -> dict[str, Any]:
    made = await templates.ask("POST", "/v1/templates", wanted(**changes))
    assert made.status == 201, made.body
    found: dict[str, Any] = made.body
    return found


def test_only_these_changes_of_state_exist() -> None:
    possible = {(s, v): follow(s, v) for s in TemplateState for v in Verb if follow(s, v)}

    assert possible == dict(TRANSITIONS)
    assert all(state is not TemplateState.REVOKED for state, _ in possible)


async def test_a_template_is_registered_approved_and_revoked_and_workload_hears_each(
    templates: Lone, cloud: Cloud
) -> None:
    await templates.tell(resource(templates, cloud.url))
    made = await register(templates)
    path = f"/v1/templates/{made['id']}/versions"
    assert [(v["version"], v["state"], v["missing"]) for v in made["versions"]] == [(1, "draft", False)]

    assert (await templates.ask("POST", f"{path}/1/approve")).body["state"] == "approved"
    assert (await templates.ask("POST", f"{path}/1/approve")).status == 409
    second = await templates.ask("POST", path, {"reference": "boinc-worker", "disk_gib": 40})
    assert (second.status, second.body["version"], second.body["disk_gib"]) == (201, 2, 40.0)
    assert (await templates.ask("POST", f"{path}/1/revoke")).body["state"] == "revoked"
    assert (await templates.ask("POST", f"{path}/1/approve")).status == 409
    assert (await templates.ask("POST", f"{path}/3/approve")).status == 404

    heard = [event for event in await templates.hear(4) if isinstance(event, TemplateChanged)]
    first = sorted((event for event in heard if event.version == 1), key=lambda event: event.revision)
    assert [(event.revision, event.state) for event in first] == [
        (1, "draft"),
        (2, "approved"),
        (3, "revoked"),
    ]
    assert {(event.name, event.resource_id, event.organisation_id) for event in heard} == {
        ("worker", RESOURCE, OURS)
    }
    assert {event.reference for event in heard} == {first[0].reference}
    read = await templates.ask("GET", f"/v1/templates/{made['id']}", role=Role.VIEWER)
    assert [v["state"] for v in read.body["versions"]] == ["revoked", "draft"]


async def test_what_the_cloud_does_not_have_is_refused_at_its_field(templates: Lone, cloud: Cloud) -> None:
    before = await templates.ask("POST", "/v1/templates", wanted())
    assert (before.status, before.field) == (422, "resource_id")
    await templates.tell(resource(templates, cloud.url))

    for changes, field in (
        ({"reference": "no-such"}, "reference"),
        ({"disk_gib": 1}, "disk_gib"),
        ({"disk_gib": 1e300}, "disk_gib"),
        ({"name": "a\tb"}, "name"),
        ({"resource_id": "x"}, "resource_id"),
        ({"resource_id": str(uuid4())}, "resource_id"),
    ):
        answer = await templates.ask("POST", "/v1/templates", wanted(**changes))
        assert (answer.status, answer.field) == (422, field)
    await register(templates)
    assert (await templates.ask("POST", "/v1/templates", wanted())).status == 409


async def test_an_image_that_a_person_made_says_what_it_is_from_and_what_it_holds(
    templates: Lone, cloud: Cloud
) -> None:
    await templates.tell(resource(templates, cloud.url))
    other = UUID(int=7)
    await templates.tell(resource(templates, cloud.url, resource_id=other))
    first = await register(templates)
    elsewhere = await register(templates, resource_id=str(other))
    source, path = first["versions"][0], f"/v1/templates/{first['id']}"
    made = {"reference": "boinc-worker", "derived_from": source["id"], "components": ["boinc", "agent"]}

    for changes, field in (
        ({"components": ["boinc", "docker"]}, "components.1"),
        ({"derived_from": str(uuid4())}, "derived_from"),
        ({"derived_from": elsewhere["versions"][0]["id"]}, "derived_from"),
    ):
        refused = await templates.ask("POST", f"{path}/versions", made | changes)
        assert (refused.status, refused.field) == (422, field)
    second = await templates.ask("POST", f"{path}/versions", made)
    assert (second.status, second.body["components"]) == (201, ["agent", "boinc"])
    own = {"version_id": source["id"], "name": "worker", "version": 1, "state": "draft"}
    assert second.body["derived_from"] == own
    by_name = await register(templates, name="lab", derived_from=source["id"])
    assert by_name["versions"][0]["derived_from"] == own

    await templates.ask("POST", f"{path}/versions/1/revoke")
    read = (await templates.ask("GET", path)).body["versions"]
    assert [version["derived_from"] and version["derived_from"]["state"] for version in read] == [
        None,
        "revoked",
    ]
    listed = (await templates.ask("GET", "/v1/templates")).body["items"]
    assert listed[-1]["versions"][0]["derived_from"]["state"] == "revoked"
    late = await templates.ask("POST", f"{path}/versions", made)
    assert (late.status, late.field) == (422, "derived_from")
    heard = [event for event in await templates.hear(5) if isinstance(event, TemplateChanged)]
    told = [event for event in heard if str(event.version_id) == second.body["id"]]
    assert [(str(event.derived_from), event.components) for event in told] == [
        (source["id"], ("agent", "boinc"))
    ]


async def test_a_template_that_no_machine_can_be_made_from_is_refused_with_the_reason(
    templates: Lone, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfit = TemplateSeen("vm-1", "boinc-worker", 10.0, "Windows", unfit="its guest is Windows (win10)")

    async def see(*_: object) -> TemplateSeen:
        return unfit

    monkeypatch.setattr("services.templates.usecases.look_up", see)
    await templates.tell(resource(templates, cloud.url))

    answer = await templates.ask("POST", "/v1/templates", wanted())

    assert (answer.status, answer.field) == (422, "reference")
    assert "its guest is Windows (win10)" in answer.body["detail"]
    assert "cloud-init" in answer.body["remedy"]
    assert (await templates.ask("GET", "/v1/templates")).body["items"] == []


async def test_a_cloud_that_does_not_answer_or_knows_us_not_is_told_apart(
    templates: Lone, cloud: Cloud
) -> None:
    await templates.tell(resource(templates, cloud.url))
    cloud.control.set_fault("unavailable", True)
    silent = await templates.ask("POST", "/v1/templates", wanted())
    cloud.control.clear_faults()
    wrong = templates.vault.seal("wrong", sealing_context(cloud.url, None, None))
    await templates.tell(resource(templates, cloud.url, 2, sealed_secret=wrong))

    refused = await templates.ask("POST", "/v1/templates", wanted())

    assert (silent.status, silent.headers["retry-after"]) == (503, "30")
    assert (refused.status, refused.field) == (422, "resource_id")
    assert PASSWORD not in str(refused.body)
    await templates.tell(resource(templates, cloud.url, 1))
    assert (await templates.ask("POST", "/v1/templates", wanted())).status == 422
    await templates.tell(resource(templates, cloud.url, 3))
    await register(templates)


async def test_an_approved_version_that_vanishes_is_shown_as_missing_until_it_is_back(
    templates: Lone, cloud: Cloud
) -> None:
    await templates.tell(resource(templates, cloud.url))
    approved, draft = await register(templates), await register(templates, name="draft")
    await templates.ask("POST", f"/v1/templates/{approved['id']}/versions/1/approve")
    cloud.control.remove_template("boinc-worker")

    await look(templates)
    assert (await missing(templates, approved), await missing(templates, draft)) == (True, False)

    cloud.control.set_fault("unavailable", True)
    await look(templates)
    assert await missing(templates, approved)

    cloud.control.clear_faults()
    cloud.control.add_template("boinc-worker")
    await look(templates)
    assert not await missing(templates, approved)


async def test_one_driver_that_breaks_does_not_stop_the_look_at_the_others(
    templates: Lone, cloud: Cloud, tmp_path: Path
) -> None:
    made = []
    for number in (1, 2):
        one = UUID(int=number)
        await templates.tell(resource(templates, cloud.url, resource_id=one))
        made.append(await register(templates, name=f"of {number}", resource_id=str(one)))
        await templates.ask("POST", f"/v1/templates/{made[-1]['id']}/versions/1/approve")
    cloud.control.remove_template("boinc-worker")
    with installed(tmp_path) as scripted:
        scripted.clouds["vc.example"] = Script(password=PASSWORD)
        url = "https://vc.example/"
        sealed = templates.vault.seal(PASSWORD, sealing_context(url, None, None))
        broken = {"provider": "scripted", "sealed_secret": sealed, "resource_id": UUID(int=1)}
        await templates.tell(resource(templates, url, 2, **broken))

        await look(templates)

        assert scripted.clouds["vc.example"].opened == 1
    assert [await missing(templates, one) for one in made] == [False, True]


async def look(templates: Lone) -> None:
    """What the beat does every ten minutes."""
    sessions = Sessions(templates.vault, WallClock())
    await look_after_approved(templates.run.services[0].database, sessions, WallClock(), UUID(int=0))
    await sessions.aclose()


async def missing(templates: Lone, made: dict[str, Any]) -> bool:
    found = await templates.ask("GET", f"/v1/templates/{made['id']}")
    return bool(found.body["versions"][0]["missing"])


async def test_lists_roles_and_organisations(templates: Lone, cloud: Cloud) -> None:
    await templates.tell(resource(templates, cloud.url))
    made = [await register(templates, name=f"worker {number}") for number in range(3)]
    path = f"/v1/templates/{made[0]['id']}"

    first = (await templates.ask("GET", f"/v1/templates?limit=2&resource_id={RESOURCE}")).body
    rest = (await templates.ask("GET", f"/v1/templates?cursor={first['next_cursor']}")).body
    assert [item["id"] for item in first["items"] + rest["items"]] == [item["id"] for item in made]
    assert (await templates.ask("GET", f"/v1/templates?resource_id={uuid4()}")).body["items"] == []
    assert (await templates.ask("GET", path, role=None)).status == 401
    assert (await templates.ask("POST", f"{path}/versions/1/approve", role=Role.VIEWER)).status == 403
    assert (await templates.ask("POST", f"{path}/versions/1/approve", organisation=THEIRS)).status == 404
    foreign = await templates.ask("POST", "/v1/templates", wanted(name="x"), organisation=THEIRS)
    assert foreign.field == "resource_id"
    assert (await templates.ask("GET", path, role=Role.ADMIN, organisation=THEIRS)).status == 200
    assert (await templates.ask("POST", f"{path}/versions/{2**40}/approve")).status == 422
