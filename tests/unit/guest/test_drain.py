"""The drain by itself, on a client that computes second by second: what is saved, what is handed back, how soon."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def load() -> ModuleType:
    path = Path(__file__).parents[3] / "libs" / "guest" / "agent.py"
    spec = importlib.util.spec_from_file_location("tides_agent_drain", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


agent: Any = load()


class Client:
    """A client of so many processors: tasks of (needs, checkpoint period) seconds; it looks at orders once a second."""

    def __init__(self, tasks: dict[str, tuple[float, float]], cpus: int) -> None:
        self.tasks_ = {
            name: {"needs": needs, "period": period, "cpu": 0.0, "saved": 0.0, "suspended": False, "state": 2,
                   "ready": False, "executing": False, "started": False}
            for name, (needs, period) in tasks.items()
        }  # fmt: skip
        self.cpus = cpus
        self.fetching = True
        self.reported: list[str] = []
        self.ended: dict[str, float] | None = None
        self.away = False

    def second(self) -> None:
        """One second goes by."""
        for task in self.tasks_.values():
            if task["executing"]:
                task["cpu"] += 1.0
                if task["cpu"] - task["saved"] >= task["period"]:
                    task["saved"] = task["cpu"]
                if task["cpu"] >= task["needs"]:
                    task.update(state=5, ready=True, executing=False, saved=task["cpu"])
        room = self.cpus
        for task in self.tasks_.values():
            runs = task["state"] == 2 and not task["suspended"] and room > 0
            room -= runs
            task["executing"] = runs
            task["started"] = task["started"] or runs

    def tasks(self) -> list[dict[str, Any]]:
        if self.away or self.ended is not None:
            raise ConnectionRefusedError("away")
        return [
            {
                "name": name, "url": "u", "state": task["state"], "ready": task["ready"],
                "suspended": task["suspended"],
                "started": task["started"] and task["state"] == 2, "executing": task["executing"],
                "cpu_s": task["cpu"], "saved_s": task["saved"], "done": 0.5, "remaining_s": task["needs"] - task["cpu"],
            }
            for name, task in self.tasks_.items()
        ]  # fmt: skip

    def projects(self) -> list[str]:
        return ["u"]

    def with_project(self, operation: str, _url: str) -> None:
        if operation == "project_nomorework":
            self.fetching = False
        if operation == "project_update":
            for name in [name for name, task in self.tasks_.items() if task["ready"]]:
                self.reported.append(name)
                del self.tasks_[name]

    def with_task(self, operation: str, task: dict[str, Any]) -> None:
        found = self.tasks_.get(task["name"])
        if found is None:
            return
        if operation == "suspend_result":
            found["suspended"] = True
        if operation == "abort_result":
            found.update(state=6, ready=True, executing=False)

    def ask(self, body: str) -> str:
        assert body == "<quit/>"
        if self.away:
            raise ConnectionRefusedError("away")
        self.ended = {
            name: task["cpu"] - task["saved"] for name, task in self.tasks_.items() if task["started"]
        }
        return ""


def drained(
    client: Client, deadline_s: float, keeps_disk: bool, warm_s: int = 7
) -> tuple[dict[str, Any], int]:
    """The outcome and when it came, in seconds."""
    for _ in range(warm_s):
        client.second()
    drain = agent.Drain(client, 0.0, deadline_s, keeps_disk)
    for now in range(int(deadline_s) + 30):
        client.second()
        outcome = drain.step(float(now))
        if outcome is not None:
            return outcome, now
    raise AssertionError("it never ended")


def test_tasks_are_frozen_right_after_their_checkpoint_and_waiting_ones_do_not_begin() -> None:
    client = Client({"a": (900, 10), "b": (900, 14), "c": (900, 10), "d": (900, 10)}, cpus=2)

    outcome, at = drained(client, 60, keeps_disk=True)

    assert client.ended is not None
    assert max(client.ended.values()) <= 2
    assert outcome["lost_cpu_s"] == sum(client.ended.values())
    assert at <= 14
    assert (client.fetching, outcome["aborted"]) == (False, 0)
    assert not client.tasks_["d"]["started"]


def test_a_task_that_never_saves_is_frozen_at_the_end_and_its_loss_told() -> None:
    client = Client({"a": (900, 900), "b": (900, 5)}, cpus=2)

    outcome, at = drained(client, 30, keeps_disk=True)

    assert client.ended is not None
    assert client.ended["a"] > 25
    assert abs(outcome["lost_cpu_s"] - sum(client.ended.values())) <= 2
    assert at <= 30


def test_where_the_disk_goes_what_can_finish_does_and_the_rest_is_handed_back_at_once() -> None:
    client = Client({"quick": (20, 900), "long": (900, 5), "waiting": (900, 5)}, cpus=2)

    outcome, at = drained(client, 60, keeps_disk=False)

    assert sorted(client.reported) == ["long", "quick", "waiting"]
    assert client.reported[-1] == "quick"
    assert (outcome["aborted"], outcome["finished"]) == (2, 1)
    assert 6 <= outcome["lost_cpu_s"] <= 9
    assert at < 25


def test_no_grace_at_all_still_ends_in_order() -> None:
    client = Client({"a": (900, 5)}, cpus=1)

    outcome, at = drained(client, 0, keeps_disk=False)

    assert outcome["aborted"] == 1
    assert client.ended is not None
    assert at <= 6


def test_a_client_without_work_is_drained_at_once() -> None:
    outcome, at = drained(Client({}, cpus=1), 60, keeps_disk=False)

    assert (outcome["lost_cpu_s"], outcome["tasks"], at) == (0.0, 0, 0)


@settings(max_examples=150, deadline=None)
@given(
    tasks=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 60)), max_size=6),
    cpus=st.integers(1, 4),
    deadline_s=st.integers(0, 90),
    keeps_disk=st.booleans(),
    warm_s=st.integers(0, 80),
)
def test_every_drain_ends_in_time_starts_nothing_and_tells_what_was_lost(
    tasks: list[tuple[int, int]], cpus: int, deadline_s: int, keeps_disk: bool, warm_s: int
) -> None:
    client = Client({f"t{n}": (float(needs), float(period)) for n, (needs, period) in enumerate(tasks)}, cpus)

    outcome, at = drained(client, deadline_s, keeps_disk, warm_s)

    assert at <= deadline_s + 6
    assert client.ended is not None
    assert not client.fetching
    lost = sum(client.ended.values())
    if keeps_disk:
        assert abs(outcome["lost_cpu_s"] - lost) <= 2 * cpus
    else:
        assert outcome["lost_cpu_s"] >= 0


@pytest.mark.parametrize("seconds", [0, 2])
def test_a_client_that_is_away_or_goes_away_ends_the_drain_soon(tmp_path: Path, seconds: int) -> None:
    files = {"state": str(tmp_path / "s" / "agent.json"), "heard": str(tmp_path / "heard")}
    one = agent.Agent({"door": "https://127.0.0.1:9/", "token": "t"} | files, 0.0)
    client = Client({"a": (900, 900)}, cpus=1)
    client.second()
    one.boinc, one._contact = client, lambda now: None
    one._hear({"commands": [{"id": "x", "do": "drain", "deadline_s": 500}]}, 0.0)
    for now in range(20):
        client.away = now >= seconds
        one.step(float(now))
    assert "x" in one.state["outcomes"]
    assert one.drain is None
