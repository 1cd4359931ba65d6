"""What registry learns of a cloud when it is registered or validated, and what it refuses by that."""

import asyncio

import pytest

from libs.common.auth import Role
from libs.providers.base import Blocker, Cause, MissingPrivilege, Rejected, Unavailable
from tests.service.lone_service import THEIRS, Lone
from tests.service.registry_house import (
    FINGERPRINT,
    PASSWORD,
    body,
    count,
    patch,
    read,
    register,
    scripted_body,
)
from tests.service.scripted_cloud import Script, ScriptedDriver
from tests.support import until


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
