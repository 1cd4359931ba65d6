"""What tests of stats share: the service alone, rounds of samples, facts, and its reports."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from libs.common.auth import Role
from libs.common.contracts.action import (
    LimitsApplied,
    MachineFact,
)
from libs.common.contracts.resource import ClusterFacts, HostFacts, InventoryChanged, Mode, ResourceChanged
from libs.common.contracts.usage import HostState, Sample, UsageSampled
from libs.common.ids import cluster_id, new_id, sample_id
from services.stats import reconcile
from services.stats.usecases.storing import store_samples
from tests.service.lone_service import OURS, Lone

START = datetime(2026, 11, 18, 10, tzinfo=UTC)


NOW = START + timedelta(days=1)


RESOURCE = uuid4()


EAST = cluster_id(RESOURCE, "east")


STEP = timedelta(seconds=20)


def sample(at: datetime, hosts: int = 2, cluster: str = "east", **columns: Any) -> Sample:
    """An hour of this on hosts of 10 cores of 2000 MHz each: ours 5000 MHz, so 2.5 core-hours a host."""
    names = tuple(f"host-{number}" for number in range(hosts))
    values: dict[str, Any] = {
        "cpu_capacity_mhz": 20000.0,
        "cpu_used_mhz": 9000.0,
        "cpu_ours_mhz": 5000.0,
        "cpu_limit_mhz": 6000.0,
        "memory_capacity_mib": 65536.0,
        "memory_used_mib": 30000.0,
        "memory_ours_mib": 4096.0,
        "contention_percent": None,
        "machines": 1,
    } | columns
    spread: Any = {
        name: value if isinstance(value, tuple) else (value,) * hosts for name, value in values.items()
    }
    return Sample(
        cluster=cluster, name=cluster.title(), at=at, interval_s=20.0, hosts=names, host_names=names,
        states=(HostState.CONNECTED,) * hosts, **spread,
    )  # fmt: skip


def round_of(*samples: Sample) -> UsageSampled:
    tick = samples[0].at.isoformat() + samples[0].cluster
    return UsageSampled(
        id=sample_id(RESOURCE, tick), at=NOW, resource_id=RESOURCE, samples=samples, received_at=NOW
    )


def hour_of_rounds(begin: datetime = START, **columns: Any) -> list[UsageSampled]:
    """180 samples that cover exactly one hour."""
    return [round_of(sample(begin + STEP * number, **columns)) for number in range(1, 181)]


def resource(organisation: UUID = OURS) -> ResourceChanged:
    return ResourceChanged(
        at=START, revision=1, resource_id=RESOURCE, organisation_id=organisation, name="vc",
        provider="simulated", url="https://vc.example", settings={}, username="tides", sealed_secret="k.x",
        ca_pem=None, thumbprint=None, mode=Mode.LEND, interval_s=20,
    )  # fmt: skip


def inventory(cores: int = 10, revision: int = 1) -> InventoryChanged:
    hosts = tuple(HostFacts(f"host-{n}", f"host-{n}", 20000.0, 65536.0, cores) for n in range(2))
    facts = ClusterFacts(EAST, "east", "East", hosts)
    return InventoryChanged(at=START, revision=revision, resource_id=RESOURCE, clusters=(facts,))


def machine(
    kind: type[MachineFact], at: datetime, machine_id: UUID, organisation: UUID, vcpus: int = 4
) -> MachineFact:
    return kind(
        at=at, machine_id=machine_id, name="tides-1", workload_id=uuid4(), organisation_id=organisation,
        resource_id=RESOURCE, cluster_id=EAST, vcpus=vcpus, reason="test",
    )  # fmt: skip


def limits(at: datetime, changes: int) -> LimitsApplied:
    return LimitsApplied(
        at=at, action_id=new_id(), resource_id=RESOURCE, cluster_id=EAST, cap_mhz=1.0, budgets_mhz={},
        sampled_at=at, reason="test", changes=changes,
    )  # fmt: skip


async def report(stats: Lone, what: str, **query: str) -> Any:
    window = {"from": START.isoformat(), "to": (START + timedelta(hours=3)).isoformat()}
    answer = await stats.ask("GET", f"/v1/stats/{what}", params=window | query, role=Role.VIEWER)
    assert answer.status == 200, answer.body
    return answer.body


async def tell_directly(stats: Lone, events: Sequence[UsageSampled]) -> None:
    """The handler's own transactions without the bus between: for many samples."""
    database = stats.run.services[0].database
    for event in events:
        async with database.transaction() as session:
            await store_samples(session, event, stats.run.clock.now())


async def roll(stats: Lone) -> None:
    while await reconcile.roll_hours(stats.run.services[0].database, stats.run.clock) is not None:
        pass
