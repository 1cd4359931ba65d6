"""Samples as they come in practice: twice, late, out of order, impossible, from nowhere, or not at all."""

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from libs.common.bus.messages import to_message
from libs.common.contracts.action import MachineRequested
from libs.common.contracts.usage import Quality
from services.workload.usecases import silence
from tests.service.workload_house import LAB, House, open_house
from tests.service.workload_words import HALF_MHZ


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        await house.lend()
        await house.run(40)
        yield house


async def memory(house: House) -> list[dict[str, Any]]:
    """What judging knows of the cluster."""
    columns = "sampled_at, heard_at, state, decision, budgets_mhz, limits_id, clock_offset_s"
    return await house.fetch(f"select {columns} from cluster")


def limits_mhz(house: House) -> set[float]:
    return {machine.limit_mhz for machine in house.cloud.truth().machines}


async def test_what_is_not_newer_is_counted_and_changes_nothing(house: House) -> None:
    newest = (await house.measure())[0]
    known, said = await memory(house), len(house.said)
    house.own(0.95)
    await house.be_silent(20)
    fresh = replace((await house.measure())[0], at=newest.at)

    await house.publish(fresh)
    await house.publish(replace(fresh, at=newest.at - timedelta(seconds=20)), clock_offset_s=-300.0)

    assert (await house.cluster())["superseded"] == 2
    assert await memory(house) == known
    assert len(house.said) == said


async def test_the_same_message_twice_counts_once(house: House) -> None:
    await house.be_silent(20)
    event = house.round_of(*await house.measure())
    await house.tell(event)
    known = await memory(house)
    await house.tell(event)

    assert await memory(house) == known


async def test_only_the_newest_of_a_round_is_judged(house: House) -> None:
    decided = (await house.cluster())["decided_at"]
    await house.be_silent(60)
    history = await house.measure(since=house.clock.now() - timedelta(seconds=60))
    await house.publish(*reversed(history))

    cluster = await house.cluster()
    assert len(history) == 3
    assert cluster["sampled_at"] > decided
    assert cluster["superseded"] == 0


async def test_a_sample_from_the_future_is_not_believed_and_blocks_no_true_one(house: House) -> None:
    await house.be_silent(10)
    await house.tamper(at=house.clock.now() + timedelta(hours=3))

    cluster = await house.cluster()
    assert "ahead of the clock" in cluster["reason"]
    assert cluster["budget_mhz"] == 1_600

    await house.run(60)

    cluster = await house.cluster()
    assert (cluster["verdict"], cluster["superseded"]) == ("idle", 0)
    assert limits_mhz(house) == {16_000}


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "nan": {"cpu_used_mhz": (math.nan, math.nan)},
    "infinite": {"cpu_used_mhz": (math.inf, math.inf)},
    "negative": {"cpu_used_mhz": (-5.0, -5.0)},
    "ours above total": {"cpu_ours_mhz": (19_000.0, 19_000.0)},
    "nan capacity": {"cpu_capacity_mhz": (math.nan, math.nan)},
    "columns too short": {"cpu_used_mhz": (100.0,)},
    "names too short": {"host_names": ("one",)},
    "no hosts": {"hosts": ()},
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
async def test_an_impossible_sample_never_raises_a_limit(house: House, what: str) -> None:
    house.own(0.5)
    await house.run(20)
    assert limits_mhz(house) == {HALF_MHZ}
    house.own(0.0)
    await house.be_silent(20)
    await house.tamper(**IMPOSSIBLE[what])

    assert limits_mhz(house) == {800}
    assert (await house.ask("GET", "/v1/clusters")).status == 200


async def test_a_back_filled_sample_never_raises_a_limit(house: House) -> None:
    house.own(0.5)
    await house.run(20)
    house.own(0.0)
    await house.be_silent(20)
    await house.tamper(quality=Quality.BACKFILLED)
    assert limits_mhz(house) == {HALF_MHZ}

    await house.run(60)
    assert min(limits_mhz(house)) > 12_000


@pytest.mark.parametrize("interval_s", [math.nan, 1e12])
async def test_an_impossible_interval_does_not_silence_the_watch_for_silence(
    house: House, interval_s: float
) -> None:
    await house.be_silent(20)
    await house.tamper(interval_s=interval_s)
    await house.be_silent(75)

    assert limits_mhz(house) == {800}
    assert "nothing heard" in (await house.cluster())["reason"]


