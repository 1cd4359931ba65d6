"""A registered cloud is changed: by whom knows what it was, and with its password where its address changes."""

from typing import Any

from tests.service.lone_service import Lone
from tests.service.registry_house import (
    FINGERPRINT,
    PASSWORD,
    body,
    patch,
    read,
    register,
    scripted_body,
    states,
)
from tests.service.scripted_cloud import Script, ScriptedDriver


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
