"""`tides template`: what is asked for, and lineage as a person reads it."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Type
from tests.unit.cli.house import House
from tests.unit.cli.test_commands import resource

ID = "0000000a-0000-0000-0000-000000000000"
PATH = f"/v1/templates/{ID}"


def version(number: int, state: str = "approved", **more: Any) -> dict[str, Any]:
    known = {
        "id": f"v{number}",
        "version": number,
        "state": state,
        "reference": f"vm-{number}",
        "disk_gib": 10.0,
    }
    plain = {"guest_os": "Debian", "missing": False, "created_at": "2026-11-28T04:00:00+00:00"}
    return known | plain | {"derived_from": None, "components": []} | more


@pytest.fixture(autouse=True)
def furnished(house: House) -> None:
    origin = {"version_id": "v1", "name": "worker", "version": 1, "state": "revoked"}
    versions = [
        version(1, "revoked"),
        version(2, derived_from=origin, components=["agent", "boinc"]),
        version(3, "draft", missing=True),
    ]
    house.kept["resources"] = [resource("lab")]
    home = resource("lab")["id"]
    house.kept["templates"] = [{"id": ID, "name": "worker", "resource_id": home, "versions": versions}]


def test_an_image_that_a_person_made_is_registered_with_its_lineage(house: House, tides: Type) -> None:
    house.answers["POST", f"{PATH}/versions"] = (201, version(4, "draft"))
    house.answers["POST", f"{PATH}/versions/4/approve"] = (200, version(4))
    where = ("--resource", "lab", "--reference", "vm-9")

    said = tides(
        "template",
        "add",
        "worker",
        *where,
        "--next",
        "--derived-from",
        "worker",
        "--components",
        "boinc, agent",
        "--approve",
    )

    assert (said.code, said.out) == (0, "worker version 4, 10 GiB: approved\n")
    sent = [body for method, path, body in house.asked if (method, path) == ("POST", f"{PATH}/versions")]
    assert sent == [{"reference": "vm-9", "components": ["boinc", "agent"], "derived_from": "v2"}]
    for wanted, named in (
        ("worker:9", "has no version 9"),
        ("wrker", "no template called 'wrker'; there are: worker"),
    ):
        refused = tides("template", "add", "x", *where, "--derived-from", wanted)
        assert refused.code != 0
        assert named in refused.err
    assert len([path for method, path, _ in house.asked if method == "POST"]) == 2


def test_lineage_is_listed_and_shown(house: House, tides: Type) -> None:
    house.answers["GET", f"{PATH}/derivations"] = (200, {"items": [], "next_cursor": None})
    listed, shown = tides("template", "list"), tides("template", "show", "worker")

    assert "derived from" in listed.out
    for said in (listed.out, shown.out):
        assert "worker:1 (revoked)" in said
        assert "agent, boinc" in said
        assert "draft, missing" in said


def derivation(number: int, state: str, **more: Any) -> dict[str, Any]:
    known = {"id": f"d{number}", "source": 2, "components": ["boinc"], "state": state, "step": "running"}
    why = {"reason": "its time is over: no mirror", "remedy": None, "until": "2026-11-28T05:00:00+00:00"}
    return known | why | more


def test_a_derivation_is_asked_for_shown_and_cancelled(house: House, tides: Type, tmp_path: Path) -> None:
    house.answers["POST", f"{PATH}/versions/2/derive"] = (202, derivation(1, "running"))
    listed = [derivation(2, "running"), derivation(1, "failed", remedy="Name a proxy.")]
    house.answers["GET", f"{PATH}/derivations"] = (200, {"items": listed, "next_cursor": None})
    house.answers["POST", f"{PATH}/derivations/d2/cancel"] = (200, derivation(2, "cancelled"))
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")

    begun = tides(
        "template", "derive", "worker", "--with", "boinc, ca", "--ca-file", str(tmp_path / "ca.pem")
    )
    assert begun.code == 0, begun.err
    assert "from version 2 until 2026-11-28 05:00:00 UTC" in begun.out
    [sent] = [body for method, path, body in house.asked if path.endswith("/derive")]
    assert (sent["components"], sent["auto_approve"], sent["within_minutes"]) == (
        ["boinc", "ca"],
        False,
        60.0,
    )
    assert sent["ca_pem"].startswith("-----BEGIN")
    shown = tides("template", "show", "worker").out
    assert "derivation from version 2 failed: its time is over: no mirror. Name a proxy." in shown
    mended = {"items": [derivation(3, "succeeded"), listed[1]], "next_cursor": None}
    house.answers["GET", f"{PATH}/derivations"] = (200, mended)
    assert "Name a proxy." not in tides("template", "show", "worker").out, "the next one succeeded"
    house.answers["GET", f"{PATH}/derivations"] = (200, {"items": listed, "next_cursor": None})
    assert tides("template", "cancel", "worker").out == "derivation from version 2: cancelled\n"
    house.answers["GET", f"{PATH}/derivations"] = (200, {"items": listed[1:], "next_cursor": None})
    none = tides("template", "cancel", "worker")
    assert none.code != 0
    assert "nothing is being derived" in none.err
    unknown = tides("template", "derive", "worker:9", "--with", "boinc")
    assert "has no version 9" in unknown.err


def test_a_template_whose_name_looks_like_a_version_is_derived_from_by_its_name(
    house: House, tides: Type
) -> None:
    house.kept["templates"][0]["name"] = "debian:12"
    house.answers["POST", f"{PATH}/versions/2/derive"] = (202, derivation(1, "running"))

    for named in ("debian:12", "debian:12:2"):
        begun = tides("template", "derive", named, "--with", "boinc")
        assert begun.code == 0, begun.err
