"""How many samples workload and stats carry from RabbitMQ to committed decisions and rows, and what that costs.

Two phases on one installation. `backlog`: rounds that were published at once are worked off; beside them, in the same
run, what the wires themselves could: consuming the same messages with aio-pika alone, and COPY with de-duplication of
the same host rows. `steady`: one round per interval at the given pace, and the time from a message on the bus to the
committed decision about each of its clusters.
"""

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from statistics import quantiles
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from rich.console import Console
from rich.table import Table

from libs.common.bus import open_bus
from libs.common.bus.base import Bus
from libs.common.bus.messages import to_message
from libs.common.clock import WallClock
from libs.common.contracts.resource import Mode, ResourceChanged
from libs.common.contracts.supply import PolicyAssigned, Scope
from libs.common.contracts.usage import HostState, Sample, UsageSampled
from libs.common.ids import cluster_id
from libs.common.log import configure
from tests.support import until
from tests.system.processes import Deployment
from tools.bench._pipeline_wires import consume_alone, copy_alone
from tools.parts.postgres import PostgresServer
from tools.parts.rabbitmq import RabbitNode

INTERVAL_S = 20.0
HOST_MHZ, HOST_MIB = 41_600.0, 262_144.0
GIVE_UP_S = 900.0
SERVICES = ("workload", "stats")
POLICY: dict[str, Any] = {
    "name": "bench",
    "cpu": {"idle": 0.3, "stop_new": 0.65, "reclaim": 0.8},
    "machine": {"template": "worker", "vcpus": 2, "memory_mib": 2048, "disk_gib": 10},
}


@dataclass
class Load:
    """What is published: resources of alike clusters, whose owners' load wanders from round to round."""

    resources: list[UUID]
    clusters: int
    hosts: int
    began: datetime
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    @property
    def samples(self) -> int:
        """Per round."""
        return len(self.resources) * self.clusters

    def at(self, tick: int) -> datetime:
        """The end of a round's interval."""
        return self.began + timedelta(seconds=INTERVAL_S * tick)

    def message(self, resource_id: UUID, tick: int) -> UsageSampled:
        """One round over one resource."""
        at = self.at(tick)
        samples = tuple(self._sample(number, at) for number in range(self.clusters))
        return UsageSampled(at=at, resource_id=resource_id, samples=samples, received_at=WallClock().now())

    def _sample(self, number: int, at: datetime) -> Sample:
        count = self.hosts
        used = tuple(round(self.chance.uniform(0.15, 0.25) * HOST_MHZ, 1) for _ in range(count))
        names = tuple(f"host-{number}-{host}" for host in range(count))
        nothing, memory = (0.0,) * count, (HOST_MIB,) * count
        return Sample(
            cluster=f"domain-c{number}", name=f"cluster {number}", at=at, interval_s=INTERVAL_S, hosts=names,
            host_names=names, states=(HostState.CONNECTED,) * count, cpu_capacity_mhz=(HOST_MHZ,) * count,
            cpu_used_mhz=used, cpu_ours_mhz=nothing, cpu_limit_mhz=nothing, memory_capacity_mib=memory,
            memory_used_mib=(HOST_MIB * 0.4,) * count, memory_ours_mib=nothing,
            contention_percent=(None,) * count, machines=(0,) * count,
        )  # fmt: skip


@dataclass
class Installation:
    """The two services, their wires, and a look into their schemas."""

    deployment: Deployment
    bus: Bus
    rabbit_url: str
    database: asyncpg.Connection
    load: Load

    async def judged(self, tick: int) -> int:
        """How many clusters have a committed decision about this round."""
        query = "select count(*) from workload.cluster where sampled_at >= $1"
        return int(await self.database.fetchval(query, self.load.at(tick)))

    async def stored(self) -> int:
        """How many samples stats has."""
        return int(await self.database.fetchval("select count(*) from stats.cluster_sample"))

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds by service so far."""
        return {
            name: _cpu_s(process.process.pid)
            for name, process in self.deployment.processes.items()
            if process.process
        }


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def installed(resources: int, clusters: int, hosts: int) -> AsyncIterator[Installation]:
    """Both services on RabbitMQ and PostgreSQL, with resources that are observed and a policy on each."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rabbit, postgres = RabbitNode(), PostgresServer()
        for part in (rabbit, postgres):
            stack.push_async_callback(part.close)
            await part.start()
        url = await postgres.create_database("tides")
        deployment = Deployment(folder, url, rabbit.url)
        stack.push_async_callback(deployment.stop)
        await deployment.start_all({name: (name,) for name in SERVICES})
        bus = await open_bus(rabbit.url)
        stack.push_async_callback(bus.aclose)
        database = await asyncpg.connect(url)
        stack.push_async_callback(database.close)
        began = WallClock().now().replace(microsecond=0) - timedelta(minutes=30)
        load = Load([uuid4() for _ in range(resources)], clusters, hosts, began)
        for number, resource_id in enumerate(load.resources):
            for event in introduce(resource_id, number):
                await bus.publish(to_message(event, "/tides/bench"))
        await until(lambda: _knows(database, resources), timeout=120, what="resources and policies")
        yield Installation(deployment, bus, rabbit.url, database, load)


