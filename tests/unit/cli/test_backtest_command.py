"""`tides policy backtest` as a person types it: formats, options, and what is said of bad input."""

import io
import json
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from libs.harvest.backtest.formats import Format, read_trace
from libs.harvest.backtest.trace import BEGINNING, BadTrace, Load
from libs.harvest.document import PRESETS
from services.cli import app
from services.cli.client import Failed
from tests.unit.cli.conftest import Type
from tests.unit.cli.house import House

STEPS = 288


def backtest(*arguments: object) -> Any:
    words = ["policy", "backtest", *map(str, arguments)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def gwa(mhz: float) -> str:
    head = ";\t".join(["Timestamp [ms]", "cores", "MHz", "used", "%", "KB", "KB used", "r", "w", "rx", "tx"])
    rows = [
        ";\t".join(map(str, (1376314846 + 300 * n, 4, 11704.0, mhz, 9.3, 67108864, 6291456, 0, 0, 0, 0)))
        for n in range(STEPS)
    ]
    return "\n".join([head, *rows])


@pytest.fixture
def traces(tmp_path: Path) -> dict[str, Path]:
    """The same owner, 10.4 GHz of one host of 41.6 GHz, in every format."""
    half = np.full((2, STEPS), 5200, dtype=np.uint16)
    np.savez(tmp_path / "t.npz", cpu_mhz=half, vcpus=np.array([4, 4]), step=300, mem_mb=half)
    rows = ["vm,ts,vcpus,cpu_mhz", *(f"{vm},{300 * n},8,5200" for vm in "ab" for n in range(STEPS))]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    hosts = ["host,ts,cpu_percent", *(f"a,{300 * n},25" for n in range(STEPS))]
    (tmp_path / "hosts.csv").write_text("\n".join(hosts))
    folder = tmp_path / "gwa"
    folder.mkdir()
    for name in ("1.csv", "2.csv"):
        (folder / name).write_text(gwa(5200))
    with zipfile.ZipFile(tmp_path / "gwa.zip", "w") as archive:
        archive.write(folder / "1.csv", "1.csv")
        archive.write(folder / "2.csv", "2.csv")
    samples = [
        {
            "at": f"2026-03-02T{n // 12:02}:{n % 12 * 5:02}:00Z", "cluster": "c", "hosts": ["a"],
            "cpu_capacity_mhz": [41600.0], "cpu_used_mhz": [12400.0], "cpu_ours_mhz": [2000.0],
            "memory_capacity_mib": [131072.0], "memory_used_mib": [20000.0], "memory_ours_mib": [4000.0],
        }
        for n in range(STEPS)
    ]  # fmt: skip
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, samples)))
    names = ("t.npz", "t.csv", "hosts.csv", "gwa", "gwa.zip", "t.jsonl")
    return {name: tmp_path / name for name in names}


def test_every_format_tells_the_same_story(traces: dict[str, Path]) -> None:
    told = [
        json.loads(backtest("--policy", "preset:balanced", "--trace", path, "--json").stdout)
        for path in traces.values()
    ]
    assert all(
        one["memory_bound_percent"] == (None if name.endswith(".csv") else 0.0)
        for name, one in zip(traces, told, strict=True)
    )
    for one in told:
        del one["memory_bound_percent"]
    assert all(one == told[0] for one in told)
    assert told[0]["fluid_core_hours"] == pytest.approx(0.65 * 16 * 24 * 287 / 288, abs=0.01)
    assert 80 < told[0]["harvest_fluid_percent"] <= 100
    assert told[0]["contention_percent"] == 0


def test_a_dated_trace_says_when_it_was_and_samples_say_what_memory_was_free(traces: dict[str, Path]) -> None:
    samples = read_trace(Format.TIDES, {"t": traces["t.jsonl"].read_bytes()})
    assert isinstance(samples, Load)
    assert samples.begins == datetime(2026, 3, 2, tzinfo=UTC)
    assert samples.memory_binds
    assert samples.memory is not None
    assert set(samples.memory[0]) == {16000 / 131072}
    assert samples.memory_mib == 131072
    machines = read_trace(Format.GWA_T_12, {"1.csv": gwa(5200).encode()})
    assert machines.begins == datetime(2013, 8, 12, 13, 40, 46, tzinfo=UTC)
    assert read_trace(Format.CSV, {"t": traces["t.csv"].read_bytes()}).begins == BEGINNING


