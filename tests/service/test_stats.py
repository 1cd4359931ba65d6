"""Stats, from outside: samples in, figures out, whatever comes twice, late, wrong or in another order."""

import math
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from time import perf_counter
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from libs.common.auth import Role
from libs.common.clock import SteppedClock
from libs.common.contracts.action import (
    ClusterDrainRequested,
    ClusterScaled,
    LimitsApplied,
    MachineAbandoned,
    MachineDeployed,
    MachineDestroyed,
    MachineFact,
    ResourceAbandoned,
    SweepAllowed,
)
from libs.common.contracts.base import Event
from libs.common.contracts.resource import ClusterFacts, HostFacts, InventoryChanged, Mode, ResourceChanged
from libs.common.contracts.usage import HostState, Sample, UsageSampled
from libs.common.ids import cluster_id, new_id, sample_id
from services.stats import reconcile
from services.stats.main import build
from services.stats.usecases.storing import store_samples
from tests.service.lone_service import OURS, THEIRS, Lone, serve
from tests.support import until

START = datetime(2026, 11, 18, 10, tzinfo=UTC)
NOW = START + timedelta(days=1)
RESOURCE = uuid4()
EAST = cluster_id(RESOURCE, "east")
STEP = timedelta(seconds=20)


@pytest.fixture
async def stats(database_url: str) -> AsyncIterator[Lone]:
    async with serve(build, "stats", database_url, SteppedClock(NOW)) as lone:
        yield lone


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


async def test_core_hours_are_the_integral_of_ours_over_the_mhz_of_a_core(stats: Lone) -> None:
    await stats.tell(resource(), inventory())
    await tell_directly(stats, hour_of_rounds())

    found = await report(stats, "core-hours", by="cluster")

    assert found["items"] == [
        {"cluster_id": str(EAST), "name": "East", "core_hours": 5.0, "contention_percent": 0.0}
    ]
    assert found["total"] == 5.0
    assert (found["from"], found["to"]) == ("2026-11-18T10:00:00Z", "2026-11-18T13:00:00Z")


async def test_a_host_of_unknown_cores_counts_at_2600_mhz_until_the_inventory_comes(stats: Lone) -> None:
    await stats.tell(resource())
    await tell_directly(stats, hour_of_rounds())
    await roll(stats)
    assert (await report(stats, "core-hours"))["total"] == round(2 * 5000 / 2600, 3)

    await stats.tell(inventory())

    assert (await report(stats, "core-hours"))["total"] == 5.0
    await roll(stats)
    assert (await report(stats, "core-hours"))["total"] == 5.0


async def test_samples_that_come_twice_and_in_any_order_count_once(stats: Lone) -> None:
    await stats.tell(resource(), inventory())
    rounds = hour_of_rounds()
    shuffled = rounds + rounds
    random.Random(7).shuffle(shuffled)

    await stats.tell(*shuffled)

    summary = await report(stats, "summary")
    assert (summary["samples"], summary["core_hours"], summary["refused"]) == (180, 5.0, 0)


async def test_reports_are_the_same_before_and_after_rolling_up(stats: Lone) -> None:
    ours, theirs = uuid4(), uuid4()
    chance = random.Random(11)
    rounds = [
        round_of(
            sample(
                START + STEP * number,
                cpu_ours_mhz=(chance.uniform(0, 8000), chance.uniform(0, 8000)),
                cpu_used_mhz=(chance.uniform(9000, 20000), chance.uniform(9000, 20000)),
            )
        )
        for number in range(1, 400)
    ]
    await stats.tell(
        resource(), inventory(),
        machine(MachineDeployed, START + timedelta(minutes=10), ours, OURS),
        machine(MachineDeployed, START + timedelta(minutes=20), theirs, THEIRS, 12),
        machine(MachineDestroyed, START + timedelta(minutes=90), ours, OURS),
        limits(START, 3),
    )  # fmt: skip
    await tell_directly(stats, rounds)
    whole = {"role": Role.ADMIN}
    before = await everything(stats, **whole)

    await roll(stats)

    assert await everything(stats, **whole) == before
    assert before["summary"]["contention_percent"] > 5
    assert {item["organisation_id"] for item in before["organisations"]["items"]} == {
        None, str(OURS), str(THEIRS),
    }  # fmt: skip
    by_organisation = sum(item["core_hours"] for item in before["organisations"]["items"])
    assert by_organisation == pytest.approx(before["clusters"]["total"], abs=0.01)
    database = stats.run.services[0].database
    async with database.transaction() as session:
        assert await session.scalar(text("select count(*) from cluster_hour")) == 3
        assert await session.scalar(text("select count(*) from dirty_hour")) == 0


