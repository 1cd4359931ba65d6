"""`tides resource set --alternate-user`: a password on standard input, and in words which account is in use."""

from typing import Any

from tests.unit.cli.conftest import Type
from tests.unit.cli.house import House
from tests.unit.cli.test_commands import resource

SECRET = "another horse"


def test_an_alternate_account_is_given_taken_away_and_told_of(house: House, tides: Type) -> None:
    shown: dict[str, Any] = {
        "provider": "vsphere", "url": "https://vc.example", "username": "tides", "alarm": None, "capabilities": [],
        "health": {"state": "degraded", "since": None, "detail": None}, "validation": None, "deleting": False,
        "interval_s": 20.0, "revision": 3,
    }  # fmt: skip
    alternate = {"username": "tides-2", "in_use": False, "since": None, "why": None, "first_try_at": None}
    kept = {**resource("lab"), **shown, "alternate": alternate}
    house.kept["resources"] = [kept]
    house.answers["PATCH", f"/v1/resources/{kept['id']}"] = (200, kept)
    said = tides(
        "resource", "set", "lab", "--alternate-user", "tides-2", "--alternate-password-stdin", stdin=SECRET
    )
    assert said.code == 0, said
    assert house.asked[-1][2] == {"alternate": {"username": "tides-2", "password": SECRET}}
    assert "alternate account: tides-2, not in use" in said.out
    assert SECRET not in said.out + said.err
    assert tides("resource", "set", "lab", "--no-alternate").code == 0
    assert house.asked[-1][2] == {"alternate": None}
    for wrong in (
        ("--alternate-user", "tides-2"), ("--alternate-password-stdin",), ("--alternate-user", "x", "--no-alternate"),
        ("--alternate-user", "x", "--alternate-password-stdin", "--password-stdin"),
    ):  # fmt: skip
        assert tides("resource", "set", "lab", *wrong).code != 0, wrong

    kept["alternate"] = {
        **alternate, "in_use": True, "since": "2026-11-28T04:00:00+00:00", "why": "incorrect\x1b[2J",
        "first_try_at": "2026-11-28T04:15:00+00:00",
    }  # fmt: skip
    words = "asked as tides-2 since 2026-11-28 04:00:00: tides is refused (incorrect [2J)"
    told = tides("resource", "show", "lab").out
    assert words in told
    assert "tried again at 2026-11-28 04:15:00" in told
    assert f"lab is degraded: {words}" in " ".join(tides("status").out.split())


def test_a_stand_in_is_named_by_its_name_and_shown_by_it(house: House, tides: Type) -> None:
    shown: dict[str, Any] = {
        "provider": "vsphere", "url": "https://vc.example", "username": "tides", "alarm": None, "capabilities": [],
        "health": {"state": "ok", "since": None, "detail": None}, "validation": None, "deleting": False,
        "interval_s": 20.0, "revision": 3,
    }  # fmt: skip
    other = {**resource("lab"), **shown, "id": "11111111-0000-7000-8000-000000000000", "name": "south"}
    kept = {**resource("lab"), **shown, "stand_in_id": other["id"]}
    house.kept["resources"] = [kept, other]
    house.answers["PATCH", f"/v1/resources/{kept['id']}"] = (200, kept)
    assert tides("resource", "set", "lab", "--stand-in", "south").code == 0
    assert house.asked[-1][2] == {"stand_in_id": other["id"]}
    assert tides("resource", "set", "lab", "--stand-in", "").code == 0
    assert house.asked[-1][2] == {"stand_in_id": None}
    assert tides("resource", "set", "lab", "--stand-in", "north").code != 0
    assert "while it is away, what is lent to it alone goes to south" in tides("resource", "show", "lab").out
