"""`tides account` and `tides credit`: a password goes in once by standard input, figures come out side by side."""

from typing import Any

import pytest

from services.cli import accounts
from tests.unit.cli.conftest import Type
from tests.unit.cli.house import House, problem

PASSWORD = "s3cret"
ADD = ("account", "add", "Lab", "--email", "e@x.example", "--password-stdin")


def account(**changes: Any) -> dict[str, Any]:
    bare = {"id": "a", "project_id": "1", "email": "e@x.example", "user_id": 0, "state": "asked"}
    return {**bare, "trouble": None, "credit_at": None, **changes}


@pytest.fixture
def lab(house: House) -> House:
    house.kept["projects"] = [{"id": "1", "name": "Lab"}]
    house.answers["GET", "/v1/projects/1"] = (200, {"seen": None})
    house.answers["POST", "/v1/accounts"] = (202, account())
    house.answers["PUT", "/v1/accounts/a/login"] = (202, account())
    return house


def test_an_account_is_let_in_and_its_password_goes_nowhere_else(lab: House, tides: Type) -> None:
    lab.answers["GET", "/v1/accounts/a"] = (200, account(state="ready", user_id=17))
    said = tides(*ADD, "--create", "--user-name", "Ent", stdin=PASSWORD + "\n")

    assert said.out == "e@x.example is user 17; lend with --stored-account\n"
    sent = next(body for method, path, body in lab.asked if (method, path) == ("POST", "/v1/accounts"))
    assert sent == {
        "project_id": "1", "email": "e@x.example", "password": PASSWORD, "create": True, "user_name": "Ent",
        "invite_code": None,
    }  # fmt: skip
    assert PASSWORD not in said.out + said.err
    assert tides("account", "add", "Lab", "--email", "e@x.example", stdin=PASSWORD).code == 2


def test_a_refused_login_is_one_line_and_one_may_be_given_anew(lab: House, tides: Type) -> None:
    lab.answers["GET", "/v1/accounts/a"] = (200, account(state="refused", trouble="bad password\x1b[2J"))
    said = tides(*ADD, stdin=PASSWORD)
    assert (said.code, said.err) == (1, "tides: bad password [2J\n")
    login = ("account", "login", "Lab", "--email", "e@x.example", "--password-stdin")
    assert tides(*login, stdin="x").err == "tides: there is no account at Lab\n"

    lab.kept["accounts"] = [account(state="refused")]
    lab.answers["GET", "/v1/accounts/a"] = (200, account(state="ready", user_id=17))
    assert tides(*login, stdin="other").code == 0
    assert ("PUT", "/v1/accounts/a/login", {"email": "e@x.example", "password": "other"}) in lab.asked


def test_a_project_that_is_away_is_not_waited_for(
    lab: House, tides: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.answers["GET", "/v1/accounts/a"] = (200, account())
    lab.answers["GET", "/v1/projects/1"] = (200, {"seen": {"trouble": "It is stopped"}})
    assert tides(*ADD, stdin=PASSWORD).out.startswith("asked for: It is stopped. The project is asked again")
    lab.answers["GET", "/v1/projects/1"] = (200, {"seen": {"trouble": None}})
    monkeypatch.setattr(accounts, "WAIT_S", 0.0)
    assert tides(*ADD, stdin=PASSWORD).out.startswith("asked for. The project")


def test_accounts_are_listed_lent_by_and_forgotten(lab: House, tides: Type) -> None:
    lab.kept["accounts"] = [account(state="ready", user_id=17, credit_at="2026-11-20T12:00:00Z")]
    line = tides("account", "list").out.splitlines()[2]
    assert [word for word in line.split() if word] == [
        "Lab",
        "e@x.example",
        "17",
        "ready",
        "2026-11-20",
        "12:00:00",
    ]

    lent = {"project_name": "Lab", "weight": 1, "resource_ids": None, "priority": 0}
    lent |= {"most_machines": None, "most_vcpus": None}
    lab.answers["POST", "/v1/contributions"] = (201, lent)
    assert tides("contribution", "add", "Lab", "--stored-account").code == 0
    assert lab.asked[-1][2] == {
        "project_id": "1", "weight": 1.0, "resource_ids": None, "authenticator": None, "account_id": "a",
    }  # fmt: skip
    lab.answers["DELETE", "/v1/accounts/a"] = (0, problem(409, "A contribution works with this account."))
    assert tides("account", "remove", "Lab").err == "tides: A contribution works with this account.\n"


def test_what_is_claimed_and_what_is_granted_stand_side_by_side(lab: House, tides: Type) -> None:
    claims = {"items": [{"of": "1", "core_hours": 2.0, "credit": 30.0}], "core_hours": 2.0, "credit": 30.0}
    grants = {
        "items": [{"of": "1", "credit": 20.5}, {"of": "2", "credit": 1.0}],
        "credit": 21.5,
        "others": 7.0,
    }
    lab.answers["GET", "/v1/claims"] = (200, claims)
    lab.answers["GET", "/v1/grants"] = (200, grants)

    lines = tides("credit").out.splitlines()
    rows = [line.split() for line in lines[2:5]]
    assert rows == [["Lab", "2.0", "30.0", "20.5"], ["2", "-", "-", "1.0"], ["all", "2.0", "30.0", "21.5"]]
    assert lines[-1].endswith("no machines of ours: 7.0")
    assert '"grants"' in tides("credit", "--by", "day", "--json").out
