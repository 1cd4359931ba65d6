"""SIGTERM, on a process of its own with RabbitMQ: what is in hand is settled or given back, and nothing is held."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import aiohttp
import asyncpg
import pytest

from libs.common.bus import open_bus
from libs.common.bus.base import Queue
from libs.common.contracts.action import ClusterPaused
from libs.common.contracts.usage import UsageSampled
from libs.common.service import queue_name
from tests.support import until
from tests.system.processes import Deployment, Process

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("processes")]

WITHIN_S = 20.0
PAUSED = Queue("test.paused", (ClusterPaused.key,))
SAMPLES = Queue(queue_name("workload", UsageSampled.key), ())


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def leases(url: str) -> list[Any]:
    """Who holds the resource, for monitor and for workload."""
    query = "select lease_token from monitor.resource union all select lease_token from workload.resource"
    async with asking(url) as connection:
        return [row["lease_token"] for row in await connection.fetch(query)]


async def waiting_writers(url: str) -> int:
    query = "select count(*) from pg_locks where not granted and locktype in ('transactionid', 'tuple')"
    async with asking(url) as connection:
        return int(await connection.fetchval(query))


async def published(url: str) -> Any:
    """The end of the newest interval that the bus has taken."""
    async with asking(url) as connection:
        return await connection.fetchval("select sampled_at from monitor.resource")


async def statuses(process: Process) -> set[int]:
    """Every answer of `/readyz` until the process has ended."""
    seen: set[int] = set()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
        while process.is_running:
            try:
                async with http.get(f"{process.url}/readyz") as answer:
                    seen.add(answer.status)
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.05)
    return seen


async def test_a_process_that_is_told_to_stop_settles_hands_back_and_ends_in_time(
    tmp_path: Path, database_url: str, amqp_url: str
) -> None:
    deployment = Deployment(tmp_path, database_url, amqp_url)
    bus = await open_bus(amqp_url)
    try:
        await bus.declare([PAUSED])
        process = await deployment.start("one", "registry", "monitor", "workload")
        given: dict[str, Any] = {
            "name": "lab",
            "provider": "simulated",
            "url": "sim://lab",
            "username": "tides",
        }
        given |= {"password": "x", "interval_s": 1, "settings": {"interval_s": 1}}
        await deployment.ask("one", "POST", "/v1/resources", given)
        cluster, *_ = await until(lambda: _clusters(deployment), 30, "a cluster that is judged")
        await until(lambda: _all_held(database_url), 30, "leases")
        async with asking(database_url) as owner:
            await owner.execute("begin; select 1 from workload.cluster for update")
            pause = asyncio.create_task(
                deployment.ask("one", "POST", f"/v1/clusters/{cluster['id']}/pause", {"reason": "stop"})
            )
            await until(lambda: _count(database_url, 2), 30, "a request and a sample in hand")
            # Others wait for the cluster, too: what is published from now on cannot be settled before the end.
            known = await published(database_url)
            await until(lambda: _is_newer(database_url, known), 30, "a sample that nobody can settle")
            assert process.process is not None
            began = perf_counter()
            process.process.send_signal(signal.SIGTERM)
            await until(lambda: process.facts("runner.stopping"), 10, "the order to be heard")
            looking = asyncio.create_task(statuses(process))
            await owner.execute("commit")
        assert await pause is not None, "who was being answered is answered"
        async with asyncio.timeout(WITHIN_S):
            ended = await process.process.wait()
        took_s = perf_counter() - began
        seen = {queue.name: queue for queue in (await bus.look([PAUSED.name, SAMPLES.name])).queues}
    finally:
        await deployment.stop()
        await bus.aclose()
    print(f"ended after {took_s:.2f} s")  # noqa: T201 - the figure
    assert (ended, took_s < WITHIN_S) == (0, True), process.tail()
    assert await looking <= {503}, "nobody is told that it is ready"
    assert await leases(database_url) == [None, None]
    assert seen[PAUSED.name].waiting == 1, "what was said while stopping went out"
    assert seen[SAMPLES.name].waiting, "the sample in hand waits for another"
    assert seen[SAMPLES.name].consumers == 0
    told = {(fact["event"], fact["service"]) for fact in process.facts()}
    assert {("runner.stopping", "registry-monitor-workload"), ("cluster.paused", "workload")} <= told


async def _clusters(deployment: Deployment) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await deployment.ask("one", "GET", "/v1/clusters"))["items"]
    return [item for item in items if item["decided_at"] is not None or item["sampled_at"] is not None]


async def _all_held(url: str) -> bool:
    held = await leases(url)
    return len(held) == 2 and None not in held


async def _is_newer(url: str, known: Any) -> bool:
    return bool(await published(url) != known)


async def _count(url: str, least: int) -> bool:
    return await waiting_writers(url) >= least
