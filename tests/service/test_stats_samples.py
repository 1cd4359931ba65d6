"""Samples that stats keeps, whatever comes twice, late, wrong or in great numbers."""

import math
import random
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from time import perf_counter

import asyncpg
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from libs.common.bus.messages import to_message
from libs.common.clock import SteppedClock
from services.stats.main import build
from tests.service.lone_service import Lone, serve
from tests.service.stats_house import (
    EAST,
    NOW,
    START,
    STEP,
    hour_of_rounds,
    inventory,
    report,
    resource,
    roll,
    round_of,
    sample,
    tell_directly,
)
from tests.support import until


async def test_samples_that_come_twice_and_in_any_order_count_once(stats: Lone) -> None:
    await stats.tell(resource(), inventory())
    rounds = hour_of_rounds()
    shuffled = rounds + rounds
    random.Random(7).shuffle(shuffled)

    await stats.tell(*shuffled)

    summary = await report(stats, "summary")
    assert (summary["samples"], summary["core_hours"], summary["refused"]) == (180, 5.0, 0)


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


FILL = """
create function stats.fill() returns trigger language plpgsql as
    $$ begin raise exception 'no space left' using errcode = 'disk_full'; end $$;
create trigger fill before insert on stats.{table} for each row execute function stats.fill();
"""
EMPTY = """
create or replace function stats.fill() returns trigger language plpgsql as $$ begin return new; end $$;
"""
"""The trigger stays: to take it away would lock all partitions, against those who are writing."""


@pytest.mark.parametrize("table", ["cluster_sample", "host_sample"])
async def test_while_the_disk_is_full_samples_wait_and_none_is_lost_or_given_up(
    stats: Lone, database_url: str, table: str
) -> None:
    await stats.tell(resource(), inventory())
    await storing_works(stats)
    connection = await asyncpg.connect(database_url)
    await connection.execute(FILL.format(table=table))
    with capture_logs() as logs:
        for number in range(2, 32):
            await stats.run.bus.publish(to_message(round_of(sample(START + STEP * number)), "/test"))
        await until(lambda: _refused(stats), 30, "an alarm")
        waiting = await stats.run.bus.depth()
        await connection.execute(EMPTY)
        await connection.close()
        await until(lambda: _kept(stats, 31), 40, "what waited to be stored")
    assert waiting >= 30, "what is not stored stays on the bus"
    assert [line for line in logs if line["event"] == "bus.handler_failed"] == [], "no delivery is counted"
    assert await stats.run.bus.dead() == []


async def storing_works(stats: Lone) -> None:
    await stats.tell(round_of(sample(START + STEP)))
    assert (await report(stats, "summary"))["samples"] == 1


async def _kept(stats: Lone, count: int) -> bool:
    return bool((await report(stats, "summary"))["samples"] == count)


async def _refused(stats: Lone) -> bool:
    """Whether every message in hand was tried more than once."""
    async with stats.http.get(f"{stats.run.url}/metrics") as answer:
        told = re.search(
            r'^tides_database_refusals_total\{cause="disk_full",service="stats"\} (\S+)',
            await answer.text(),
            re.M,
        )
    return told is not None and float(told[1]) > 20
