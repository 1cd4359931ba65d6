"""What storms are made of: plans by seed, wires that are cut in silence, clocks that step, an account of outcomes."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import until
from tests.system.action_log import ended_twice, without_outcome
from tests.system.gusts import BLOWS
from tests.system.storm import forecast
from tools.parts.faketime import OwnClock, find_library
from tools.parts.wire import Wire

TELL = "import sys, time\nfor line in sys.stdin: print(time.time(), flush=True)"


def test_a_seed_forecasts_the_same_gusts_and_each_comes_before_any_comes_again() -> None:
    gusts = forecast(3600, seed=3)
    assert gusts == forecast(3600, seed=3) != forecast(3600, seed=4)
    dealt = [gust.what for gust in gusts]
    for start in range(0, len(dealt) - len(BLOWS), len(BLOWS)):
        assert sorted(dealt[start : start + len(BLOWS)]) == sorted(BLOWS)


async def test_a_wire_that_is_cut_loses_nothing_and_tells_nobody() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Wire.before(f"amqp://me:secret@127.0.0.1:{port}/lab") as wire:
        assert wire.url.startswith("amqp://me:secret@127.0.0.1:")
        assert wire.url.endswith("/lab")
        door = int(wire.url.rpartition(":")[2].partition("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", door)
        writer.write(b"one\n")
        assert await reader.readline() == b"one\n"
        wire.cut()
        writer.write(b"two\n")
        _, late = await asyncio.open_connection("127.0.0.1", door)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.read(1)
        wire.mend()
        assert await reader.readline() == b"two\n"
        writer.write_eof()
        assert await reader.read() == b"", "the other end's end arrives"
        writer.close()
        late.close()


async def test_a_process_has_a_clock_of_its_own_that_steps(tmp_path: Path) -> None:
    clock = OwnClock(find_library(), tmp_path / "clock")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-c", TELL),
        env=clock.environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    answers, asks = process.stdout, process.stdin

    async def ahead_s() -> float:
        asks.write(b"\n")
        return float(await answers.readline()) - float((await _date()).decode())

    async def is_ahead(least: float, most: float) -> bool:
        return least < await ahead_s() < most

    assert abs(await ahead_s()) < 5
    clock.step(90)
    await until(lambda: is_ahead(85, 95), what="a clock that is ahead")
    clock.step(-45.5)
    await until(lambda: is_ahead(-51, -40), what="a clock that is behind")
    asks.close()
    await process.wait()


async def _date() -> bytes:
    process = await asyncio.create_subprocess_exec("date", "+%s.%N", stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0]


def test_an_act_that_ended_twice_or_never_is_found() -> None:
    def event(word: str, act: str) -> dict[str, Any]:
        return {"key": f"action.limits_{word}.v1", "machine_id": None, "body": {"action_id": act}}

    once = [event("requested", "a"), event("failed", "a"), event("applied", "a"), event("superseded", "b")]
    assert ended_twice(once) == []
    assert without_outcome(once) == []
    assert without_outcome(once[::-1]) == [], "the log's order is that of transactions"
    assert without_outcome(once[:2]) == ["a: limits_requested, limits_failed"]
    assert ended_twice([*once, event("superseded", "a")]) == ["limits_applied and limits_superseded"]
