"""`tides chaos`: what it refuses, what it hits, and which accounts do not agree."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.cli.chaos.audit import gaps, judge_acts
from services.cli.chaos.targets import ByPid, by_compose, by_kubernetes, by_pid_files, by_systemd
from services.cli.client import Failed
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
    a_program(tmp_path, "docker", "printf 'lab-workload-2\\tworkload\\nlab-postgres-1\\tpostgres\\n'")
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
    (tmp_path / "asked").unlink()
    for victim in (unit[1], container[1], pods["tides-stats-1"]):
        await victim.kill()
        await victim.stop()
        await victim.start()
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[:6] == [
        "systemctl kill --kill-whom=all -s SIGKILL tides@monitor.service",
        "systemctl stop tides@monitor.service",
        "systemctl start tides@monitor.service",
        "docker kill lab-workload-2",
        "docker stop -t 30 lab-workload-2",
        "docker start lab-workload-2",
    ]
    assert "kubectl -n science delete pod/b --wait=true --grace-period=0 --force" in asked
    assert asked[-1] == "kubectl -n science rollout status deployment/tides-stats --timeout=150s"


async def test_a_program_that_refuses_or_is_not_there_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    a_program(tmp_path, "docker", "echo Cannot connect to the Docker daemon >&2; exit 1")
    with pytest.raises(Failed, match="Cannot connect to the Docker daemon"):
        await by_compose("lab")
    with pytest.raises(Failed, match="kubectl is not installed here"):
        await by_kubernetes("science", "tides")


def test_an_interval_that_counts_twice_or_not_at_all_is_found() -> None:
    def at(*seconds: int) -> list[tuple[datetime, int]]:
        return [(NOON + timedelta(seconds=each), 1) for each in seconds]

    assert gaps(at(0, 20, 40, 60)) == []
    assert gaps(at(0, 20, 60, 80)) == ["nothing between 12:00:20 and 12:01:00"]
    assert gaps([*at(0, 20), (NOON + timedelta(seconds=40), 2)]) == ["12:00:40 counts 2 times"]
    assert gaps([]) == ["no sample at all"]


def event(id: str, word: str, act: str | None = None, machine: str | None = None) -> dict[str, Any]:
    body = {"action_id": act} if act else {"name": machine}
    return {"id": id, "key": f"action.{word}.v1", "machine_id": machine, "body": body}


def test_an_act_without_an_end_with_two_or_a_machine_made_twice_is_found() -> None:
    whole = [
        event("1", "limits_requested", "a"),
        event("2", "limits_failed", "a"),
        event("3", "limits_applied", "a"),
        event("4", "machine_requested", machine="m"),
        event("5", "machine_deployed", machine="m"),
    ]
    assert judge_acts(whole, set()) == []
    assert judge_acts(whole[:2], set()) == ["act a has no outcome"]
    assert judge_acts(whole[:2], {"1"}) == [], "it was begun before"
    assert judge_acts([*whole, event("6", "limits_superseded", "a")], set()) == ["act a ended 2 times"]
    assert judge_acts([*whole, event("7", "machine_deployed", machine="m")], set()) == [
        "m was deployed 2 times"
    ]
