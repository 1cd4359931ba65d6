"""`tides resource lend --probe`: what is asked for, and how the probe goes, in words."""

from typing import Any

from tests.unit.cli.conftest import Type
from tests.unit.cli.house import House
from tests.unit.cli.test_commands import resource


def test_a_probe_is_asked_for_and_told_of(house: House, tides: Type) -> None:
    house.kept["resources"] = [resource("lab")]
    path = f"/v1/resources/{resource('lab')['id']}/mode"
    probe = {
        "outcome": "open", "step": "waiting", "reason": "lab: no room\x1b[2J", "until": "2026-11-27T13:00:00+00:00",
        "asked_at": "2026-11-27T11:30:00+00:00", "ended_at": None, "why": "",
    }  # fmt: skip
    house.answers["POST", path] = (200, {**resource("lab"), "mode": "observe", "probe": probe})
    said = tides("resource", "lend", "lab", "--probe", "--within", "90")
    assert house.asked[-1][2] == {"mode": "lend", "force": False, "probe": True, "probe_for_s": 5400.0}
    words = "waiting, since 2026-11-27 11:30:00, until 2026-11-27 13:00:00: lab: no room [2J"
    assert said.out.splitlines()[1] == f"probe {words}"
    house.kept["resources"] = [{**resource("lab"), "mode": "observe", "probe": probe}]
    assert words in " ".join(tides("status").out.split())

    failed = {
        **probe,
        "outcome": "failed",
        "ended_at": "2026-11-27T13:00:05+00:00",
        "why": "its time is over: no room",
    }
    shown: dict[str, Any] = {
        "provider": "simulated", "url": "sim://lab", "username": "tides", "alarm": None, "capabilities": [],
        "health": {"state": "ok", "since": None, "detail": None}, "validation": None, "deleting": False,
    }  # fmt: skip
    house.kept["resources"] = [{**resource("lab"), **shown, "probe": failed}]
    told = tides("resource", "show", "lab").out
    assert "probe failed (2026-11-27 13:00:05): its time is over: no room" in told
    ended = "probe of lab: failed (2026-11-27 13:00:05): its time is over: no room"
    house.kept["resources"] = [{**resource("lab"), **shown, "mode": "observe", "probe": failed}]
    assert ended in tides("status").out
    house.kept["resources"][0]["mode"] = "lend"
    assert "probe" not in tides("status").out