async def everything(stats: Lone, **who: Any) -> dict[str, Any]:
    window = {"from": START.isoformat(), "to": (START + timedelta(hours=3)).isoformat()}
    found = {}
    for name, path in (
        ("summary", "/v1/stats/summary"),
        ("clusters", "/v1/stats/core-hours?by=cluster"),
        ("organisations", "/v1/stats/core-hours?by=organisation"),
    ):
        found[name] = (await stats.ask("GET", path, params=window, **who)).body
    return found


async def test_a_late_sample_and_a_late_fact_open_a_rolled_up_hour_again(stats: Lone) -> None:
    await stats.tell(resource(), inventory())
    rounds = hour_of_rounds()
    await tell_directly(stats, rounds[:90])
    await roll(stats)
    assert (await report(stats, "core-hours"))["total"] == 2.5

    await tell_directly(stats, rounds[90:])
    assert (await report(stats, "core-hours"))["total"] == 5.0
    await roll(stats)
    assert (await report(stats, "core-hours", by="organisation"))["items"] == [
        {"organisation_id": None, "core_hours": 5.0}
    ]
    await stats.tell(machine(MachineDeployed, START, uuid4(), OURS))
    await roll(stats)

    assert (await report(stats, "core-hours"))["total"] == 5.0
    organisations = (await report(stats, "core-hours", by="organisation"))["items"]
    assert organisations == [{"organisation_id": str(OURS), "core_hours": 5.0}]


@pytest.mark.parametrize("end", [MachineDestroyed, MachineAbandoned])
async def test_core_hours_go_to_organisations_by_their_running_vcpus(
    stats: Lone, end: type[MachineFact]
) -> None:
    ours, theirs = uuid4(), uuid4()
    half = START + timedelta(minutes=30)
    facts: list[Event] = [
        machine(end, half, theirs, THEIRS, 4),
        machine(MachineDeployed, START, theirs, THEIRS, 4),
        machine(MachineDeployed, START, ours, OURS, 12),
    ]
    await stats.tell(resource(), inventory(), *facts, *facts)
    await tell_directly(stats, hour_of_rounds())

    answer = await stats.ask(
        "GET", "/v1/stats/core-hours?by=organisation", role=Role.ADMIN,
        params={"from": START.isoformat(), "to": (START + timedelta(hours=1)).isoformat()},
    )  # fmt: skip

    # theirs: a quarter of the first half hour's 2.5
    assert {item["organisation_id"]: item["core_hours"] for item in answer.body["items"]} == {
        str(OURS): 4.375,
        str(THEIRS): 0.625,
    }


async def test_contention_is_host_time_above_ninety_per_cent_with_ours_running(stats: Lone) -> None:
    await stats.tell(resource(), inventory())
    busy, idle = (18500.0, 9000.0), (1, 1)
    await tell_directly(stats, hour_of_rounds(cpu_used_mhz=busy, machines=idle))
    empty = hour_of_rounds(START + timedelta(hours=1), cpu_used_mhz=19000.0, cpu_ours_mhz=0.0, machines=0)
    await tell_directly(stats, empty)

    assert (await report(stats, "summary"))["contention_percent"] == 50.0


async def test_the_summary_counts_acts_once(stats: Lone) -> None:
    one, two = uuid4(), uuid4()
    facts = [
        machine(MachineDeployed, START, one, OURS),
        machine(MachineDeployed, START, two, OURS),
        machine(MachineDestroyed, START + STEP, two, OURS),
        limits(START, 3),
        limits(START + STEP, 4),
        limits(START + timedelta(days=30), 50),
        ResourceAbandoned(at=START, resource_id=RESOURCE, reason="test", machines=()),
        SweepAllowed(at=START, resource_id=RESOURCE, actor="Ada", reason="test", machines=("x",)),
        *(
            kind(at=START, resource_id=RESOURCE, cluster_id=EAST, actor="Ada", reason="test")
            for kind in (ClusterDrainRequested, ClusterScaled)
        ),
    ]
    await stats.tell(resource(), *facts, *facts)

    assert await report(stats, "summary") == {
        "samples": 0, "core_hours": 0.0, "contention_percent": 0.0, "deploys": 2, "destroys": 1,
        "limit_changes": 7, "events": 9, "refused": 0,
    }  # fmt: skip


