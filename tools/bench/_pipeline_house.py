"""The installation that the pipeline is measured on: workload and stats, their wires, and rounds of samples."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

import asyncpg

from libs.common.bus.messages import to_message
from libs.common.clock import WallClock
from libs.common.contracts.resource import Mode, ResourceChanged
from libs.common.contracts.supply import PolicyAssigned, Scope
from libs.common.contracts.usage import HostState, Sample, UsageSampled
from tests.support import until
from tools.bench._parts import Parts, cpu_s, opened_parts

INTERVAL_S = 20.0
HOST_MHZ, HOST_MIB = 41_600.0, 262_144.0
GIVE_UP_S = 900.0
SOURCE = "/tides/bench"
SERVICES = ("workload", "stats")
POLICY: dict[str, Any] = {
    "name": "bench",
    "cpu": {"idle": 0.3, "stop_new": 0.65, "reclaim": 0.8},
    "machine": {"template": "worker", "vcpus": 2, "memory_mib": 2048, "disk_gib": 10},
}


def _half_an_hour_ago() -> datetime:
    return WallClock().now().replace(microsecond=0) - timedelta(minutes=30)


@dataclass
class Load:
    """What is published: resources of alike clusters, whose owners' load wanders from round to round."""

    resources: list[UUID]
    clusters: int
    hosts: int
    began: datetime = field(default_factory=_half_an_hour_ago)
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    @classmethod
    def of(cls, resources: int, clusters: int, hosts: int) -> Self:
        """So many of each."""
        return cls([uuid4() for _ in range(resources)], clusters, hosts)

    @property
    def samples(self) -> int:
        """Per round."""
        return len(self.resources) * self.clusters

    def at(self, tick: int) -> datetime:
        """The end of a round's interval."""
        return self.began + timedelta(seconds=INTERVAL_S * tick)

    def message(self, resource_id: UUID, tick: int) -> UsageSampled:
        """One round over one resource, just measured: on the cloud's clock, which is as late as its samples."""
        at, now = self.at(tick), WallClock().now()
        samples = tuple(self._sample(number, at) for number in range(self.clusters))
        offset_s = (at - now).total_seconds()
        return UsageSampled(
            at=at, resource_id=resource_id, samples=samples, received_at=now, clock_offset_s=offset_s
        )

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
class Installation(Parts):
    """The two services, their wires, and a look into their schemas."""

    load: Load

    async def judged(self, tick: int) -> int:
        """How many clusters have a committed decision about this round."""
        query = "select count(*) from workload.cluster where sampled_at >= $1"
        return int(await self.database.fetchval(query, self.load.at(tick)))

    async def stored(self) -> int:
        """How many samples stats has."""
        return int(await self.database.fetchval("select count(*) from stats.cluster_sample"))

    async def publish(self, ticks: Sequence[int]) -> int:
        """Publish rounds at once; how many samples there are in them."""
        for tick in ticks:
            messages = [to_message(self.load.message(each, tick), SOURCE) for each in self.load.resources]
            await asyncio.gather(*(self.bus.publish(message) for message in messages))
        return self.load.samples * len(ticks)

    def peak_mib(self) -> dict[str, float]:
        """The most memory that each service has had so far."""
        found = {}
        for name, process in self.deployment.processes.items():
            if process.process is not None and process.is_running:
                status = Path(f"/proc/{process.process.pid}/status").read_text()
                found[name] = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        return found

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds by service so far."""
        return {
            name: cpu_s(process)
            for name, process in self.deployment.processes.items()
            if process.process and process.is_running
        }


@asynccontextmanager
async def installed(load: Load, checkout: Path | None = None) -> AsyncIterator[Installation]:
    """Both services on RabbitMQ and PostgreSQL, with resources that are observed and a policy on each."""
    async with opened_parts(checkout) as parts:
        await parts.deployment.start_all({name: (name,) for name in SERVICES})
        for number, resource_id in enumerate(load.resources):
            for event in introduce(resource_id, number):
                await parts.bus.publish(to_message(event, SOURCE))
        count = len(load.resources)
        await until(lambda: _knows(parts.database, count), timeout=120, what="resources and policies")
        yield Installation(**vars(parts), load=load)


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
