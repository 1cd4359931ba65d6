"""What is asked of the pipeline: work off a backlog, keep pace, come back after an outage, bear a slow database."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles
from uuid import UUID

import asyncpg

from libs.common.bus.messages import to_message
from libs.common.ids import cluster_id
from tests.support import until
from tools.bench._pipeline_house import SERVICES, SOURCE, Installation
from tools.parts.wire import Wire

GIVE_UP_S = 900.0
TTL_S = 60.0
"""After so long a sample is too old for workload: `sample_ttl_s`, three intervals."""
FRESH_ROUNDS = 3
"""Rounds that came within that time."""

Figures = dict[str, float]


@dataclass
class Goal:
    """What is waited for: since when, and how far it is."""

    inn: Installation
    began: float

    async def judged(self, tick: int) -> float:
        """Seconds until every cluster has a committed decision about this round or a later one."""
        return await self._until(lambda: self._is_judged(tick), "every cluster judged")

    async def stored(self, count: int) -> float:
        """Seconds until stats has so many samples."""

        async def is_stored() -> bool:
            return await self.inn.stored() >= count

        return await self._until(is_stored, "every sample stored")

    async def _is_judged(self, tick: int) -> bool:
        return await self.inn.judged(tick) == self.inn.load.samples

    async def _until(self, done: Callable[[], Awaitable[bool]], what: str) -> float:
        await until(done, timeout=GIVE_UP_S, what=what)
        return time.perf_counter() - self.began


async def backlog(inn: Installation, ticks: Sequence[int]) -> Figures:
    """Publish rounds at once; samples per second until all are judged, and until all are stored."""
    before, stored = inn.cpu_s(), await inn.stored()
    goal = Goal(inn, time.perf_counter())
    count = await inn.publish(ticks)
    judged_s = await goal.judged(ticks[-1])
    stored_s = await goal.stored(stored + count)
    spent = {name: cpu - before[name] for name, cpu in inn.cpu_s().items()}
    return {
        "samples": count,
        "judged_per_s": count / judged_s,
        "stored_per_s": count / stored_s,
        "judge_us": 1e6 * spent["workload"] / count,
        "store_us": 1e6 * spent["stats"] / count,
    }


async def steady(inn: Installation, first: int, rounds: int, pace_s: float) -> Figures:
    """Publish one round in `pace_s` seconds, evenly; how long a message's clusters wait for their decisions."""
    load, before = inn.load, inn.cpu_s()
    began = time.perf_counter()
    tasks = []
    for tick in range(first, first + rounds):
        for number, resource_id in enumerate(load.resources):
            due = began + pace_s * (tick - first + number / len(load.resources))
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            published = time.perf_counter()
            await inn.bus.publish(to_message(load.message(resource_id, tick), SOURCE))
            if number % max(1, len(load.resources) // 10) == 0:
                tasks.append(asyncio.create_task(_wait(inn, resource_id, tick, published)))
    took = await asyncio.gather(*tasks)
    wall = time.perf_counter() - began
    spent = {name: (cpu - before[name]) / wall for name, cpu in inn.cpu_s().items()}
    cuts = quantiles(took, n=100, method="inclusive")
    return {
        "samples_per_s": load.samples * rounds / wall,
        "p50_s": cuts[49],
        "p99_s": cuts[98],
        "workload_cores": spent["workload"],
        "stats_cores": spent["stats"],
    }


async def _wait(inn: Installation, resource_id: UUID, tick: int, published: float) -> float:
    ids = [cluster_id(resource_id, f"domain-c{number}") for number in range(inn.load.clusters)]
    query = "select count(*) from workload.cluster where id = any($1) and sampled_at >= $2"
    connection = await asyncpg.connect(inn.deployment.database_url)
    try:
        async with asyncio.timeout(GIVE_UP_S):
            while await connection.fetchval(query, ids, inn.load.at(tick)) < inn.load.clusters:  # noqa: ASYNC110 - a commit is not announced
                await asyncio.sleep(0.02)
    finally:
        await connection.close()
    return time.perf_counter() - published


async def outage(inn: Installation, ticks: range) -> Figures:
    """Both services die and rounds go on; what they do about that when they are back, from being ready on."""
    processes, stored = inn.deployment.processes, await inn.stored()
    for name in SERVICES:
        await processes[name].kill()
    count = await inn.publish(ticks[:-FRESH_ROUNDS])
    await asyncio.sleep(TTL_S)
    count += await inn.publish(ticks[-FRESH_ROUNDS:])
    await processes["workload"].start()
    fresh_s = await Goal(inn, time.perf_counter()).judged(ticks[-FRESH_ROUNDS])
    await processes["stats"].start()
    left = stored + count - await inn.stored()
    drained_s = await Goal(inn, time.perf_counter()).stored(stored + count)
    return {"rounds": len(ticks), "fresh_s": fresh_s, "drained_per_s": left / drained_s}


async def slow_database(inn: Installation, ticks: range, delay_s: float, for_s: float) -> Figures:
    """Every answer of the database comes late while rounds wait: how much memory that takes, at most."""
    processes, stored = inn.deployment.processes, await inn.stored()
    async with Wire.before(inn.deployment.database_url) as wire:
        for name in SERVICES:
            await processes[name].stop()
            processes[name].environment["TIDES_DATABASE_URL"] = wire.url
            await processes[name].start()
        wire.delay_s = delay_s
        count = await inn.publish(ticks)
        await asyncio.sleep(for_s)
        stored_meanwhile, wire.delay_s = await inn.stored() - stored, 0.0
        await Goal(inn, time.perf_counter()).stored(stored + count)
        peaks = {f"{name}_peak_mib": mib for name, mib in inn.peak_mib().items()}
        for name in SERVICES:
            await processes[name].stop()
    return {"delay_s": delay_s, "stored_per_s": stored_meanwhile / for_s, **peaks}