async def test_impossible_values_become_null_and_never_a_figure(stats: Lone) -> None:
    await stats.tell(resource(), inventory())
    odd = sample(START + STEP, cpu_ours_mhz=(math.nan, -5.0), cpu_used_mhz=(math.inf, 1e300))
    await stats.tell(round_of(odd))

    points = (await report(stats, "usage", cluster_id=str(EAST)))["points"]

    assert [(p["samples"], p["cpu_ours_mhz_mean"], p["cpu_used_mhz_max"]) for p in points] == [
        (1, None, None)
    ]
    assert points[0]["cpu_capacity_mhz_mean"] == 40000.0
    async with stats.run.services[0].database.transaction() as session:
        assert set(await session.scalars(text("select quality from host_sample"))) == {"impossible"}


async def test_an_impossible_use_of_ours_earns_no_core_hours(stats: Lone) -> None:
    await stats.tell(resource(), inventory())
    turned = hour_of_rounds(cpu_used_mhz=(4000.0, math.nan))  # ours 5000 on both
    await tell_directly(stats, turned)
    rounding = hour_of_rounds(START + timedelta(hours=1), cpu_used_mhz=(4999.0, 4601.0))
    await tell_directly(stats, rounding)

    hours = [START, START + timedelta(hours=1), START + timedelta(hours=2)]
    earned = [
        (await report(stats, "core-hours", **{"from": begin.isoformat(), "to": end.isoformat()}))["total"]
        for begin, end in pairwise(hours)
    ]
    assert earned == [0.0, 5.0]
    async with stats.run.services[0].database.transaction() as session:
        odd = "select count(*) from host_sample where cpu_ours_mhz is null and quality = 'impossible'"
        assert await session.scalar(text(odd)) == 360


async def test_a_new_host_does_not_undo_hours_whose_samples_are_gone(stats: Lone, database_url: str) -> None:
    await stats.tell(resource(), inventory())
    last = datetime(2026, 11, 18, 23, tzinfo=UTC)
    window = {"from": last.isoformat(), "to": (last + timedelta(hours=1)).isoformat()}
    later = NOW + timedelta(days=1)
    async with serve(build, "stats", database_url, SteppedClock(later)) as then:
        await tell_directly(then, hour_of_rounds(last))
        await roll(then)
        whole = await report(then, "core-hours", **window)
        assert whole["total"] == 5.0
    async with serve(
        build, "stats", database_url, SteppedClock(NOW + timedelta(days=9, hours=12))
    ) as much_later:
        await until(lambda: _days_gone(much_later), what="the day to be dropped")
        more = inventory(revision=2)
        (east,) = more.clusters
        grown = replace(east, hosts=(*east.hosts, replace(east.hosts[0], host="host-9")))
        await much_later.tell(more.model_copy(update={"clusters": (grown,)}))
        await roll(much_later)
        assert await report(much_later, "core-hours", **window) == whole


async def _days_gone(stats: Lone) -> bool:
    async with stats.run.services[0].database.transaction() as session:
        days = set(await session.scalars(text("select day from sample_day")))
        left = await session.scalar(text("select count(distinct at) from host_sample"))
    return START.date() not in days and left == 1


IMPOSSIBLE = [
    sample(NOW - timedelta(days=8, seconds=1)),
    sample(NOW + timedelta(hours=1, seconds=1)),
    sample(datetime(9999, 12, 31, tzinfo=UTC)),
    replace(sample(NOW), interval_s=0.0),
    replace(sample(NOW), interval_s=math.nan),
    replace(sample(NOW), machines=(1,)),
    replace(sample(NOW), hosts=("same", "same")),
    replace(sample(NOW), hosts=("same", "same\x00")),
]


async def test_what_cannot_be_kept_is_counted_beside_what_can(stats: Lone) -> None:
    await stats.tell(resource())
    for number, refused in enumerate(IMPOSSIBLE, 1):
        good = sample(START + STEP * number, cluster="west\x00")
        told = round_of(good, refused)
        await stats.tell(told, told)

        summary = await report(stats, "summary")

        assert (summary["samples"], summary["refused"]) == (number, number)
    assert await stats.run.bus.dead() == []


