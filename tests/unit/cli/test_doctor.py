"""What the doctor says of a resource, and that no check hides another."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from services.cli.client import Target
from services.cli.doctor import findings
from services.cli.doctor.doors import checks, judge
from services.cli.doctor.findings import Finding, Grade, examine, ok
from services.cli.run import SERVICES
from tests.unit.cli.conftest import Type
from tests.unit.cli.house import TOKEN, House

WELL: dict[str, Any] = {
    "id": "1",
    "name": "Lab",
    "mode": "lend",
    "health": {"state": "healthy", "cause": None, "detail": None, "since": None},
    "alarm": None,
    "validation": {"missing": [], "blockers": []},
}
WATCHED: dict[str, Any] = {"holder": "a:1", "sampled_at": "2026-03-01T12:00:00Z", "clock_offset_s": 0.0}
CLOSED: dict[str, Any] = {"state": "closed"}
OPEN = {"state": "open", "cause": "auth", "detail": "no", "since": "12:00", "next_try_at": "12:15"}


def test_a_well_resource_is_said_to_be_so() -> None:
    assert [finding.grade for finding in judge(WELL, WATCHED, CLOSED)] == [Grade.OK, Grade.OK]


def test_the_common_address_is_asked_only_where_a_service_has_none_of_its_own() -> None:
    everywhere = {service: f"http://{service}:8080" for service in SERVICES}
    found = checks(Target("http://nobody", SecretStr("x"), everywhere))
    assert {f"service {name}" for name in SERVICES} < found.keys()
    assert "services" not in found
    del everywhere["stats"]
    assert "services" in checks(Target("http://somebody", SecretStr("x"), everywhere))


AILS: list[tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any], Grade, str, str]] = [
    (
        {"health": {"state": "degraded", "cause": "auth", "detail": "login refused", "since": "12:00"}},
        WATCHED, CLOSED, Grade.FAIL, "degraded since 12:00: auth: login refused", "password",
    ),
    (
        {
            "health": {"state": "degraded", "cause": "auth", "detail": "b is in use", "since": "12:00"},
            "alternate": {"in_use": True},
        },
        WATCHED | {"degraded_at": None}, CLOSED, Grade.WARN, "degraded since 12:00: auth: b is in use", "password",
    ),
    ({}, None, CLOSED, Grade.FAIL, "no monitor watches it", "tides run monitor"),
    ({}, WATCHED | {"holder": None}, CLOSED, Grade.FAIL, "no monitor watches it", "tides run monitor"),
    ({}, WATCHED | {"sampled_at": None}, CLOSED, Grade.WARN, "not sampled yet", "two intervals"),
    ({}, WATCHED, OPEN, Grade.WARN, "acts are refused since 12:00: auth: no; next try at 12:15", "password"),
    ({}, WATCHED | {"clock_offset_s": -90.0}, CLOSED, Grade.WARN, "-90.0 s from this machine's", "time server"),
    ({"alarm": {"reason": "9 strangers"}}, WATCHED, CLOSED, Grade.FAIL, "the sweeper waits: 9 strangers", "allow"),
    ({"validation": None}, WATCHED, CLOSED, Grade.WARN, "never validated", "tides resource validate"),
    (
        {"validation": {"missing": [{"privilege": "VM.Delete", "disables": "giving back"}], "blockers": []}},
        WATCHED, CLOSED, Grade.WARN, "missing privilege VM.Delete: giving back", "role",
    ),
    (
        {"validation": {"missing": [], "blockers": [{"detail": "no network", "remedy": "Name one."}]}},
        WATCHED, CLOSED, Grade.WARN, "nothing can be lent: no network", "Name one.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "watched", "acting", "grade", "what", "remedy"), AILS, ids=lambda _: "")
def test_what_ails_a_resource_is_said_with_what_to_do(
    changes: dict[str, Any], watched: Any, acting: Any, grade: Grade, what: str, remedy: str
) -> None:
    (bad,) = [one for one in judge(WELL | changes, watched, acting) if one.grade is not Grade.OK]
    assert (bad.grade, bad.what) == (grade, what)
    assert remedy in bad.remedy


async def test_what_hangs_or_breaks_hides_nothing_and_nothing_secret_is_said() -> None:
    async def well() -> Sequence[Finding]:
        return [ok("well", "answers")]

    async def hang() -> Sequence[Finding]:
        await asyncio.Event().wait()
        return []

    async def stubborn() -> Sequence[Finding]:
        while not done.is_set():
            try:
                await done.wait()
            except asyncio.CancelledError:
                continue
        return []

    async def broken() -> Sequence[Finding]:
        raise OSError("postgresql://tides:hunter2@db/tides is away")

    done = asyncio.Event()
    checks: dict[str, findings.Check] = {"hangs": hang, "stubborn": stubborn, "broken": broken, "well": well}
    found = await examine(checks, 0.1)
    done.set()
    assert [(one.check, one.grade) for one in found] == [
        ("hangs", Grade.FAIL),
        ("stubborn", Grade.FAIL),
        ("broken", Grade.FAIL),
        ("well", Grade.OK),
    ]
    assert found[0].what == "no answer within 0.1 s"
    assert "is away" in found[2].what
    assert "hunter2" not in str(found)
    assert all(one.remedy for one in found[:3])


def test_an_empty_place_is_told_what_to_name_and_nothing_is_made_there(
    house: House, tides: Type, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for name in ("TIDES_DATABASE_URL", "TIDES_BUS_URL"):
        monkeypatch.delenv(name, raising=False)
    house.answers["GET", "/v1/me"] = (200, {"name": "Ada"})
    said = tides("doctor", "--within", "10")
    assert said.code == 1
    assert "TIDES_DATABASE_URL is not set, and nothing has ever run in" in " ".join(said.out.split())
    assert "the token is Ada's" in said.out
    assert TOKEN not in said.out + said.err
    assert list(tmp_path.iterdir()) == []


def test_it_starts_no_database_and_its_json_is_alone_on_standard_output(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "cluster").mkdir(parents=True)
    asleep = doctor_in(tmp_path, TIDES_DATA_DIR=str(tmp_path))
    [told] = [check for check in asleep if check["check"] == "settings"]
    assert "does not run; `tides run all` starts it" in told["what"]
    assert sorted(path.name for path in (tmp_path / "postgres").iterdir()) == ["cluster"], "not even a lock"

    nowhere = {
        "TIDES_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/t",
        "TIDES_BUS_URL": "amqp://u:p@127.0.0.1:1/",
    }
    deaf = {check["check"]: check["grade"] for check in doctor_in(tmp_path, **nowhere)}
    assert (deaf["database"], deaf["bus"]) == ("fail", "fail")


@pytest.mark.parametrize("words", [("dead", "list"), ("dead", "retry"), ("backup", "copy")])
def test_who_works_on_the_stores_starts_none_and_says_how_to(
    tides: Type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...]
) -> None:
    for name in ("TIDES_DATABASE_URL", "TIDES_BUS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TIDES_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for state in ("nothing has ever run in", "does not run", "does not run"):
        said = tides(*words)
        assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)
        assert state in said.err
        assert "`tides run all` starts it" in said.err
        cluster = tmp_path / "postgres" / "cluster"
        cluster.mkdir(parents=True, exist_ok=True)
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] in ([], ["postmaster.pid"])
        with subprocess.Popen(["true"]) as killed:  # as a server that nobody stopped
            killed.wait()
        (cluster / "postmaster.pid").write_text(f"{killed.pid}\n{cluster}\n0\n5432\n{tmp_path}\n")


def doctor_in(folder: Path, **settings: str) -> list[dict[str, Any]]:
    """What a process of its own finds, with these settings and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDES_")}
    command = [sys.executable, "-m", "services.cli", "doctor", "--json", "--within", "1"]
    home = {"HOME": str(folder), "TIDES_URL": "http://127.0.0.1:1", "TIDES_TOKEN": "none"}
    said = subprocess.run(
        command, env={**kept, **home, **settings}, capture_output=True, text=True, check=False, timeout=120
    )
    assert said.returncode == 1, said.stderr
    found: list[dict[str, Any]] = json.loads(said.stdout)["checks"]
    return found
