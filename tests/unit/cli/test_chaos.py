"""`tides chaos`: what it refuses, what it hits, and which accounts do not agree."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.cli.chaos import targets
from services.cli.chaos.audit import Acts, Auditor, gaps
from services.cli.chaos.targets import ByPid, by_compose, by_kubernetes, by_pid_files, by_systemd
from services.cli.client import Client, Failed
from tests.support import until

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
SLEEPER = "import time, sys; print('up', sys.argv[1], flush=True); time.sleep(600)"


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """A folder with one process as an operator starts them, and its output."""
    with (tmp_path / "said").open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", SLEEPER, "run"], stdout=sink, stderr=sink, env={"TIDES_X": "kept"}
        )
    file = tmp_path / "monitor-1.pid"
    file.write_text(f"{process.pid}\n")
    while "up run" not in (tmp_path / "said").read_text():
        process.poll()
    yield tmp_path
    for pid in {process.pid, int(file.read_text())}:
        if psutil.pid_exists(pid):
            psutil.Process(pid).kill()
    process.wait()


@pytest.mark.parametrize("by_force", [True, False])
async def test_a_process_by_its_pid_file_is_started_again_as_it_was(pids: Path, by_force: bool) -> None:
    (victim,) = (await by_pid_files(pids)).values()
    first = int((pids / "monitor-1.pid").read_text())
    await (victim.kill() if by_force else victim.stop())
    assert not psutil.pid_exists(first) or psutil.Process(first).status() == psutil.STATUS_ZOMBIE
    await victim.start()
    await until(lambda: (pids / "said").read_text().count("up run") == 2, what="the same output")
    again = psutil.Process(int((pids / "monitor-1.pid").read_text()))
    assert again.pid != first
    assert again.environ()["TIDES_X"] == "kept"
    assert again.cmdline()[-1] == "run"
    await victim.start()
    assert int((pids / "monitor-1.pid").read_text()) == again.pid, "who runs is left alone"
    assert "kept" not in repr(victim), "an environment holds secrets"


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is not ours."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


async def test_who_has_been_given_the_number_of_a_process_that_ended_is_not_hit(
    pids: Path, stranger: subprocess.Popen[bytes]
) -> None:
    (victim,) = (await by_pid_files(pids)).values()
    await victim.kill()
    (pids / "monitor-1.pid").write_text(f"{stranger.pid}\n")
    await victim.kill()
    await victim.stop()
    assert stranger.poll() is None
    (pids / "monitor-1.pid").unlink()
    await victim.stop()
    await victim.start()
    assert psutil.pid_exists(int((pids / "monitor-1.pid").read_text())), (
        "a file that went away is written anew"
    )


async def test_a_file_that_names_no_tides_is_refused_before_anything_is_hit(tmp_path: Path) -> None:
    file = tmp_path / "other.pid"
    file.write_text(str(psutil.Process().pid))
    with pytest.raises(Failed, match=r"other\.pid"):
        await by_pid_files(tmp_path)
    file.write_text("no number")
    with pytest.raises(Failed, match="no process of ours runs by it"):
        ByPid(file).remember()


def a_program(folder: Path, name: str, script: str) -> None:
    """A program that writes down what it is asked."""
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >> {folder}/asked\n{script}\n')
    path.chmod(0o755)


async def test_units_containers_and_pods_are_killed_stopped_and_started_by_their_own_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    a_program(tmp_path, "systemctl", "echo 'tides@monitor.service loaded active running Tides'")
    ps = "printf 'lab-workload-2\\tworkload\\nlab-postgres-1\\tpostgres\\n'"
    a_program(tmp_path, "docker", f"case $1 in ps) {ps};; inspect) echo running healthy;; esac")
    deployments = (
        '{"items": [{"metadata": {"name": "tides-stats"}, "spec": {"replicas": 2, "selector": '
        '{"matchLabels": {"component": "stats"}}}}]}'
    )
    a_program(
        tmp_path,
        "kubectl",
        f"case \"$*\" in *deployments*) echo '{deployments}';; *'get pods'*) echo pod/a; echo pod/b;; esac",
    )
    (unit,) = (await by_systemd()).items()
    (container,) = (await by_compose("lab")).items()
    pods = await by_kubernetes("science", "tides")
    assert (unit[0], container[0]) == ("monitor", "workload-2"), "the stores are not hit"
    assert list(pods) == ["tides-stats-0", "tides-stats-1"]
    listed = next(
        line for line in (tmp_path / "asked").read_text().splitlines() if line.startswith("docker ps")
    )
    assert "com.docker.compose.oneoff=False" in listed, "a command that somebody runs is not hit"
    (tmp_path / "asked").unlink()
    for victim in (unit[1], container[1], pods["tides-stats-1"]):
        await victim.kill()
        await victim.stop()
        await victim.start()
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[:6] == [
        "systemctl kill -s SIGKILL tides@monitor.service",
        "systemctl stop tides@monitor.service",
        "systemctl start tides@monitor.service",
        "docker kill lab-workload-2",
        "docker stop -t 30 lab-workload-2",
        "docker start lab-workload-2",
    ]
    assert "kubectl -n science delete pod/b --wait=true --grace-period=0 --force" in asked
    assert asked[-1] == "kubectl -n science rollout status deployment/tides-stats --timeout=150s"


async def test_a_container_runs_again_once_it_is_healthy_and_one_that_lies_already_has_fallen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    a_program(
        tmp_path,
        "docker",
        f"""cd {tmp_path}; read -r state < state
        case "$1 $state" in
            "kill running "*) echo killed;;
            kill*) echo Container is not running >&2; exit 1;;
            start*) echo running starting > state;;
            "inspect running starting") echo $state; echo running healthy > state;;
            inspect*) echo $state;;
        esac""",
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(targets, "LOOK_EVERY_S", 0.0)
    container = targets.Container("lab-workload-2")
    for lies in ("restarting unhealthy", "exited unhealthy"):
        state.write_text(f"{lies}\n")
        await container.kill()
    await container.start()
    assert state.read_text() == "running healthy\n"
    monkeypatch.setattr(targets, "HEALTHY_WITHIN_S", 0.0)
    refuse = "echo Permission denied >&2; exit 1"
    a_program(tmp_path, "docker", f"case $1 in kill) {refuse};; inspect) echo running starting;; esac")
    with pytest.raises(Failed, match="Permission denied"):
        await container.kill()
    with pytest.raises(Failed, match="lab-workload-2 is running and starting after 0 s"):
        await container.start()


async def test_a_program_that_refuses_or_is_not_there_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    a_program(tmp_path, "docker", "echo Cannot connect to the Docker daemon >&2; exit 1")
    with pytest.raises(Failed, match="Cannot connect to the Docker daemon"):
        await by_compose("lab")
    with pytest.raises(Failed, match="kubectl is not installed here"):
        await by_kubernetes("science", "tides")


def at(*seconds: int) -> list[tuple[datetime, int]]:
    return [(NOON + timedelta(seconds=each), 1) for each in seconds]


def test_an_interval_that_counts_twice_or_not_at_all_is_found() -> None:
    until = NOON + timedelta(seconds=95)
    assert gaps(at(10, 30, 50, 70), NOON, until, 20) == []
    assert gaps(at(10, 30, 70, 90), NOON, until, 20) == ["nothing between 12:00:30 and 12:01:10"]
    assert len(gaps(at(0, 40, 80), NOON, until, 20)) == 2, "every second one"
    assert gaps([*at(10, 30, 70), (NOON + timedelta(seconds=50), 2)], NOON, until, 20) == [
        "12:00:50 counts 2 times"
    ]


def test_what_is_missing_at_the_beginning_or_the_end_is_found() -> None:
    until = NOON + timedelta(hours=1)
    assert gaps([], NOON, until, 20) == ["nothing between 12:00:01 and 12:59:59"]
    assert gaps(at(10), NOON, until, 20) == ["nothing between 12:00:10 and 12:59:59"]
    assert gaps(at(*range(50, 3600, 20)), NOON, until, 20) == ["nothing between 12:00:01 and 12:00:50"]
    assert gaps(at(*range(0, 3560, 20)), NOON, until, 20) == ["nothing between 12:59:00 and 12:59:59"]
    assert gaps([], NOON, NOON + timedelta(seconds=20), 20) == [], "none was due"


def event(id: str, word: str, act: str | None = None, machine: str | None = None) -> dict[str, Any]:
    body = {"action_id": act} if act else {"name": machine}
    return {"id": id, "key": f"action.{word}.v1", "machine_id": machine, "body": body}


class Installation(Client):
    """Answers from what it was given; the log in pages of two."""

    def __init__(self) -> None:
        self.log: list[dict[str, Any]] = []
        self.read: list[str] = []
        self.items: dict[str, list[dict[str, Any]]] = {}
        self.samples: set[datetime] = set()

    async def call(self, method: str, path: str, body: Any = None, **given: Any) -> Any:
        asked = given["params"]
        if path == "/v1/stats/usage":
            since, until = (datetime.fromisoformat(asked[name]) for name in ("from", "to"))
            there = sorted(each for each in self.samples if since <= each < until)
            return {"points": [{"at": each.isoformat(), "samples": 1} for each in there]}
        if path != "/v1/events":
            return {"items": self.items[path]}
        start = int(asked["cursor"] or 0)
        page = self.log[start : start + 2]
        self.read += [each["id"] for each in page]
        return {"items": page, "next_cursor": str(start + len(page)) if page else None}


async def test_an_act_without_an_end_with_two_or_a_machine_made_twice_is_found() -> None:
    tides = Installation()
    acts = Acts(tides)
    tides.log += [
        event("0", "limits_requested", "of old"),
        event("1", "machine_requested", machine="m"),
        event("2", "machine_deployed", machine="m"),
    ]
    await acts.read(is_fresh=False)
    tides.log += [event("3", "limits_requested", "a"), event("4", "limits_failed", "a")]
    await acts.read(is_fresh=True)
    assert acts.wrong() == ["act a has no outcome"], "what was begun before is not judged"
    tides.log.append(event("5", "limits_applied", "a"))
    await acts.read(is_fresh=True)
    assert acts.wrong() == []
    tides.log += [event("6", "limits_superseded", "a"), event("7", "machine_deployed", machine="m")]
    await acts.read(is_fresh=True)
    assert acts.wrong() == ["act a ended 2 times", "m was deployed 2 times"]
    assert tides.read == [str(number) for number in range(8)], "each is read once"
    assert (acts.fresh, acts.begun) == (5, ["a"])


async def test_clusters_that_nobody_watches_and_intervals_longer_than_asked_for_are_told_apart() -> None:
    tides, hour = Installation(), timedelta(hours=1)
    tides.items["/v1/clusters"] = [
        {"id": "1", "name": "lab", "resource_id": "r", "sampled_at": "then"},
        {"id": "2", "name": "lost", "resource_id": "s", "sampled_at": "then"},
    ]
    tides.items["/v1/monitors"] = [
        {"resource_id": "r", "sampled_at": "then", "clock_offset_s": 0.0, "interval_s": 5.0}
    ]
    tides.samples = {NOON + timedelta(seconds=each) for each in range(-600, 3600, 20)}
    audit = Auditor(tides, NOON, NOON + hour, Acts(tides))
    lost = "lost: nobody watches it, or it was never sampled"
    assert (await audit.samples()).wrong == (lost,), "the cloud measures every 20 s, whatever was asked for"
    tides.samples = {each for each in tides.samples if each < NOON or each.second in (0, 40)}
    told = (await audit.samples()).wrong
    assert len(told) == 1 + 60, "every third was lost"


class Away(Client):
    """Nobody is there."""

    def __init__(self) -> None:
        pass

    async def call(self, method: str, path: str, body: Any = None, **given: Any) -> Any:
        raise Failed("cannot reach it")


async def test_the_audit_takes_no_database_from_a_service_that_is_about_to_start_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "postgres" / "cluster").mkdir(parents=True)
    monkeypatch.setenv("TIDES_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("TIDES_DATABASE_URL", raising=False)
    accounts = await Auditor(Away(), NOON, NOON, Acts(Away())).look()
    assert [account.wrong for account in accounts] == [("cannot reach it",)] * 3 + [()]
    assert not accounts[-1].is_known
    assert not (tmp_path / "postgres" / "lock").exists()