async def _knows(database: asyncpg.Connection, resources: int) -> bool:
    query = "select (select count(*) from workload.resource) + (select count(*) from workload.assignment)"
    return bool(await database.fetchval(query) == 2 * resources)


def introduce(resource_id: UUID, number: int) -> tuple[ResourceChanged, PolicyAssigned]:
    """What registry and policy would say of a resource."""
    common: dict[str, Any] = {"at": WallClock().now(), "revision": 1, "organisation_id": uuid4()}
    resource = {
        "resource_id": resource_id, "name": f"lab {number}", "provider": "simulated", "url": f"sim://bench-{number}",
        "settings": {}, "username": "tides", "sealed_secret": "", "ca_pem": None, "thumbprint": None,
        "mode": Mode.OBSERVE, "interval_s": INTERVAL_S,
    }  # fmt: skip
    policy = {
        "scope": Scope.RESOURCE, "scope_id": resource_id, "policy_id": uuid4(), "policy_name": "bench",
        "policy_revision": 1, "document": POLICY,
    }  # fmt: skip
    return ResourceChanged.model_validate(common | resource), PolicyAssigned.model_validate(common | policy)


async def backlog(inn: Installation, ticks: Sequence[int]) -> dict[str, float]:
    """Publish rounds at once; samples per second until all are judged, and until all are stored."""
    load, before, stored = inn.load, inn.cpu_s(), await inn.stored()
    began = time.perf_counter()
    for tick in ticks:
        messages = [to_message(load.message(each, tick), "/tides/bench") for each in load.resources]
        await asyncio.gather(*(inn.bus.publish(message) for message in messages))
    count = load.samples * len(ticks)

    async def ended(done: Any, name: str) -> float:
        await until(done, timeout=GIVE_UP_S, what=name)
        return time.perf_counter() - began

    async def all_judged() -> bool:
        return await inn.judged(ticks[-1]) == load.samples

    judged_s = await ended(all_judged, "every cluster judged")

    async def all_stored() -> bool:
        return await inn.stored() == stored + count

    stored_s = await ended(all_stored, "every sample stored")
    spent = {name: cpu - before[name] for name, cpu in inn.cpu_s().items()}
    return {
        "samples": count,
        "judged_per_s": count / judged_s,
        "stored_per_s": count / stored_s,
        "judge_us": 1e6 * spent["workload"] / count,
        "store_us": 1e6 * spent["stats"] / count,
    }


async def steady(inn: Installation, first: int, rounds: int, pace_s: float) -> dict[str, float]:
    """Publish one round in `pace_s` seconds, evenly; how long a message's clusters wait for their decisions."""
    load, before, took = inn.load, inn.cpu_s(), []
    began = time.perf_counter()
    tasks = []
    for tick in range(first, first + rounds):
        for number, resource_id in enumerate(load.resources):
            due = began + pace_s * (tick - first + number / len(load.resources))
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            published = time.perf_counter()
            await inn.bus.publish(to_message(load.message(resource_id, tick), "/tides/bench"))
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


async def main(options: argparse.Namespace) -> None:
    """Measure and print a table and one line of JSON."""
    async with installed(options.resources, options.clusters, options.hosts) as inn:
        await backlog(inn, [0])  # every cluster is known afterwards
        found: dict[str, dict[str, float]] = {"backlog": await backlog(inn, range(1, 1 + options.rounds))}
        last = 1 + options.rounds
        found["steady"] = await steady(inn, last, options.rounds, options.pace)
        messages = [to_message(inn.load.message(each, last), "/tides/bench") for each in inn.load.resources]
        found["wires"] = {
            "consumed_per_s": await consume_alone(inn.rabbit_url, messages) * inn.load.clusters,
            "copied_per_s": await copy_alone(inn.deployment.database_url, inn.load.samples, inn.load.hosts),
        }
    report(found, options)


def report(found: dict[str, dict[str, float]], options: argparse.Namespace) -> None:
    """A table for people and one line for programs."""
    table = Table(
        title=f"{options.resources} resources x {options.clusters} clusters x {options.hosts} hosts"
    )
    for column in ("phase", "figure", "value"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for phase, figures in found.items():
        for name, value in figures.items():
            table.add_row(phase, name, f"{value:,.3g}" if value < 100 else f"{value:,.0f}")
    Console().print(table)
    print(json.dumps({"bench": "pipeline", **vars(options), **found}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resources", type=int, default=50)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--pace", type=float, default=20.0, help="seconds in which the steady phase publishes a round"
    )
    configure("WARNING")
    asyncio.run(main(parser.parse_args()))
