"""`tides demo` as a newcomer uses it: days that repeat exactly, a screen, Ctrl-C, and going on where it was."""

import asyncio
import json
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from libs.boinc.credit import CREDIT_PER_GFLOPS_DAY
from services.cli.client import Client, Target, open_client
from services.cli.demo.place import Place
from tests.support import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
TIDES = [sys.executable, "-m", "services.cli"]
FIRST_SIGHT_S = 60.0
STOP_WITHIN_S = 30.0
DAYS_WITHIN_S = 300.0


async def run_days(*words: str) -> dict[str, Any]:
    """The summary; anything else on standard output, or a word on standard error, fails."""
    process = await asyncio.create_subprocess_exec(
        *TIDES, "demo", *words, "--json", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(DAYS_WITHIN_S):
        out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    summary: dict[str, Any] = json.loads(out)
    return summary


async def test_the_same_days_twice_are_the_same_summary() -> None:
    one, two = await asyncio.gather(run_days("--days", "0.25"), run_days("--days", "0.25"))

    assert one == two
    assert list(one) == [
        "samples", "decisions", "deploys", "destroys", "limit_changes", "core_hours", "contention_percent",
        "machines_left", "events", "credit", "projects",
    ]  # fmt: skip
    assert one["samples"] == 3 * 360
    assert one["core_hours"] > 100
    assert one["contention_percent"] < 1
    assert one["deploys"] == one["machines_left"] > 0
    assert one["limit_changes"] > one["deploys"]
    [(name, lab)] = one["projects"].items()
    assert (name, lab["credit"]) == ("Lab", one["credit"])
    assert 0.9 * one["core_hours"] < lab["core_hours"] < one["core_hours"]
    granted = one["credit"] * 24 / CREDIT_PER_GFLOPS_DAY
    assert 0.95 * lab["core_hours"] < granted < lab["core_hours"], "what is not finished is not granted"


async def test_stopping_gives_everything_back() -> None:
    summary = await run_days("--days", "0.02", "--stop")

    assert summary["machines_left"] == 0
    assert summary["destroys"] == summary["deploys"] > 0


async def test_interrupted_days_end_in_order_without_a_summary(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *TIDES, "demo", "--days", "30",
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    server = "tides-*/postgres/cluster/postmaster.pid"
    await until(lambda: list(tmp_path.glob(server)), FIRST_SIGHT_S, "the database server is being started")
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(STOP_WITHIN_S):
        out, err = await process.communicate()

    assert (process.returncode, out, err) == (130, b"", b"tides: interrupted, no summary\n")
    assert list(tmp_path.glob("tides-*")) == []


@dataclass
class Shown:
    """A demo that runs; `text` is what it has shown so far."""

    process: asyncio.subprocess.Process
    file: Path

    @property
    def text(self) -> str:
        return self.file.read_text(errors="replace")

    async def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(STOP_WITHIN_S):
            return await self.process.wait()


@asynccontextmanager
async def running(folder: Path, *, terminal: bool) -> AsyncIterator[Shown]:
    """A demo at sixty times real time, on a terminal or in a pipe."""
    file = folder.with_suffix(".shown")
    file.touch()
    screen, side = (
        pty.openpty() if terminal else (None, os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    )
    process = await asyncio.create_subprocess_exec(
        *TIDES, "demo", "--speed", "60", "--dir", str(folder),
        env={**os.environ, "TIDES_PORT": "0", "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
        stdin=asyncio.subprocess.DEVNULL, stdout=side, stderr=side, preexec_fn=_hear_hangups,
    )  # fmt: skip
    os.close(side)
    reading = asyncio.create_task(_copy(screen, file)) if screen is not None else None
    try:
        yield Shown(process, file)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if reading is not None:
            await reading


def _hear_hangups() -> None:
    """As in a terminal, also where the tests themselves run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


async def _copy(screen: int, file: Path) -> None:
    """What appears on the terminal, until the other side is closed."""
    with file.open("ab") as sink:
        while True:
            try:
                piece = await asyncio.to_thread(os.read, screen, 65536)
            except OSError:
                break
            if not piece:
                break
            sink.write(piece)
            sink.flush()
    os.close(screen)


@asynccontextmanager
async def client_of(shown: Shown, place: Place) -> AsyncIterator[Client]:
    """Asks the address that the demo has printed."""
    found = re.findall(r"API +(http://\S+)", shown.text)
    async with open_client(Target(found[-1], SecretStr(place.kept.admin_token))) as client:
        yield client


async def test_it_is_seen_on_a_terminal_stops_in_order_and_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    async with running(folder, terminal=True) as first:
        await until(lambda: "owner idle for" in first.text, FIRST_SIGHT_S, "the first decision on screen")
        await until(lambda: "machine deployed" in first.text, FIRST_SIGHT_S, "the first machine on screen")
        place = Place(folder)
        assert place.kept.admin_token in first.text
        async with client_of(first, place) as client:
            resource, before = await seen_by(client)
        assert await first.stop(signal.SIGINT) == 0
        assert first.text.rstrip().endswith("stopped; ./dev demo again continues")
        for figure in (
            "█ owner",
            "prod-a",
            "core-h",
            "budget",
            "machines:",
            "last actions",
            "simulated time",
        ):
            assert figure in first.text

    shown_before = len(first.text)
    async with running(folder, terminal=False) as second:
        await until(lambda: "prod-a: " in second.text[shown_before:], FIRST_SIGHT_S, "the first line")
        async with client_of(second, place) as client:
            again, after = await seen_by(client)
        assert (again["id"], again["mode"]) == (resource["id"], "lend")
        assert before <= after, "machines of the first run are still there"
        assert await second.stop(signal.SIGHUP) == 0, "a closed terminal is an orderly stop, too"
        assert "\x1b" not in second.text[shown_before:]


async def seen_by(client: Client) -> tuple[dict[str, Any], set[str]]:
    """The resource, and the machines that run."""
    resources = await client.pages("/v1/resources")
    assert len(resources) == 1
    machines = await client.pages("/v1/machines")
    return resources[0], {machine["name"] for machine in machines if machine["state"] == "running"}
