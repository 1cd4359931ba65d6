"""Consumers are processes, and processes are killed."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from libs.common.bus.base import Bus
from tests.contract.bus.company import LEASE_S, Listener, a_message, a_queue, listening
from tests.support import until

OpenBus = Callable[[], Awaitable[Bus]]
ROOT = Path(__file__).parents[3]


@asynccontextmanager
async def a_process(url: str, limit: int = 20) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.contract.bus.listen",
        url,
        str(limit),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _says(process: asyncio.subprocess.Process, count: int) -> list[str]:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return [(await process.stdout.readline()).decode().strip() for _ in range(count)]


async def test_what_a_killed_process_was_handling_is_handled_elsewhere(
    open_bus: OpenBus, bus_url: str
) -> None:
    bus = await open_bus()
    await bus.declare([a_queue()])
    ids = [f"m{number}" for number in range(25)]
    listener = Listener()

    async with a_process(bus_url) as process:
        for id in ids:
            await bus.publish(a_message(id))
        taken = await _says(process, 10)
        process.kill()
        await process.wait()

    async with listening(bus, a_queue(), listener):
        await until(lambda: set(listener.ids) == set(ids), timeout=LEASE_S + 10)
        await until(lambda: _is_empty(bus))
    assert len(set(taken)) == 10
    assert listener.counts.total() == len(ids)


async def test_a_message_that_kills_every_consumer_is_parked(open_bus: OpenBus, bus_url: str) -> None:
    bus = await open_bus()
    limit = 1
    await bus.declare([replace(a_queue(), delivery_limit=limit)])
    await bus.publish(a_message("fatal"))

    async with a_process(bus_url, limit) as process:
        assert await _says(process, 1) == ["fatal"]
    # RabbitMQ delivers it once more than its limit says.
    async with a_process(bus_url, limit) as process:
        saying = asyncio.create_task(_says(process, 1))
        await until(lambda: saying.done() or _is_parked(bus), timeout=10)
        process.kill()
        await asyncio.wait([saying])

    (dead,) = await until(bus.dead)
    assert (dead.queue, dead.message.id, dead.message.key) == (a_queue().name, "fatal", "thing.done.v1")
    assert await bus.retry_dead() == 1
    assert await until(bus.depth) == 1


async def test_a_long_handler_keeps_its_message(open_bus: OpenBus) -> None:
    busy, idle = await open_bus(), await open_bus()
    await busy.declare([a_queue()])

    async def take_long(_: object) -> None:
        await asyncio.sleep(2 * LEASE_S)

    slow, other = Listener(take_long), Listener()
    async with listening(busy, a_queue(), slow):
        await busy.publish(a_message("long"))
        await until(lambda: slow.busy)
        async with listening(idle, a_queue(), other):
            await until(lambda: slow.ids == ["long"])
            await until(lambda: _is_empty(busy))
    assert (len(slow.begun), other.begun) == (1, [])


async def test_another_process_is_woken_at_once(open_bus: OpenBus) -> None:
    talking, hearing = await open_bus(), await open_bus()
    await talking.declare([a_queue()])
    listener = Listener()
    loop = asyncio.get_running_loop()

    async with listening(hearing, a_queue(), listener):
        await talking.publish(a_message("first"))
        await until(lambda: listener.ids == ["first"])
        await asyncio.sleep(0.2)
        begun_at = loop.time()
        await talking.publish(a_message("second"))
        await until(lambda: listener.ids[-1] == "second")
        assert loop.time() - begun_at < 0.3


async def _is_parked(bus: Bus) -> bool:
    return bool(await bus.dead())


async def _is_empty(bus: Bus) -> bool:
    return await bus.depth() == 0