def test_two_policies_are_compared_and_drawn(traces: dict[str, Path], tmp_path: Path) -> None:
    machine = {"template": "boinc", "vcpus": 4, "memory_mib": 4096, "disk_gib": 10}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({**PRESETS["balanced"], "machine": machine}))
    options = ("--compare", tmp_path / "p.yaml", "--plot", tmp_path / "o.html", "--days", 0, 0.5)
    result = backtest("--policy", "preset:balanced", "--trace", traces["t.npz"], "--model", "fine", *options)
    assert "core-hours on 1 hosts in 0.5 days" in result.stdout
    page = (tmp_path / "o.html").read_text()
    assert page.count("<polyline") == 2
    assert "class='best'" in page
    assert "http" not in page
    both = json.loads(
        backtest("--policy", "preset:balanced", "--trace", traces["t.npz"], "--json", *options).stdout
    )
    assert both[1]["core_hours"] < both[0]["core_hours"] / 2, "four of sixteen cores"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--policy", "preset:wild"), "--policy: no preset is called 'wild'; there are: balanced"),
        (("--policy", "none.yaml"), "--policy: none.yaml: No such file"),
        (("--days", "3", "4"), "--trace: days 3 to 4 are not in a trace of 1.0 days"),
        (("--format", "gwa-t-12"), "no line of the trace has the seven columns"),
        (("--overcommit", "0.25"), "--trace: no host has room"),
    ],
)
def test_bad_input_is_one_line(traces: dict[str, Path], arguments: Sequence[str], said: str) -> None:
    whole = ["--policy", "preset:balanced", "--trace", str(traces["t.csv"]), *arguments]
    with pytest.raises(Failed) as raised:
        CliRunner().invoke(app, ["policy", "backtest", *whole], catch_exceptions=False)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: &a lab\ncpu: *a\n", "anchors and aliases"),
        ("- 1\n", "is a mapping of names to values"),
        ("name: [\n", "is not valid YAML"),
        ("x: " + "a" * 70_000, "at most 64 KiB"),
        (
            "name: lab\nmachine: {template: w, vcpus: 1, memory_mib: 1024, disk_gib: 1}\ncpu: {idle: no}\n",
            "cpu.idle",
        ),
    ],
)
def test_a_policys_file_is_read_as_the_service_reads_it(
    traces: dict[str, Path], tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    words = ["policy", "backtest", "--policy", str(file), "--trace", str(traces["t.csv"])]
    with pytest.raises(Failed, match=said):
        CliRunner().invoke(app, words, catch_exceptions=False)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(Format), st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_a_parser_refuses_nonsense_with_a_sentence(form: Format, data: bytes) -> None:
    said = ""
    try:
        read_trace(form, {"x": data})
    except BadTrace as problem:
        said = str(problem)
    assert "\n" not in said


def test_a_broken_npz_is_refused() -> None:
    whole = io.BytesIO()
    np.savez(whole, cpu_mhz=np.zeros((2, 3)), vcpus=np.array([1]), step=300)
    with pytest.raises(BadTrace, match="one row per machine"):
        read_trace(Format.NPZ, {"x": whole.getvalue()})


DONE: dict[str, Any] = {
    "id": "b1", "state": "done", "progress": 1.0, "since": "2026-10-28T12:00:00Z", "error": None,
    "result": {
        "sentence": "With this policy you would have lent 1,234 core-hours in the last 30 days on 2 hosts.",
        "covered_percent": 66.7,
        "figures": {
            "core_hours": 1234.0, "harvest_fluid_percent": 80.0, "above_90_minutes": 5.0,
            "contention_percent": 0.1, "deploys_per_host_day": 0.0, "limit_changes_per_host_hour": 2.0,
            "hosts": 2, "days": 20.0,
        },
        "series": {"step_s": 3600.0, "at_s": [0, 3600, 7200, 90000], "owner": [0.3] * 4, "lent": [0.5] * 4},
    },
}  # fmt: skip


def test_a_clusters_history_is_asked_of_stats_and_waited_for(
    house: House, tides: Type, tmp_path: Path
) -> None:
    house.kept["clusters"] = [{"id": "c1", "name": "East", "resource": "vc"}]
    house.answers["POST", "/v1/stats/backtests"] = (202, {**DONE, "state": "queued", "progress": 0.0})
    house.answers["GET", "/v1/stats/backtests/b1"] = (200, DONE)
    asks = ("policy", "backtest", "--policy", "preset:balanced", "--cluster", "East", "--days", "30")

    said = tides(*asks, "--plot", str(tmp_path / "o.html"))

    assert (said.code, said.err) == (0, "")
    assert "preset:balanced: With this policy you would have lent 1,234 core-hours" in said.out
    body = next(body for method, _, body in house.asked if method == "POST")
    assert body == {
        "cluster_id": "c1", "preset": "balanced", "days": 30, "guard_seconds": 30.0, "actuator": "host",
    }  # fmt: skip
    page = (tmp_path / "o.html").read_text()
    assert "66.7 % of the time was measured" in page
    assert page.count("<polyline") == 2, "an hour without a sample is not drawn"
    told = json.loads(tides(*asks, "--json").out)
    assert (told["core_hours"], told["covered_percent"]) == (1234.0, 66.7)

    house.answers["GET", "/v1/stats/backtests/b1"] = (200, {**DONE, "state": "failed", "error": "no history"})
    failed = tides(*asks)
    assert (failed.code, failed.err) == (1, "tides: preset:balanced: no history\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give either --trace FILE or --cluster NAME"),
        (("--cluster", "c", "--days", "3", "4"), "one whole number"),
        (("--cluster", "c", "--days", "many"), "one number, or two"),
        (("--cluster", "c", "--model", "fine"), "belong to --trace"),
    ],
)
def test_what_does_not_go_together_is_said(tides: Type, words: Sequence[str], said: str) -> None:
    found = tides("policy", "backtest", "--policy", "preset:balanced", *words)
    assert found.code == 2
    assert said in " ".join(found.err.split())
