"""An installation that lends simulated clouds: as many of them, and as many replicas, as a figure needs."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import psutil
from prometheus_client.parser import text_string_to_metric_families

from libs.common.bus.messages import to_message
from libs.common.clock import WallClock
from libs.common.contracts.base import StateEvent
from libs.common.contracts.resource import Mode, ResourceChanged
from libs.common.contracts.supply import (
    ContributionChanged,
    PolicyAssigned,
    Scope,
    TemplateChanged,
    TemplateState,
)
from libs.common.secrets import Vault, authenticator_context, parse_keys
from libs.providers.base import sealing_context
from libs.providers.simulated import ClusterDefinition, OwnerProfile, SimulatedSettings, create_cloud
from tests.system.processes import Process
from tools.bench._parts import Parts, opened_parts, spent_s

WORKER = "worker"
PASSWORD = "a password of no importance"
QUICK: dict[str, Any] = {
    "name": "bench",
    "cpu": {"idle": 0.5, "stop_new": 0.65, "reclaim": 0.8},
    "machine": {"template": WORKER, "vcpus": 2, "memory_mib": 1024, "disk_gib": 1},
    "idle_dwell_s": 0.0,
    "busy_dwell_s": 20.0,
    "cooldown_s": 0.0,
    "max_machines": 10_000,
    "step_machines": 1_000,
}
"""Machines as soon and as many as there is room for."""


@dataclass(frozen=True)
class Shape:
    """What each cloud is like."""

    hosts: int
    machines_per_host: int
    interval_s: float

    @property
    def machines(self) -> int:
        """How many of ours it comes to hold."""
        return self.hosts * self.machines_per_host


@dataclass
class Fleet(Parts):
    """The parts, the processes, and the clouds that are lent."""

    clouds: dict[UUID, Any] = field(default_factory=dict)

    async def replicas(self, service: str, count: int) -> list[Process]:
        """So many processes of a service run, no more and no fewer."""
        known = self.deployment.processes
        names = [f"{service}-{number}" for number in range(1, count + 1)]
        extra = [each for name, each in known.items() if service in each.services and name not in names]
        await asyncio.gather(*(process.stop() for process in extra))
        for process in extra:
            del known[process.name]
        missing = [name for name in names if name not in known or not known[name].is_running]
        await asyncio.gather(*(self.deployment.start(name, service) for name in missing))
        return [known[name] for name in names]

    async def lend(self, count: int, shape: Shape) -> None:
        """So many more clouds, known to everybody."""
        definition = ClusterDefinition(name="lent", hosts=shape.hosts, owner=OwnerProfile.IDLE)
        settings = SimulatedSettings(
            clusters=(definition,),
            interval_s=max(1, round(shape.interval_s)),
            templates=(WORKER,),
            clone_s=0.0,
            boot_s=0.0,
        )
        for _ in range(count):
            resource_id = uuid4()
            url = f"sim://{self.folder / f'{resource_id}.json'}"
            self.clouds[resource_id] = create_cloud(url, PASSWORD, settings)
            for event in self._introduce(resource_id, url, shape):
                await self.bus.publish(to_message(event, "/tides/bench"))

    def _introduce(self, resource_id: UUID, url: str, shape: Shape) -> Iterable[StateEvent]:
        vault = Vault(parse_keys(self.deployment.environment["TIDES_SEALING_KEYS"]))
        about = {"at": WallClock().now(), "revision": 1, "organisation_id": self.deployment.organisation_id}
        sealed = vault.seal(PASSWORD, sealing_context(url, None, None))
        yield ResourceChanged(
            **about, resource_id=resource_id, name=f"cloud {resource_id}", provider="simulated", url=url,
            settings={}, username="tides", sealed_secret=sealed, ca_pem=None, thumbprint=None, mode=Mode.LEND,
            interval_s=shape.interval_s,
        )  # fmt: skip
        yield PolicyAssigned(
            **about, scope=Scope.RESOURCE, scope_id=resource_id, policy_id=uuid4(), policy_name="bench",
            policy_revision=1, document=QUICK | {"machines_per_host": shape.machines_per_host},
        )  # fmt: skip
        yield TemplateChanged(
            **about, version_id=uuid4(), template_id=uuid4(), name=WORKER, version=1, resource_id=resource_id,
            reference=WORKER, disk_gib=1.0, state=TemplateState.APPROVED,
        )  # fmt: skip
        lent_by = uuid4()
        yield ContributionChanged(
            **about, contribution_id=lent_by, project_id=uuid4(), project_name="Lab",
            project_url="https://boinc.example.org/lab/", weight=1.0, active=True, resource_ids=(resource_id,),
            sealed_authenticator=vault.seal(f"1_{'a' * 32}", authenticator_context(lent_by)),
        )  # fmt: skip

    async def running(self) -> int:
        """How many machines workload knows to run."""
        query = "select count(*) from workload.machine where state = 'running'"
        return int(await self.database.fetchval(query))

    async def audit(self) -> list[str]:
        """What is wrong: the clouds themselves against the rows, and the log of acts against itself."""
        wrong = []
        rows = await self.database.fetch(
            "select name from workload.machine where state not in ('destroyed', 'abandoned')"
        )
        there = Counter(machine.name for cloud in self.clouds.values() for machine in cloud.truth().machines)
        known = {row["name"] for row in rows}
        wrong += [f"{name} is there {count} times" for name, count in there.items() if count > 1]
        wrong += [f"{name} is there and no row knows it" for name in there.keys() - known]
        wrong += [f"{name} is known and not there" for name in known - there.keys()]
        twice = await self.database.fetch(
            "select key, machine_id from workload.action_event where key like 'action.machine_requested%'"
            " or key like 'action.machine_deployed%' group by 1, 2 having count(*) > 1"
        )
        return wrong + [f"{row['key']} twice of {row['machine_id']}" for row in twice]


@asynccontextmanager
async def open_fleet() -> AsyncIterator[Fleet]:
    """RabbitMQ and PostgreSQL, and nothing that runs yet."""
    async with opened_parts() as parts:
        yield Fleet(**vars(parts))


async def metrics_of(process: Process) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a process says of itself, by name and labels."""
    async with aiohttp.ClientSession() as http, http.get(f"{process.url}/metrics") as answer:
        text = await answer.text()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(metrics: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    """The sum over everything of this name that has these labels."""
    wanted = set(labels.items())
    return sum(value for (known, has), value in metrics.items() if known == name and wanted <= has)


async def database_cpu_s(database: asyncpg.Connection) -> float:
    """CPU seconds of the database's processes, those that have ended with them."""
    backend = psutil.Process(await database.fetchval("select pg_backend_pid()"))
    server = backend.parent()
    assert server is not None
    times = server.cpu_times()
    return (
        times.user
        + times.system
        + times.children_user
        + times.children_system
        + sum(spent_s(each) for each in server.children() if each.pid != os.getpid())
    )
