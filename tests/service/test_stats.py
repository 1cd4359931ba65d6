"""Stats' core-hours and counts, from outside: the integral of ours, to whom it goes, and hours that open again."""

import random
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from libs.common.auth import Role
from libs.common.contracts.action import (
    ClusterDrainRequested,
    ClusterScaled,
    MachineAbandoned,
    MachineDeployed,
    MachineDestroyed,
    MachineFact,
    ResourceAbandoned,
    SweepAllowed,
)
from libs.common.contracts.base import Event
from tests.service.lone_service import OURS, THEIRS, Lone
from tests.service.stats_house import (
    EAST,
    RESOURCE,
    START,
    STEP,
    hour_of_rounds,
    inventory,
    limits,
    machine,
    report,
    resource,
    roll,
    round_of,
    sample,
    tell_directly,
)


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