async def test_what_cannot_be_kept_is_judged_all_the_same(house: House) -> None:
    """A sample with a column too short, or of tomorrow: the engine says what is wrong with it."""
    await house.be_silent(20)
    whole = (await house.measure())[0]
    for broken in (replace(whole, machines=()), replace(whole, at=whole.at + timedelta(days=1))):
        await house.publish(broken)
        [cluster] = (await house.ask("GET", "/v1/clusters")).body["items"]
        assert "judging failed" not in cluster["reason"]


async def test_a_time_of_receipt_in_the_future_does_not_either(house: House) -> None:
    await house.be_silent(20)
    await house.publish(*await house.measure(), received_at=house.clock.now() + timedelta(days=365))
    await house.be_silent(75)

    assert limits_mhz(house) == {800}


async def test_samples_of_an_unknown_resource_are_dropped(house: House) -> None:
    await house.publish(*await house.measure(), resource_id=uuid4())

    assert len((await house.ask("GET", "/v1/clusters")).body["items"]) == 1


async def test_silence_brings_the_floor_and_a_sample_what_was_lent(house: House) -> None:
    await house.be_silent(60)
    assert limits_mhz(house) == {16_000}

    await house.be_silent(15)
    cluster = await house.cluster()
    assert limits_mhz(house) == {800}
    assert (cluster["verdict"], cluster["rung"]) == ("unknown", "no_new")
    assert "nothing heard for" in cluster["reason"]
    assert await house.states() == ["running", "running"]

    await house.run(60)
    assert limits_mhz(house) == {16_000}
    assert len(house.heard(MachineRequested)) == 2


async def test_a_cloud_whose_clock_is_wrong_is_judged_by_its_own(house: House) -> None:
    shift = timedelta(minutes=-10)
    house.cloud.control.shift_clock(shift)
    await house.be_silent(40)
    await house.execute("update cluster set sampled_at = null")  # as at first sight of such a cloud
    house.own(0.3)
    await house.publish(*await house.measure(), clock_offset_s=shift.total_seconds())

    assert (await house.cluster())["verdict"] == "idle"


async def test_a_cloud_whose_clock_was_put_right_is_heard_again_at_once(house: House) -> None:
    ahead = timedelta(hours=1)
    house.cloud.control.shift_clock(ahead)
    await house.be_silent(20)
    await house.publish(*await house.measure(), clock_offset_s=ahead.total_seconds())
    known = (await memory(house))[0]["sampled_at"]
    assert known > house.clock.now() + ahead - timedelta(minutes=1)

    house.cloud.control.clear_faults()
    house.own(0.5)
    await house.be_silent(20)
    await house.publish(*await house.measure())

    cluster = await house.cluster()
    assert cluster["superseded"] == 0
    assert cluster["sampled_at"] < known.isoformat()
    assert limits_mhz(house) == {8_000}  # raised again from the floor, not cut


async def test_two_replicas_that_judge_at_once_make_no_machine_twice(database_url: str) -> None:
    async with open_house(database_url, replicas=2) as house:
        await house.lend()
        await house.be_silent(20)
        samples = await house.measure()
        rounds = [house.round_of(*samples) for _ in range(12)]
        await asyncio.gather(*(house.bus.publish(to_message(one, "/tides/test")) for one in rounds))
        await house.settle()
        assert (await house.cluster())["superseded"] == 11

        await house.run(40)

        assert await house.states() == ["running", "running"]
        assert len(house.heard(MachineRequested)) == 2


async def test_of_many_silent_clusters_none_waits_for_another_beat(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "BATCH", 1)
    async with open_house(database_url, clusters=(LAB, LAB.model_copy(update={"name": "east"}))) as house:
        await house.lend()
        await house.run(40)
        await house.be_silent(75)

        silent = await house.fetch("select silent_at, reason from cluster")
        assert len(silent) == 2
        assert len({row["silent_at"] for row in silent}) == 1, "all at the first beat that knew"
        assert all("nothing heard" in row["reason"] for row in silent)
