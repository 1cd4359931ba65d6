"""Registry, from outside: what people can do with resources, and what the other services hear."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.auth import Role
from libs.common.contracts.action import ResourceReleased, SweepStopped
from libs.common.contracts.resource import Mode, ResourceChanged
from libs.common.ids import new_id
from libs.providers.base import Blocker, Cause, MissingPrivilege, Rejected, Unavailable
from libs.providers.simulated import create_cloud
from libs.providers.simulated import driver as simulated
from services.registry.main import build
from tests.service.lone_service import OURS, THEIRS, Answer, Lone, serve
from tests.service.scripted_cloud import Script, ScriptedDriver, installed
from tests.support import until

PASSWORD = "correct horse"
FINGERPRINT = ":".join(["AB"] * 32)


@pytest.fixture
async def registry(database_url: str) -> AsyncIterator[Lone]:
    async with serve(build, "registry", database_url) as lone:
        yield lone


@pytest.fixture
def url() -> Iterator[str]:
    address = f"sim://{uuid4().hex}"
    create_cloud(address, PASSWORD)
    yield address
    simulated.forget_cloud(address)


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[ScriptedDriver]:
    with installed(tmp_path) as driver:
        driver.clouds["vc.example"] = Script()
        yield driver


def body(url: str, **changes: Any) -> dict[str, Any]:
    given = {
        "name": f"Lab at {url}"[:100], "provider": "simulated", "url": url, "username": "tides", "password": PASSWORD,
    }  # fmt: skip
    return given | changes


def scripted_body(host: str = "vc.example", **changes: Any) -> dict[str, Any]:
    return body(f"https://{host}/sdk", provider="scripted", **changes)


async def register(registry: Lone, given: dict[str, Any], **who: Any) -> dict[str, Any]:
    made = await registry.ask("POST", "/v1/resources", given, **who)
    assert made.status == 201, made.body
    assert made.headers["location"] == f"/v1/resources/{made.body['id']}"
    found: dict[str, Any] = made.body
    return found


async def patch(registry: Lone, resource: dict[str, Any], changes: dict[str, Any], etag: str = "*") -> Answer:
    path = f"/v1/resources/{resource['id']}"
    return await registry.ask("PATCH", path, changes, headers={"If-Match": etag})


async def read(registry: Lone, resource: dict[str, Any]) -> dict[str, Any]:
    answer = await registry.ask("GET", f"/v1/resources/{resource['id']}", role=Role.VIEWER)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.body
    return found


def states(registry: Lone) -> list[ResourceChanged]:
    """What others know after all that was said, oldest first."""
    said = {event.id: event for event in registry.said if isinstance(event, ResourceChanged)}
    return sorted(said.values(), key=lambda event: event.revision)


async def count(registry: Lone) -> int:
    return len((await registry.ask("GET", "/v1/resources", role=Role.ADMIN)).body["items"])


async def test_a_registered_cloud_is_told_and_its_modes_too(registry: Lone, url: str) -> None:
    made = await register(registry, body(url))
    path = f"/v1/resources/{made['id']}"

    lent = await registry.ask("POST", f"{path}/mode", {"mode": "lend"})
    again = await registry.ask("POST", f"{path}/mode", {"mode": "lend"})

    assert (lent.status, lent.body["mode"], lent.headers["etag"]) == (200, "lend", '"2"')
    assert again.headers["etag"] == '"2"'
    await registry.hear(2)
    first, second = states(registry)
    assert (first.revision, first.mode, first.organisation_id) == (1, Mode.OBSERVE, OURS)
    assert (second.revision, second.mode, second.interval_s) == (2, Mode.LEND, 20.0)


async def test_what_the_cloud_is_is_shown_and_the_password_never(
    registry: Lone, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    made = await register(registry, body(url))
    seen = await read(registry, made)
    listed = await registry.ask("GET", "/v1/resources", role=Role.VIEWER)
    await registry.hear(1)

    facts = seen["validation"]
    assert (facts["ok"], facts["product"]) == (True, "Tides simulated cloud")
    assert [cluster["cores"] for cluster in facts["clusters"]] == [96, 64, 64]
    assert facts["missing"] == []
    assert "limits" in seen["capabilities"]
    assert seen["health"]["state"] == "unknown"
    logged = capfd.readouterr()
    everything = f"{made}{seen}{listed.body}{registry.said}{logged.out}{logged.err}"
    assert PASSWORD not in everything
    assert states(registry)[0].sealed_secret not in f"{made}{seen}{listed.body}{logged.out}{logged.err}"


UNACCEPTABLE: list[tuple[str, object]] = [
    ("name", ""),
    ("name", "   "),
    ("name", "x" * 101),
    ("name", "two\nlines"),
    ("name", "bell\x07"),
    ("name", "right\u202eleft"),
    ("name", 7),
    ("provider", "nimbus"),
    ("provider", "../simulated"),
    ("url", ""),
    ("url", "https://tides:secret@vc.example/"),
    ("url", "sim://user@cloud"),
    ("url", "no address"),
    ("url", "https://[::1"),
    ("url", "https://vc.example:99999"),
    ("url", "https://vc.example/?token=secret"),
    ("url", "https://vc.example"),
    ("url", "sim://" + "x" * 3000),
    ("username", ""),
    ("username", "a\x1bb"),
    ("password", ""),
    ("password", None),
    ("thumbprint", "AB:CD"),
    ("thumbprint", "Z" * 64),
    ("ca_pem", "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----"),
    ("ca_pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"),
    ("settings", {"scenario": "moon"}),
    ("settings", {"colour": "blue"}),
    ("settings", []),
    ("interval_s", 0.5),
    ("interval_s", 301),
    ("organisation_id", str(THEIRS)),
]


async def test_what_cannot_be_taken_is_refused_by_its_field(registry: Lone, url: str) -> None:
    for field, value in UNACCEPTABLE:
        answer = await registry.ask("POST", "/v1/resources", body(url) | {field: value})

        assert answer.status == 422, (field, value, answer.body)
        assert (answer.field or "").split(".")[0] == field, (field, value, answer.body)
        assert answer.body["detail"]
        assert "secret" not in str(answer.body), answer.body
    assert await count(registry) == 0
    assert registry.said == []


async def test_hostile_names_are_only_text(registry: Lone, scripted: ScriptedDriver) -> None:
    names = [
        "../../etc/passwd",
        "'; drop table resource; --",
        "$(reboot) `id`",
        "<script>alert(1)</script>",
        "Zürich %s 🌊",
    ]
    for number, name in enumerate(names):
        scripted.clouds[f"vc{number}.example"] = Script(instance_id=f"instance-{number}")
        made = await register(registry, scripted_body(f"vc{number}.example", name=name))

        found = await registry.ask("GET", "/v1/resources", params={"name": name})
        assert [item["name"] for item in found.body["items"]] == [name]
        assert (await read(registry, made))["name"] == name


async def test_a_refused_login_names_the_password_and_keeps_nothing(registry: Lone, url: str) -> None:
    answer = await registry.ask("POST", "/v1/resources", body(url, password="wrong"))

    assert (answer.status, answer.field) == (422, "password")
    assert answer.body["remedy"]
    assert await count(registry) == 0


REFUSALS: list[tuple[Exception, str, str]] = [
    (Rejected(Cause.TLS, f"self-signed certificate, SHA-256 {FINGERPRINT}"), "thumbprint", FINGERPRINT),
    (Rejected(Cause.TLS, "unknown issuer"), "thumbprint", "ca_pem"),
    (Rejected(Cause.PERMISSION, "no read-only role"), "username", "read-only"),
    (Rejected(Cause.NOT_FOUND, "no cluster Moon"), "settings", "settings"),
    (Unavailable(Cause.UNREACHABLE, "connection refused"), "url", "firewall"),
    (Unavailable(Cause.TIMEOUT, "no answer"), "url", "firewall"),
    (KeyError("the driver's own mistake with correct horse"), "url", "log"),
]


async def test_a_refusal_names_field_and_remedy_and_keeps_nothing(
    registry: Lone, scripted: ScriptedDriver
) -> None:
    for refusal, field, remedy in REFUSALS:
        scripted.clouds["vc.example"].refuse = refusal

        answer = await registry.ask("POST", "/v1/resources", scripted_body())

        assert (answer.status, answer.field) == (422, field), refusal
        assert remedy in answer.body["remedy"]
        assert PASSWORD not in str(answer.body)
    assert await count(registry) == 0


async def test_a_cloud_that_hangs_is_given_up(
    registry: Lone, scripted: ScriptedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.registry.api.probe.WITHIN_S", 0.2)
    scripted.clouds["vc.example"].hang = True

    answer = await registry.ask("POST", "/v1/resources", scripted_body())

    assert (answer.status, answer.field) == (422, "url")


async def test_missing_privileges_are_shown_with_what_they_disable(
    registry: Lone, scripted: ScriptedDriver
) -> None:
    script = scripted.clouds["vc.example"]
    script.missing = (MissingPrivilege("Resource.ApplyRecommendation", "placing machines"),)
    made = await register(registry, scripted_body())

    script.missing = ()
    fixed = await registry.ask("POST", f"/v1/resources/{made['id']}/validate")

    assert made["validation"]["missing"] == [
        {"privilege": "Resource.ApplyRecommendation", "disables": "placing machines"}
    ]
    assert (fixed.status, fixed.body["missing"], fixed.body["warnings"]) == (200, [], ["a warning"])
    assert (await read(registry, made))["validation"]["missing"] == []
    assert script.opened == script.closed == 2


async def test_what_stands_against_lending_is_named_until_it_is_mended_and_validated_again(
    registry: Lone, scripted: ScriptedDriver
) -> None:
    script = scripted.clouds["vc.example"]
    script.blockers = (
        Blocker("no_network", "No network is named.", "Set `network`."),
        Blocker("read_only_licence", "The API only reads.", "Buy a licence."),
    )
    made = await register(registry, scripted_body())
    path = f"/v1/resources/{made['id']}"
    assert made["validation"]["blockers"][0] == {
        "code": "no_network", "detail": "No network is named.", "remedy": "Set `network`.",
    }  # fmt: skip

    refused = await registry.ask("POST", f"{path}/mode", {"mode": "lend"})
    script.blockers = ()
    still = await registry.ask("POST", f"{path}/mode", {"mode": "lend"})
    await registry.ask("POST", f"{path}/validate")
    lent = await registry.ask("POST", f"{path}/mode", {"mode": "lend"})

    assert (refused.status, still.status) == (409, 409)
    assert refused.body["detail"] == "No network is named. The API only reads."
    assert refused.body["remedy"] == "Set `network`. Buy a licence. Then validate the resource again."
    assert (lent.status, lent.body["mode"]) == (200, "lend")
    assert (await registry.ask("POST", f"{path}/mode", {"mode": "paused"})).status == 200


async def test_a_failed_validation_is_answered_and_remembered(
    registry: Lone, scripted: ScriptedDriver
) -> None:
    made = await register(registry, scripted_body())
    scripted.clouds["vc.example"].password = "changed"

    answer = await registry.ask("POST", f"/v1/resources/{made['id']}/validate")

    assert (answer.status, answer.field) == (422, "password")
    seen = (await read(registry, made))["validation"]
    assert (seen["ok"], seen["error"]["cause"], seen["clusters"]) == (False, "auth", [])


async def test_without_validation_the_cloud_is_not_asked(registry: Lone, scripted: ScriptedDriver) -> None:
    unasked, given = "/v1/resources?validate=false", scripted_body(password="wrong")
    squatting = await registry.ask("POST", unasked, given, role=Role.OPERATOR)
    answer = await registry.ask("POST", unasked, given, role=Role.ADMIN)

    assert (squatting.status, answer.status, answer.body["validation"]) == (403, 201, None)
    move = {"url": "https://theirs.example/sdk", "password": "wrong"}
    for role, status in ((Role.OPERATOR, 403), (Role.ADMIN, 200)):
        path = f"/v1/resources/{answer.body['id']}?validate=false"
        moved = await registry.ask("PATCH", path, move, headers={"If-Match": "*"}, role=role)
        assert moved.status == status
    assert scripted.clouds["vc.example"].logins == []


async def test_a_slow_validation_keeps_nothing_of_what_has_changed(
    registry: Lone, scripted: ScriptedDriver
) -> None:
    slow = scripted.clouds["vc.example"]
    scripted.clouds["new.example"] = Script(instance_id="instance-2")
    made = await register(registry, scripted_body())
    slow.no_facts = asyncio.Event()
    asking = asyncio.create_task(registry.ask("POST", f"/v1/resources/{made['id']}/validate"))
    await until(lambda: slow.opened == 2, what="the validation to be under way")
    change = {"url": "https://new.example/sdk", "password": PASSWORD}
    assert (await patch(registry, made, change)).status == 200
    moved = await read(registry, made)
    slow.instance_id = "instance-3"
    slow.no_facts.set()

    late = await asking

    assert (late.status, late.body["remedy"]) == (409, "Validate it again.")
    assert await read(registry, made) == moved
    again = await registry.ask("POST", "/v1/resources", scripted_body("new.example"))
    assert again.status == 409, "the identity of the new address is the one that is kept"


async def test_one_cloud_is_registered_once(registry: Lone, scripted: ScriptedDriver) -> None:
    scripted.clouds["vc2.example"] = Script()
    scripted.clouds["other.example"] = Script(instance_id="instance-2")
    made = await register(registry, scripted_body())

    spelled = await registry.ask("POST", "/v1/resources", scripted_body("VC.example"))
    elsewhere = await registry.ask("POST", "/v1/resources", scripted_body("vc2.example"))
    stranger = await registry.ask("POST", "/v1/resources", scripted_body(), organisation=THEIRS)

    assert (spelled.status, spelled.field) == (409, "url")
    assert made["id"] in spelled.body["detail"]
    assert (elsewhere.status, stranger.status) == (409, 409)
    assert made["id"] in elsewhere.body["detail"]
    assert made["id"] not in stranger.body["detail"]
    await register(registry, scripted_body("other.example"))
    await register(registry, scripted_body("vc2.example", settings={"scope": "east"}))
    assert await count(registry) == 3


async def test_of_two_who_register_at_once_one_wins(registry: Lone, scripted: ScriptedDriver) -> None:
    scripted.clouds["vc2.example"] = Script()
    hosts = ["vc.example", "vc2.example"] * 3
    answers = await asyncio.gather(
        *(registry.ask("POST", "/v1/resources", scripted_body(host)) for host in hosts)
    )

    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409, 409, 409]
    assert len(await registry.hear(1)) == 1


async def test_a_change_names_what_it_was_made_from(registry: Lone, url: str) -> None:
    made = await register(registry, body(url))
    path = f"/v1/resources/{made['id']}"

    silent = await registry.ask("PATCH", path, {"name": "New"})
    good = await patch(registry, made, {"name": "New", "interval_s": 60}, '"1"')
    late = await patch(registry, made, {"name": "Newer"}, '"1"')

    assert (silent.status, good.status, late.status) == (428, 200, 412)
    assert (good.body["name"], good.headers["etag"]) == ("New", '"2"')
    await registry.hear(2)
    assert (states(registry)[1].name, states(registry)[1].interval_s) == ("New", 60.0)


async def test_another_address_or_pin_needs_the_password(registry: Lone, scripted: ScriptedDriver) -> None:
    scripted.clouds["evil.example"] = evil = Script()
    made = await register(registry, scripted_body())

    for change in (
        {"url": "https://evil.example/sdk"},
        {"thumbprint": FINGERPRINT},
        {"url": "https://evil.example/sdk", "username": "somebody"},
    ):
        answer = await patch(registry, made, change)
        assert (answer.status, answer.field) == (422, "password"), change
        assert answer.body["remedy"]
    unasked = await registry.ask(
        "PATCH",
        f"/v1/resources/{made['id']}?validate=false",
        {"url": "https://evil.example/sdk"},
        headers={"If-Match": "*"},
    )
    assert (unasked.status, unasked.field) == (422, "password")
    assert evil.logins == []
    assert (await read(registry, made))["revision"] == 1


async def test_a_moved_cloud_is_validated_at_its_new_address(
    registry: Lone, scripted: ScriptedDriver
) -> None:
    scripted.clouds["new.example"] = Script(password="fresh")
    made = await register(registry, scripted_body())
    change = {"url": "https://new.example/sdk", "thumbprint": FINGERPRINT}

    wrong = await patch(registry, made, change | {"password": PASSWORD})
    good = await patch(registry, made, change | {"password": "fresh"})

    assert (wrong.status, wrong.field) == (422, "password")
    assert (good.status, good.body["url"], good.body["thumbprint"]) == (200, change["url"], FINGERPRINT)
    assert scripted.clouds["new.example"].logins == [("tides", PASSWORD), ("tides", "fresh")]
    assert (await registry.ask("POST", f"/v1/resources/{made['id']}/validate")).status == 200


BAD_CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"provider": "vsphere"}, "provider"),
    ({"url": None}, "url"),
    ({"name": "a\nb"}, "name"),
    ({"interval_s": 0}, "interval_s"),
    ({"settings": {"scope": 7}}, "settings.scope"),
    ({"password": ""}, "password"),
    ({"username": ""}, "username"),
]


async def test_a_bad_change_is_refused_by_its_field(registry: Lone, scripted: ScriptedDriver) -> None:
    made = await register(registry, scripted_body())

    for change, field in BAD_CHANGES:
        answer = await patch(registry, made, change)
        assert (answer.status, answer.field) == (422, field), change
    assert (await read(registry, made))["revision"] == 1


async def test_a_deleted_resource_drains_and_ends_when_it_is_released(registry: Lone, url: str) -> None:
    made = await register(registry, body(url))
    path = f"/v1/resources/{made['id']}"

    gone = await registry.ask("DELETE", path, role=Role.ADMIN)
    again = await registry.ask("DELETE", path, role=Role.ADMIN)
    forced = await registry.ask("DELETE", f"{path}?force=true", role=Role.ADMIN)

    assert (gone.status, gone.body["mode"], gone.body["deleting"]) == (202, "draining", True)
    assert (again.headers["etag"], forced.headers["etag"]) == ('"2"', '"3"')
    assert (await registry.ask("POST", f"{path}/mode", {"mode": "lend"})).status == 409
    assert (await patch(registry, made, {"name": "No"})).status == 409
    await registry.hear(3)
    now = states(registry)[0].at
    await registry.tell(ResourceReleased(at=now, resource_id=UUID(made["id"]), revision=1))
    assert (await registry.ask("GET", path)).status == 200
    await registry.tell(ResourceReleased(at=now, resource_id=UUID(made["id"]), revision=2))
    assert (await registry.ask("GET", path)).status == 404
    await registry.hear(4)
    assert [(event.mode.value, event.force, event.gone) for event in states(registry)] == [
        ("observe", False, False), ("draining", False, False), ("draining", True, False), ("draining", True, True),
    ]  # fmt: skip
    assert states(registry)[-1].sealed_secret == ""
    assert (await register(registry, body(url)))["revision"] == 1


async def test_a_drained_resource_stays_and_can_be_deleted_at_once(registry: Lone, url: str) -> None:
    made = await register(registry, body(url))
    path = f"/v1/resources/{made['id']}"
    await registry.ask("POST", f"{path}/mode", {"mode": "draining"})
    await registry.settle()
    await registry.tell(ResourceReleased(at=states(registry)[0].at, resource_id=UUID(made["id"])))

    assert (await read(registry, made))["released_at"] is not None
    assert (await registry.ask("DELETE", path, role=Role.ADMIN)).status == 202
    assert (await registry.ask("GET", path)).status == 404


async def test_a_release_that_nobody_waits_for_changes_nothing(registry: Lone, url: str) -> None:
    made = await register(registry, body(url))
    path = f"/v1/resources/{made['id']}"
    await registry.ask("POST", f"{path}/mode", {"mode": "draining"})
    await registry.ask("POST", f"{path}/mode", {"mode": "lend"})
    await registry.settle()

    await registry.tell(ResourceReleased(at=states(registry)[0].at, resource_id=UUID(made["id"]), revision=2))

    seen = await read(registry, made)
    assert (seen["mode"], seen["released_at"]) == ("lend", None)


async def test_only_draining_can_be_forced(registry: Lone, url: str) -> None:
    made = await register(registry, body(url))
    path = f"/v1/resources/{made['id']}/mode"

    bad = await registry.ask("POST", path, {"mode": "lend", "force": True})
    unknown = await registry.ask("POST", path, {"mode": "party"})
    good = await registry.ask("POST", path, {"mode": "draining", "force": True})

    assert (bad.status, bad.field) == (422, "force")
    assert (unknown.status, unknown.field) == (422, "mode")
    assert (good.status, good.body["force"]) == (200, True)


async def test_roles_and_organisations(registry: Lone, url: str) -> None:
    made = await register(registry, body(url))
    path = f"/v1/resources/{made['id']}"

    async def status(method: str, where: str, role: Role | None, given: Any = None, **more: Any) -> int:
        return (await registry.ask(method, where, given, role=role, **more)).status

    assert await status("GET", path, None) == 401
    assert await status("GET", path, Role.SERVICE) == 403
    assert await status("POST", "/v1/resources", Role.VIEWER, body(url)) == 403
    assert await status("PATCH", path, Role.VIEWER, {"name": "x"}) == 403
    assert await status("POST", f"{path}/mode", Role.VIEWER, {"mode": "lend"}) == 403
    assert await status("POST", f"{path}/validate", Role.VIEWER) == 403
    assert await status("DELETE", path, Role.OPERATOR) == 403
    for method, where, given in [
        ("GET", path, None),
        ("PATCH", path, {"name": "x"}),
        ("POST", f"{path}/mode", {"mode": "lend"}),
        ("POST", f"{path}/validate", None),
    ]:
        found = await status(
            method, where, Role.OPERATOR, given, organisation=THEIRS, headers={"If-Match": "*"}
        )
        assert found == 404, (method, where)
    theirs = await registry.ask("GET", "/v1/resources", organisation=THEIRS)
    everybody = await registry.ask("GET", "/v1/resources", organisation=THEIRS, role=Role.ADMIN)
    assert (theirs.body["items"], len(everybody.body["items"])) == ([], 1)


async def test_a_list_comes_in_pages(registry: Lone, scripted: ScriptedDriver) -> None:
    for number in range(5):
        scripted.clouds[f"vc{number}.example"] = Script(instance_id=f"instance-{number}")
        await register(registry, scripted_body(f"vc{number}.example", name=f"Lab {number}"))

    names: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await registry.ask("GET", "/v1/resources", params=params)).body
        names += [item["name"] for item in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break

    assert names == [f"Lab {number}" for number in range(5)]
    assert (await registry.ask("GET", "/v1/resources?cursor=nonsense")).field == "cursor"
    assert (await registry.ask("GET", "/v1/resources?mode=lend")).body["items"] == []


async def test_the_sweepers_alarm_stays_until_somebody_has_seen_it(registry: Lone, url: str) -> None:
    made = await register(registry, body(url))
    await registry.settle()
    alarm = SweepStopped(
        at=states(registry)[0].at, resource_id=UUID(made["id"]), orphans=9, machines=10, reason="too many"
    )
    await registry.tell(alarm, alarm.model_copy(update={"id": new_id(), "resource_id": uuid4()}))

    assert (await read(registry, made))["alarm"]["orphans"] == 9
    cleared = await registry.ask("DELETE", f"/v1/resources/{made['id']}/alarm")
    assert (cleared.status, cleared.body["alarm"]) == (200, None)
