"""What the process of a backtest reads and says: lines in, lines out."""

import io
import json
import os
import sys
from typing import Any

import pytest

from libs.harvest.document import PRESETS
from services.stats.domain.backtest import answer
from services.stats.domain.history import tell
from services.stats.reconcile.replays import PROGRAM

MACHINE = {"template": "-", "vcpus": 1, "memory_mib": 1024, "disk_gib": 10.0}
ASKED: dict[str, Any] = {
    "document": {**PRESETS["balanced"], "machine": MACHINE}, "is_preset": True, "guard_s": 30.0, "actuator": "host",
    "days": 2, "since": "2026-11-17T12:00:00+00:00", "first_step": 144, "cores": {"b": 20},
}  # fmt: skip


def ask(rows: list[list[Any]], **more: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer([json.dumps(ASKED | more), *map(json.dumps, rows)])]


def day(number: int, host: str, cpu: int, memory: int = -1) -> list[Any]:
    return [number, host, list(range(288)), [cpu] * 288, [memory] * 288, 41600.0, 65536.0]


def test_lines_of_history_become_progress_and_a_result() -> None:
    # From noon to noon: the halves of the first and last day lie outside. Host a is unknown to the inventory.
    rows = [day(number, host, 4000) for number in range(3) for host in ("a", "b")]
    *shares, last = ask(rows)

    assert [round(one["done"], 1) for one in shares] == [0.5, 1.0]
    result = last["result"]
    assert result["covered_percent"] == 100.0
    assert not result["memory_known"]
    assert result["figures"]["fluid_core_hours"] == pytest.approx(0.5 * 36 * 575 / 12, abs=0.1)
    assert result["figures"]["memory_bound_percent"] is None
    assert len(result["series"]["at_s"]) == 576


def test_memory_that_was_measured_bounds_the_machines() -> None:
    (*_, last) = ask([day(number, "a", 4000, memory=9000) for number in range(3)])
    assert last["result"]["memory_known"]
    assert last["result"]["figures"]["core_hours"] == 0.0


def test_where_a_sandbox_forbids_to_step_back_a_backtest_works_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "nice", refuse)
    lines = [ASKED, *(day(number, "b", 4000) for number in range(3))]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(json.dumps, lines))))
    exec(PROGRAM, {})  # as `python -c` does
    assert "result" in json.loads(capsys.readouterr().out.splitlines()[-1])


def test_more_hosts_than_can_be_held_are_refused_at_once() -> None:
    lines = iter([json.dumps(ASKED | {"days": 92}), *(json.dumps(day(0, f"{n}", 1)) for n in range(1000))])
    (only,) = answer(lines)
    assert "too many hosts for 92 days" in json.loads(only)["error"]
    assert len(list(lines)) > 700, "the rest is not read"


def test_the_sentence_never_understates_harm() -> None:
    figures = {"core_hours": 1234.4, "hosts": 1, "above_90_minutes": 0.5}
    assert tell(figures, 1, 99.6) == (
        "With this policy you would have lent 1,234 core-hours in the last day on 1 host, with 1 host-minute "
        "above 90 %."
    )
