"""Commands as a person types them: what is sent, what is said, how they end."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Type
from tests.unit.cli.house import House, problem

FOUND: dict[str, Any] = {
    "at": "2026-11-20T12:00:00+00:00",
    "ok": True,
    "product": "VMware vCenter Server 8.0",
    "api_version": "8.0",
    "instance_id": "x",
    "clusters": [
        {"cluster": "c", "name": "lab", "hosts": 3, "cores": 48, "cpu_mhz": 124800, "memory_mib": 786432}
    ],
    "missing": [{"privilege": "Resource.AssignVMToPool", "disables": "machines in a pool"}],
    "warnings": ["no port group is named"],
    "blockers": [{"code": "no_network", "detail": "No network is named.", "remedy": "Set `network`."}],
    "error": None,
}
ADD = ["resource", "add", "lab", "--provider", "vsphere", "--url", "https://vc", "--user", "u"]


def resource(name: str, number: int = 1) -> dict[str, Any]:
    return {
        "id": f"0000000{number}-0000-0000-0000-000000000000",
        "name": name,
        "mode": "observe",
        "deleting": False,
    }


def test_a_password_goes_from_standard_input_to_the_service_and_nowhere_else(
    house: House, tides: Type
) -> None:
    house.answers["POST", "/v1/resources"] = (201, {**resource("lab"), "validation": FOUND})

    said = tides(
        *ADD, "--password-stdin", "--setting", "depth=3", "--setting", "scope=DC", stdin="s3cret pass\n"
    )

    assert said.code == 0, said.err
    sent = next(body for method, path, body in house.asked if method == "POST")
    assert sent["password"] == "s3cret pass"
    assert sent["settings"] == {"depth": 3, "scope": "DC"}
    assert "s3cret" not in said.out + said.err
    for told in (
        "mode observe",
        "124.8 GHz",
        "missing privilege Resource.AssignVMToPool",
        "warning: no port group",
        "cannot be lent: No network is named. Set `network`.",
    ):
        assert told in said.out


def test_without_the_flag_no_secret_is_read(house: House, tides: Type) -> None:
    said = tides(*ADD, stdin="s3cret")

    assert (said.code, house.asked) == (2, [])
    assert "--password-stdin" in said.err


def test_a_refusal_is_one_line_and_exit_code_1(house: House, tides: Type) -> None:
    house.answers["POST", "/v1/resources"] = (
        0,
        problem(422, "The cloud refused the login: no", "password", "Check user name and password."),
    )

    said = tides(*ADD, "--password-stdin", stdin="x")

    assert said.code == 1
    assert said.err == "tides: password: The cloud refused the login: no. Check user name and password.\n"


def test_a_wrong_address_is_exit_code_2(house: House, tides: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDES_URL", "nowhere")

    said = tides("resource", "list")

    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("tides: TIDES_URL")


def test_an_unknown_name_is_answered_with_what_there_is(house: House, tides: Type) -> None:
    house.kept["resources"] = [resource("lab"), resource("prod", 2), resource("test", 3)]

    said = tides("resource", "lend", "labb")

    assert (said.code, said.err) == (1, "tides: no resource is called 'labb'; there are: lab, prod, test\n")


def test_one_cloud_is_shown_with_what_it_can_do(house: House, tides: Type) -> None:
    shown = {
        **resource("lab"), "provider": "vsphere", "url": "https://vc", "username": "u", "alarm": None,
        "health": {"state": "ok", "detail": None, "since": None}, "capabilities": ["disk_copy", "limits"],
        "validation": FOUND,
    }  # fmt: skip
    house.kept["resources"] = [shown]

    said = tides("resource", "show", "lab")

    assert said.code == 0, said.err
    assert "can: disk_copy, limits\n" in said.out
    assert "cannot be lent" in said.out


@pytest.mark.parametrize("called", ["lab", "00000001-0000-0000-0000-000000000000"])
def test_a_thing_is_found_by_name_or_id(called: str, house: House, tides: Type) -> None:
    house.kept["resources"] = [resource("lab")]
    path = f"/v1/resources/{resource('lab')['id']}/mode"
    house.answers["POST", path] = (200, {**resource("lab"), "mode": "lend"})

    said = tides("resource", "lend", called)

    assert (said.code, said.out) == (0, "lab: mode lend\n")
    assert house.asked[-1] == ("POST", path, {"mode": "lend", "force": False})


def test_one_of_two_clusters_of_one_name_is_told_by_its_resource(house: House, tides: Type) -> None:
    house.kept["clusters"] = [
        {"id": "a", "name": "prod", "resource": "vc1", "machines": {}},
        {"id": "b", "name": "prod", "resource": "vc2", "machines": {}},
    ]
    house.answers["POST", "/v1/clusters/b/drain"] = (202, {"name": "prod", "machines": {"running": 2}})

    assert "vc1/prod, vc2/prod" in tides("cluster", "drain", "prod").err
    assert tides("cluster", "drain", "vc2/prod").out == "prod drains: 2 running\n"


def test_a_policy_file_goes_as_it_is(house: House, tides: Type, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("name: night\n")
    house.answers["POST", "/v1/policies"] = (201, {"id": "p", "name": "night", "revision": 1})

    said = tides("policy", "create", "-f", str(file))

    assert said.code == 0, said.err
    assert house.asked[-1] == ("POST", "/v1/policies", "name: night\n")


def test_a_policy_is_assigned_to_one_place(house: House, tides: Type) -> None:
    assert tides("policy", "assign", "p").code == 2
    assert tides("policy", "assign", "p", "--resource", "r", "--cluster", "c").code == 2


def test_a_bound_is_set_and_taken_away(house: House, tides: Type) -> None:
    house.kept["clusters"] = [{"id": "a", "name": "prod", "resource": "vc1", "machines": {}}]
    house.answers["POST", "/v1/clusters/a/scale"] = (200, {"name": "prod"})

    assert tides("cluster", "scale", "prod", "0").out == "prod: at most 0 machines\n"
    assert tides("cluster", "scale", "prod", "none", "--reason", "moved in").out == "prod: no bound\n"
    assert [body for *_, body in house.asked if body] == [
        {"most_machines": 0, "reason": "by hand"},
        {"most_machines": None, "reason": "moved in"},
    ]


def test_following_goes_on_after_a_broken_connection_and_ends_when_the_token_does(
    house: House, tides: Type
) -> None:
    body = {"reason": "lending", "changes": 2}
    keys = [f"action.limits_applied.v{number}" for number in range(1, 4)]
    house.events = [
        {"id": key, "key": key, "at": "2026-11-20T12:00:00+00:00", "cluster_id": None, "body": body}
        for key in keys
    ]
    house.break_after = 1
    refuse_after(house, 4)

    said = tides("events", "--follow", "--json")

    assert [json.loads(line)["key"] for line in said.out.splitlines()] == keys
    assert house.resumed_from[:4] == [None, "1", "2", "3"]
    assert "not valid" in said.err


def refuse_after(house: House, streams: int) -> None:
    """Void every token after so many streams."""
    original = house._refusal

    def refusal(request: Any) -> Any:
        return (
            problem(401, "The token is not valid.")
            if len(house.resumed_from) >= streams
            else original(request)
        )

    house._refusal = refusal  # type: ignore[method-assign]


def test_keys_are_fresh_every_time(tides: Type) -> None:
    first, second = tides("keys").out, tides("keys").out

    names = [line.partition("=")[0] for line in first.splitlines()]
    assert names == [
        "TIDES_INSTALLATION_ID",
        "TIDES_SEALING_KEYS",
        "TIDES_SIGNING_KEY",
        "TIDES_VERIFY_KEYS",
        "TIDES_BOOTSTRAP_ADMIN_TOKEN",
    ]
    assert not set(first.splitlines()) & set(second.splitlines())


def test_settings_mask_secrets(tides: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDES_DATABASE_URL", "postgresql://tides:hunter2@db.example.org/tides")

    said = tides("settings")

    assert said.code == 0, said.err
    assert "db.example.org" in said.out
    assert "hunter2" not in said.out


def test_a_service_that_there_is_not_is_exit_code_2(tides: Type) -> None:
    said = tides("run", "moniter")

    assert said.code == 2
    assert "no service named 'moniter'; there are: all, identity" in said.err


def abandoned(machines: list[dict[str, Any]] | None) -> dict[str, Any]:
    about = {
        "name": "lab",
        "url": "https://vc",
        "reason": "abandoned by Ada: it is degraded",
        "machines": machines,
    }
    return {
        "resource_id": resource("lab")["id"],
        "at": "2026-11-20T12:00:00+00:00",
        "find": "in folder `t`.",
        **about,
    }


def test_a_cloud_is_abandoned_by_who_types_its_name_and_what_may_be_left_is_said(
    house: House, tides: Type
) -> None:
    known = {**resource("lab"), "url": "https://vc"}
    house.kept["resources"] = [known]
    left = {"name": "tides-1", "cluster": "East", "host": None, "state": "running", "power": "on"}
    house.answers["DELETE", f"/v1/resources/{known['id']}"] = (202, abandoned([left]))

    for wrong in ("", "lob\n"):
        said = tides("resource", "remove", "lab", "--abandon", stdin=wrong)
        assert (said.code, "nothing was done" in said.err) == (1, True)
    assert [method for method, _, _ in house.asked if method == "DELETE"] == []
    for words, typed in (((), "lab\n"), (("--yes",), "")):
        said = tides("resource", "remove", "lab", "--abandon", *words, stdin=typed)
        assert said.code == 0, said.err
        for told in ("abandoned by Ada", "tides-1", "East", "in folder `t`."):
            assert told in said.out


def test_by_force_or_abandoned_but_not_both(house: House, tides: Type) -> None:
    house.kept["resources"] = [{**resource("lab"), "url": "https://vc"}]
    said = tides("resource", "remove", "lab", "--force", "--abandon", "--yes")
    assert (said.code, house.asked) == (2, []), said.out
    assert "--force" in said.err


def test_what_an_abandoned_cloud_may_hold_is_said_as_soon_as_it_is_known(house: House, tides: Type) -> None:
    house.kept["abandonments"] = [abandoned(None)]
    assert "not known yet" in tides("resource", "abandoned", "lab").out
    assert "has not been abandoned" in tides("resource", "abandoned", "lob").out


def test_strangers_are_shown_and_allowed_by_name_or_all_after_a_question(house: House, tides: Type) -> None:
    known = resource("lab")
    house.kept["resources"] = [known]
    machine = {
        "name": "tides-1", "cluster": "East", "host": "h", "power": "on", "seen_at": "2026-11-20T12:00:00+00:00",
        "was": "abandoned by Ada", "allowed_by": None, "goes_at": None,
    }  # fmt: skip
    sweep = {
        "resource_id": known["id"], "resource": "lab", "stopped": "1 machines, 0 known", "known": 0, "strangers": 1,
        "since": "2026-11-20T12:00:00+00:00", "machines": [machine],
    }  # fmt: skip
    house.answers["GET", f"/v1/sweeps/{known['id']}"] = (200, sweep)
    allow = f"/v1/sweeps/{known['id']}/allow"
    house.answers["POST", allow] = (200, {"allowed": 1, "names": ["tides-1"]})

    said = tides("sweep", "show", "lab")
    for told in (
        "1 strangers since 2026-11-20",
        "waits for a person: 1 machines",
        "East",
        "abandoned by Ada",
    ):
        assert told in said.out
    assert tides("sweep", "allow", "lab").code == 2
    assert tides("sweep", "allow", "lab", "--all", stdin="lob\n").code == 1
    assert [path for method, path, _ in house.asked if method == "POST"] == []
    for words, typed in ((("tides-1",), ""), (("--all",), "lab\n"), (("--all", "--yes"), "")):
        said = tides("sweep", "allow", "lab", *words, stdin=typed)
        assert (said.code, "tides-1 is destroyed" in said.out) == (0, True), said.err
    sent = [body["names"] for method, path, body in house.asked if method == "POST"]
    assert sent == [["tides-1"]] * 3
    alarm = f"/v1/resources/{known['id']}/alarm"
    assert ("DELETE", alarm, None) not in house.asked

    sweep["stopped"] = None
    house.answers["DELETE", alarm] = (200, known)
    assert tides("sweep", "allow", "lab", "tides-1").code == 0
    assert ("DELETE", alarm, None) in house.asked

    house.answers["DELETE", alarm] = (0, problem(503, "Registry cannot be reached."))
    said = tides("sweep", "allow", "lab", "tides-1")
    assert (said.code, "tides-1 is destroyed" in said.out) == (1, True), (
        "what was allowed is said all the same"
    )
    assert "the alarm stays: Registry cannot be reached" in said.err


def test_who_removes_a_cloud_that_does_not_answer_hears_of_the_other_way(house: House, tides: Type) -> None:
    known = resource("lab")
    house.kept["resources"] = [known]
    for state, is_told in (("ok", False), ("degraded", True)):
        health = {"state": state, "cause": "unreachable"}
        house.answers["DELETE", f"/v1/resources/{known['id']}"] = (202, {**known, "health": health})
        said = tides("resource", "remove", "lab")
        assert (said.code, "--abandon" in said.out) == (0, is_told)


def test_a_cloud_is_changed_from_what_was_seen_and_another_address_needs_the_password(
    house: House, tides: Type, tmp_path: Path
) -> None:
    known = {**resource("lab"), "revision": 7, "validation": None}
    house.kept["resources"] = [known]
    path = f"/v1/resources/{known['id']}"
    changed = {**known, "url": "https://vc2", "username": "u2", "interval_s": 30.0}
    house.answers["PATCH", path] = (200, changed)
    pem = tmp_path / "ca.pem"
    pem.write_text("PEM")

    for words in ((), ("--url", "https://vc2"), ("--ca-file", str(pem), "--thumbprint", "AB")):
        assert tides("resource", "set", "lab", *words).code == 2, words
    said = tides("resource", "set", "lab", "--interval", "30", "--user", "u2")
    assert (said.code, said.out) == (0, "lab: https://vc2 as u2, every 30 s\n"), said.err
    moved = ("--url", "https://vc2", "--ca-file", str(pem), "--password-stdin")
    said = tides("resource", "set", "lab", *moved, stdin="s3cret\n")
    assert (said.code, "s3cret" in said.out + said.err) == (0, False)
    assert [body for method, _, body in house.asked if method == "PATCH"] == [
        {"username": "u2", "interval_s": 30.0},
        {"url": "https://vc2", "ca_pem": "PEM", "thumbprint": None, "password": "s3cret"},
    ]
    assert house.matches == ['"7"', '"7"']


def test_users_are_disabled_enabled_and_given_a_role_or_a_password(house: House, tides: Type) -> None:
    ada = {"id": "0000000a-0000-0000-0000-000000000000", "name": "ada", "role": "viewer", "revision": 3}
    house.kept["users"] = [ada]
    path = f"/v1/users/{ada['id']}"
    house.answers["PATCH", path] = (200, {**ada, "disabled": True})
    house.answers["PUT", f"{path}/password"] = (200, {})

    assert tides("user", "disable", "ada").out == "ada is viewer, disabled\n"
    for words in (("enable", "ada"), ("role", "ada", "admin")):
        assert tides("user", *words).code == 0
    assert tides("user", "password", "ada", "--password-stdin", stdin="correct horse").code == 0
    sent = [body for method, _, body in house.asked if method in ("PATCH", "PUT")]
    assert sent == [{"disabled": True}, {"disabled": False}, {"role": "admin"}, {"password": "correct horse"}]
    assert house.matches == ['"3"'] * 3


def test_a_service_alone_without_a_database_says_which_setting_is_missing(
    house: House, tides: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIDES_DATABASE_URL", raising=False)
    said = tides("run", "monitor")

    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "TIDES_DATABASE_URL is not set" in said.err
    assert "tides run all" in said.err