async def test_usage_is_down_sampled_the_same_from_samples_and_from_five_minutes(
    stats: Lone, database_url: str
) -> None:
    await stats.tell(resource(), inventory())
    rounds = [
        round_of(sample(START + STEP * number, cpu_ours_mhz=(float(number), 2.0 * number)))
        for number in range(1, 181)
    ]
    await tell_directly(stats, rounds)
    await roll(stats)
    query = {"cluster_id": str(EAST), "step": "600", "to": (START + timedelta(hours=1)).isoformat()}
    raw = await report(stats, "usage", **query)
    raw_host = await report(stats, "usage", **query, host="host-1")
    assert [point["samples"] for point in raw["points"]] == [30] * 6
    assert raw["points"][0]["at"] == "2026-11-18T10:00:00Z"
    assert raw["points"][0]["cpu_ours_mhz_mean"] == pytest.approx(3 * 15.5)
    assert raw["points"][0]["cpu_ours_mhz_max"] == 90.0
    assert raw_host["points"][-1]["cpu_ours_mhz_max"] == 360.0

    async with serve(build, "stats", database_url, SteppedClock(NOW + timedelta(days=10))) as later:
        await until(lambda: no_samples_left(later), what="old days to be dropped")
        assert await report(later, "usage", **query) == raw
        assert await report(later, "usage", **query, host="host-1") == raw_host
        assert (await report(later, "summary"))["core_hours"] > 0


async def no_samples_left(stats: Lone) -> bool:
    async with stats.run.services[0].database.transaction() as session:
        days = set(await session.scalars(text("select day from sample_day")))
        left = await session.scalar(text("select count(*) from host_sample"))
    return left == 0 and START.date() not in days


async def test_others_see_nothing_of_it_and_nobody_without_a_token(stats: Lone) -> None:
    await stats.tell(resource(), inventory(), machine(MachineDeployed, START, uuid4(), OURS))
    await tell_directly(stats, hour_of_rounds())
    window = {"from": START.isoformat(), "to": (START + timedelta(hours=3)).isoformat()}

    for path in ("/v1/stats/summary", "/v1/stats/core-hours", f"/v1/stats/usage?cluster_id={EAST}"):
        assert (await stats.ask("GET", path, role=None)).status == 401
    hidden = await stats.ask("GET", "/v1/stats/summary", organisation=THEIRS, params=window)
    assert (hidden.body["samples"], hidden.body["events"]) == (0, 0)
    found = await stats.ask("GET", "/v1/stats/core-hours", organisation=THEIRS, params=window)
    assert found.body["items"] == []
    found = await stats.ask("GET", f"/v1/stats/usage?cluster_id={EAST}", organisation=THEIRS)
    assert found.status == 404
    assert (await stats.ask("GET", "/v1/stats/summary", role=Role.ADMIN, params=window)).body[
        "samples"
    ] == 180


ABSURD: list[tuple[dict[str, str], str]] = [
    ({"from": "2026-11-20T00:00:00Z", "to": "2026-11-19T00:00:00Z"}, "from"),
    ({"from": "0001-01-01T00:00:00Z"}, "from"),
    ({"to": "9999-12-31T23:59:59Z"}, "to"),
    ({"from": "2010-01-01T00:00:00Z"}, "from"),
    ({"from": "2026-11-20T00:00:00"}, "from"),
    ({"step": "1"}, "step"),
    ({"step": "0"}, "step"),
    ({"host": "a\tb"}, "host"),
    ({"cluster_id": "x' or 1=1"}, "cluster_id"),
]


async def test_absurd_questions_are_refused_at_their_field(stats: Lone) -> None:
    await stats.tell(resource(), inventory())
    for query, field in ABSURD:
        answer = await stats.ask("GET", "/v1/stats/usage", params={"cluster_id": str(EAST)} | query)

        assert (answer.status, answer.field) == (422, field)


async def test_a_round_of_three_clusters_of_fourteen_hosts_is_stored_in_little_time(stats: Lone) -> None:
    rounds = [
        round_of(*(sample(START + STEP * number, hosts=14, cluster=name) for name in ("a", "b", "c")))
        for number in range(1, 121)
    ]
    await tell_directly(stats, rounds[:20])

    took = []
    for one in rounds[20:]:
        began = perf_counter()
        await tell_directly(stats, [one])
        took.append(perf_counter() - began)

    print(f"median {sorted(took)[len(took) // 2] * 1000:.1f} ms")  # noqa: T201
    # The aim is 15 ms; a shared machine of two cores is allowed thrice that before this says so.
    assert sorted(took)[len(took) // 2] < 0.045, f"{sorted(took)[len(took) // 2] * 1000:.1f} ms"
