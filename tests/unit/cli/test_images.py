"""`tides template`: what is asked for, and lineage as a person reads it."""

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


def test_lineage_is_listed_and_shown(tides: Type) -> None:
    listed, shown = tides("template", "list"), tides("template", "show", "worker")

    assert "derived from" in listed.out
    for said in (listed.out, shown.out):
        assert "worker:1 (revoked)" in said
        assert "agent, boinc" in said
        assert "draft, missing" in said
