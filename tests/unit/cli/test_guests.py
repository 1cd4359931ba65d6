"""`tides guest`: what an agent is told, by the machine's name; and `tides project terms`: what was agreed to."""

from typing import Any

import pytest

from tests.unit.cli.conftest import Type
from tests.unit.cli.house import House, problem

MACHINE = {"id": "m1", "name": "tides-7"}
ORDERS: dict[str, Any] = {
    "throttle_percent": None, "throttle_until": None, "throttle_by": None, "throttle_reason": None, "cap_percent": None,
    "applied_percent": None, "applied_at": None, "error": None, "stop_until": None, "stop_by": None,
    "stop_reason": None, "stopped_at": None,
}  # fmt: skip
UNTIL = "2026-11-27T12:30:00+00:00"
GUEST = {
    "machine_id": "m1", "health": "working", "running": 1, "tasks": 2, "beat_at": UNTIL, "orders": None,
    "boinc_error": None, "told_why": None,
}  # fmt: skip


@pytest.fixture
def lab(house: House) -> House:
    house.kept["machines"] = [MACHINE]
    return house


def test_a_guest_is_throttled_for_a_while_and_stopped_with_a_reason(lab: House, tides: Type) -> None:
    throttled = {**GUEST, "orders": {**ORDERS, "throttle_percent": 25.0, "throttle_until": UNTIL}}
    lab.answers["POST", "/v1/guests/m1/throttle"] = (202, throttled)
    said = tides("guest", "throttle", "tides-7", "--percent", "25", "--for", "30m", "--reason", "noise")
    assert said.out == "at most 25 % until 2026-11-27 12:30:00\n"
    assert lab.asked[-1][2] == {"percent": 25.0, "for_s": 1800.0, "reason": "noise"}

    lab.answers["POST", "/v1/guests/m1/stop"] = (202, {**GUEST, "orders": {**ORDERS, "stop_until": UNTIL}})
    assert "2026-11-27 12:30:00" in tides("guest", "stop", "m1", "--reason", "smoke").out
    assert lab.asked[-1] == ("POST", "/v1/guests/m1/stop", {"reason": "smoke"})

    lab.answers["POST", "/v1/guests/m1/stop"] = (409, problem(409, "This machine has no agent."))
    refused = tides("guest", "stop", "tides-7")
    assert refused.code == 1
    assert tides("guest", "throttle", "tides-7", "--percent", "120").code == 2
    assert tides("guest", "throttle", "tides-7", "--percent", "20", "--for", "soon").code == 2
    assert "no machine is called 'x'" in tides("guest", "stop", "x").err


def test_guests_are_listed_with_what_they_were_told(lab: House, tides: Type) -> None:
    orders = {
        **ORDERS,
        "throttle_percent": 25.0,
        "throttle_until": UNTIL,
        "throttle_by": "Ada",
        "cap_percent": 50.0,
    }
    lab.kept["guests"] = [{**GUEST, "orders": orders, "boinc_error": "away\x1b[2J"}]
    shown = tides("guest", "list").out
    assert all(word in shown for word in ("tides-7", "working", "25 %", "Ada", "50 %", "away"))
    assert "\x1b" not in shown
    assert '"cap_percent": 50.0' in tides("guest", "list", "--json").out


def test_what_was_agreed_to_is_shown_word_for_word(lab: House, tides: Type) -> None:
    lab.kept["projects"] = [{"id": "1", "name": "Lab"}]
    agreed = [{"terms_sha256": digit * 64, "user_name": "Ada", "at": UNTIL} for digit in "ab"]
    lab.answers["GET", "/v1/projects/1/consents"] = (200, {"items": agreed, "next_cursor": None})
    lab.answers["GET", f"/v1/projects/1/consents/{'b' * 64}"] = (200, {**agreed[1], "terms": "Be kind"})
    lab.answers["GET", f"/v1/projects/1/consents/{'a' * 64}"] = (200, {**agreed[0], "terms": None})
    assert tides("project", "terms", "Lab").out.splitlines()[1] == "Be kind"
    assert "not kept" in tides("project", "terms", "Lab", "--terms", "aaaa").out
    assert tides("project", "terms", "Lab", "--terms", "cc").code == 1
