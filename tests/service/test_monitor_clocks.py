"""Monitor and clouds that are out of time: wrong clocks, and answers that take too long."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from libs.common.contracts.resource import InventoryChanged, ResourceDegraded
from libs.common.contracts.usage import UsageSampled
from libs.providers.base import Cause, Unavailable
from libs.providers.simulated import ClusterDefinition, SimulatedSettings, create_cloud, driver
from services.monitor.reconcile import rounds
from tests.service.monitor_house import House, open_house
from tests.service.scripted_cloud import Script, ScriptedDriver, installed, make_sample
from tests.support import until

PASSWORD = "correct horse"
TICK = timedelta(seconds=20)


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        yield house


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    with installed(tmp_path) as found:
        yield _script_of(found)


def _script_of(scripted: ScriptedDriver) -> Script:
    return scripted.clouds.setdefault("vc.example", Script())


def ends(house: House, cluster: str, resource_id: UUID | None = None) -> list[datetime]:
    samples = [sample for event in house.heard(UsageSampled, resource_id) for sample in event.samples]
    return sorted({sample.at for sample in samples if sample.cluster == cluster})


def now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - the cloud's own clock


async def test_a_clock_that_jumps_ahead_and_back_silences_the_cloud_only_shortly(house: House) -> None:
    shape = {"interval_s": 1, "clusters": (ClusterDefinition(name="lab", hosts=1, cores=8),)}
    cloud = create_cloud(f"sim://{uuid4().hex}", PASSWORD, SimulatedSettings.model_validate(shape))
    async with house.monitor():
        await house.announce(house.resource(cloud.url, PASSWORD))
        await until(lambda: len(ends(house, "domain-c1")) >= 2, what="the first intervals")
        cloud.control.shift_clock(timedelta(minutes=30))
        ahead = now() + timedelta(minutes=20)
        await until(lambda: ends(house, "domain-c1")[-1] > ahead, 30, "intervals of the wrong time")
        cloud.control.shift_clock(timedelta(0))
        back = now()

        def right() -> list[UsageSampled]:
            heard = [event for event in house.messages if isinstance(event, UsageSampled)]
            return [event for event in heard if event.received_at > back and event.samples[0].at < ahead]

        await until(lambda: len(right()) >= 8, 40, "intervals of the right time")
    assert max(abs(event.clock_offset_s) for event in right()) == 0.0
    times = sorted({event.samples[0].at for event in right()})
    assert times[0] < back + timedelta(seconds=30), "a slow machine may begin later, but soon"
    assert times[-1] - times[0] == timedelta(seconds=len(times) - 1), "an interval is missing"
    driver.forget_cloud(cloud.url)


@pytest.mark.parametrize("off", [timedelta(minutes=9), timedelta(minutes=-9)])
async def test_one_cluster_with_a_wrong_clock_silences_nobody_and_sets_no_clock(
    house: House, script: Script, off: timedelta
) -> None:
    start = now()
    script.samples = [make_sample("a", start), make_sample("b", start), make_sample("odd", start + off)]
    async with house.monitor():
        await house.announce(house.resource("https://vc.example", PASSWORD, provider="scripted"))
        for number in range(1, 4):
            await until(lambda: len(ends(house, "a")) >= number, what="the round")  # noqa: B023
            script.samples += [make_sample(name, start + number * TICK) for name in "ab"]
            script.samples.append(make_sample("odd", start + off + number * TICK))
        for name in ("a", "b"):
            await until(lambda: len(ends(house, name)) == 4, what=f"all of {name}")  # noqa: B023
        await until(lambda: len(ends(house, "odd")) >= 3, what="the odd one")
    late = [
        event for event in house.heard(UsageSampled) if {"a", "b"} & {one.cluster for one in event.samples}
    ]
    assert all(abs(event.clock_offset_s) <= 60 for event in late)
    assert len({event.id for event in house.messages}) == len(house.messages), "nothing went out twice"


async def test_a_cluster_whose_clock_went_back_is_heard_at_once(house: House, script: Script) -> None:
    start = now()
    script.samples = [make_sample("a", start), make_sample("b", start + timedelta(hours=2))]
    async with house.monitor():
        await house.announce(house.resource("https://vc.example", PASSWORD, provider="scripted"))
        await until(lambda: ends(house, "b"), what="the wrong time")
        script.samples = [make_sample(name, start + TICK) for name in "ab"]
        await until(lambda: start + TICK in ends(house, "b"), what="the right time")


async def test_a_cluster_whose_clock_falls_behind_is_found_again(house: House, script: Script) -> None:
    start = now()
    script.samples = [make_sample(name, start) for name in "ab"]
    async with house.monitor():
        await house.announce(house.resource("https://vc.example", PASSWORD, provider="scripted"))
        behind = start - timedelta(minutes=10)
        for number in range(1, 6):
            await until(lambda: len(ends(house, "a")) == number, what="the round")  # noqa: B023
            script.samples = [one for one in script.samples if one.cluster == "a"]
            script.samples += [
                make_sample("a", start + number * TICK),
                make_sample("b", behind + number * TICK),
            ]
        await until(lambda: len([at for at in ends(house, "b") if at < start]) >= 2, what="the slow one")


async def test_samples_do_not_wait_for_the_facts_of_a_cloud(house: House, script: Script) -> None:
    start = now()
    script.samples = [make_sample("a", start)]
    script.no_facts = asyncio.Event()
    async with house.monitor():
        await house.announce(house.resource("https://vc.example", PASSWORD, provider="scripted"))
        await until(lambda: ends(house, "a") == [start], what="the sample")
        assert house.heard(InventoryChanged) == []
        script.no_facts.set()
        await until(lambda: house.heard(InventoryChanged), what="the inventory")


async def test_without_facts_there_is_no_inventory_and_no_sample_is_lost(
    house: House, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = now()
    script.samples = [make_sample("a", start)]
    script.no_facts = Unavailable(Cause.TIMEOUT, "no answer in time")
    async with house.monitor():
        await house.announce(house.resource("https://vc.example", PASSWORD, provider="scripted"))
        for number in range(1, 4):
            await until(lambda: len(ends(house, "a")) == number, what="the sample")  # noqa: B023
            script.samples.append(make_sample("a", start + number * TICK))
        assert house.heard(InventoryChanged) == []
        script.no_facts = None
        script.samples.append(make_sample("a", start + 5 * TICK))
        await until(lambda: house.heard(InventoryChanged), what="the inventory")
        monkeypatch.setattr(rounds, "LOOK_AGAIN_AFTER", timedelta())
        script.gpus = 4
        script.samples.append(make_sample("a", start + 6 * TICK))
        await until(lambda: len(house.heard(InventoryChanged)) == 2, what="the GPUs that were put in")
    assert [one.clusters[0].hosts[0].gpus for one in house.heard(InventoryChanged)] == [None, 4]
    assert house.heard(ResourceDegraded) == []


async def test_a_cloud_too_slow_for_all_that_was_missed_is_read_in_slices(
    house: House, script: Script
) -> None:
    start = now() - timedelta(minutes=40)
    script.samples = [make_sample("a", start)]
    script.deepest = timedelta(minutes=60)
    async with house.monitor():
        await house.announce(house.resource("https://vc.example", PASSWORD, provider="scripted"))
        await until(lambda: ends(house, "a") == [start], what="the first sample")
        script.refuse = Unavailable(Cause.TIMEOUT, "no answer in time")
        await until(lambda: script.closed >= 1, what="the round that failed")
        script.samples += [make_sample("a", start + number * TICK) for number in range(1, 121)]
        script.refuse = None
        await until(lambda: len(ends(house, "a")) == 121, 20, "all that was missed")
        first_again = next(event for event in house.heard(UsageSampled) if event.samples[0].at > start)
    assert first_again.samples[0].at == script.samples[-1].at, "the newest comes first"
