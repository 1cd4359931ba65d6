"""`tides contribution`: priorities and quotas as a person gives and reads them."""

from typing import Any

from tests.unit.cli.conftest import Type
from tests.unit.cli.house import House

LENT: dict[str, Any] = {
    "id": "c1", "project_id": "p1", "project_name": "Rosetta", "weight": 2.0, "priority": 5, "active": True,
    "most_machines": 5, "most_vcpus": 10, "resource_ids": None, "machines": {"running": 3}, "account_id": None,
}  # fmt: skip


def test_what_is_changed_is_sent_and_what_is_left_out_is_not(house: House, tides: Type) -> None:
    house.kept["contributions"] = [LENT, LENT | {"id": "c2", "project_id": "p2", "project_name": "LHC"}]
    house.answers["PATCH", "/v1/contributions/c1"] = (200, LENT | {"most_vcpus": None})

    said = tides(
        *(
            "contribution",
            "change",
            "Rosetta",
            "--priority",
            "5",
            "--most-machines",
            "5",
            "--most-vcpus",
            "none",
        )
    )

    assert said.out == "Rosetta: weight 2, priority 5, at most 5 machines\n", said.err
    [sent] = [body for method, _, body in house.asked if method == "PATCH"]
    assert sent == {"priority": 5, "most_machines": 5, "most_vcpus": None}


def test_the_list_shows_who_comes_first_and_the_quota(house: House, tides: Type) -> None:
    house.kept["contributions"] = [
        LENT,
        LENT
        | {"project_name": "LHC", "most_machines": None, "most_vcpus": None}
        | {"refused_at": "2026-11-20T12:00:00Z", "refused_why": "Invalid or missing account key."},
    ]

    shown = tides("contribution", "list").out.splitlines()

    assert shown[0].split() == ["project", "weight", "priority", "quota", "active", "machines", "resources"]
    assert "5 machines, 10 vCPUs" in shown[2]
    assert "no bound" in shown[3]
    assert shown[4:] == [
        "LHC refuses machines its key since 2026-11-20 12:00:00: Invalid or missing account key; give another one by"
        " `tides contribution change --authenticator-stdin`"
    ]


def test_priority_quota_and_key_are_given_with_the_first_word_too(house: House, tides: Type) -> None:
    house.kept["projects"] = [{"id": "p1", "name": "Rosetta"}]
    house.answers["POST", "/v1/contributions"] = (201, LENT)
    bounds = ("--priority", "5", "--most-machines", "5", "--most-vcpus", "none")
    said = tides("contribution", "add", "Rosetta", *bounds, "--authenticator-stdin", stdin="1_ab\n")
    assert said.out == (
        "every resource may work for Rosetta: weight 2, priority 5, at most 5 machines, 10 vCPUs\n"
    ), said.err
    sent = house.asked[-1][2]
    assert (sent["priority"], sent["most_machines"], sent["most_vcpus"]) == (5, 5, None)
    assert (sent["weight"], sent["authenticator"]) == (1.0, "1_ab")

    house.kept["contributions"] = [LENT]
    house.answers["PATCH", "/v1/contributions/c1"] = (200, LENT)
    assert tides("contribution", "change", "Rosetta", "--authenticator-stdin", stdin="1_cd\n").code == 0
    assert house.asked[-1][2] == {"authenticator": "1_cd"}


def test_nothing_to_change_and_what_is_no_number_are_refused_before_anything_is_asked(
    house: House, tides: Type
) -> None:
    assert (tides("contribution", "change", "Rosetta").code, house.asked) == (2, [])
    wrong = tides("contribution", "change", "Rosetta", "--most-machines", "many")
    assert (wrong.code, house.asked) == (2, [])
    assert "--most-machines" in wrong.err


def test_a_project_that_nothing_is_lent_to_is_named_with_what_there_is(house: House, tides: Type) -> None:
    house.kept["contributions"] = [LENT]
    said = tides("contribution", "change", "Nobody", "--priority", "1")
    assert (said.code, said.err) == (1, "tides: nothing is lent to 'Nobody'; it is lent to: Rosetta\n")
