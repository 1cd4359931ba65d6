"""Registry, from outside: what people can do with resources, and what the other services hear."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.auth import Role
from libs.common.contracts.action import ResourceReleased, SweepStopped
from libs.common.contracts.resource import Mode
from libs.common.ids import new_id
from tests.service.lone_service import OURS, THEIRS, Lone
from tests.service.registry_house import PASSWORD, body, count, patch, read, register, scripted_body, states
from tests.service.scripted_cloud import Script, ScriptedDriver


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


async def test_a_late_release_of_an_earlier_drain_does_not_end_a_later_one(registry: Lone, url: str) -> None:
    made = await register(registry, body(url))
    path = f"/v1/resources/{made['id']}"
    for mode in ("draining", "lend", "draining"):
        await registry.ask("POST", f"{path}/mode", {"mode": mode})
    await registry.settle()
    told, drained_at = states(registry)[0].at, [2, 4]

    await registry.tell(ResourceReleased(at=told, resource_id=UUID(made["id"]), revision=drained_at[0]))
    assert (await read(registry, made))["released_at"] is None, "machines made in between may run there"
    await registry.tell(ResourceReleased(at=told, resource_id=UUID(made["id"]), revision=drained_at[1]))
    assert (await read(registry, made))["released_at"] is not None


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
