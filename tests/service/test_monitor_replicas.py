"""Several monitors, killed monitors, a bus that is down, and time that is stepped."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.clock import SteppedClock
from libs.common.contracts.resource import ResourceDegraded
from libs.common.contracts.usage import Quality, UsageSampled
from libs.common.runner import Running
from libs.providers.simulated import Cloud, ClusterDefinition, SimulatedSettings, create_cloud, driver
from tests.service.monitor_house import House, open_house
from tests.support import until
from tools.parts.rabbitmq import RabbitNode

PASSWORD = "correct horse"
LAB = ClusterDefinition(name="lab", hosts=1, cores=8)


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        yield house


def make_cloud(url: str | None = None, **settings: object) -> Cloud:
    shape = SimulatedSettings.model_validate({"interval_s": 1, "clusters": (LAB,)} | settings)
    return create_cloud(url or f"sim://{uuid4().hex}", PASSWORD, shape)


def ends(house: House, resource_id: UUID | None = None) -> list[datetime]:
    return sorted(event.samples[0].at for event in house.heard(UsageSampled, resource_id))


def check_unbroken(times: list[datetime], step_s: float = 1.0) -> None:
    steps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    assert steps == [step_s] * len(steps)


async def holders(house: House, run: Running) -> dict[str, str]:
    """Who holds which resource."""
    return {one["resource_id"]: one["holder"] for one in await house.monitors(run) if one["holder"]}


async def test_replicas_share_resources_and_one_that_leaves_is_replaced_at_once(house: House) -> None:
    clouds = [make_cloud() for _ in range(4)]
    resources = [house.resource(cloud.url, PASSWORD) for cloud in clouds]
    async with house.monitor() as first:
        for resource in resources:
            await house.announce(resource)
        await until(lambda: _held_by(house, first, 1, 4), what="one replica to hold all")
        async with house.monitor():
            await until(lambda: _replicas(house, 2), what="the other to be known")
            await house.execute("update replica set since = since - interval '1 minute'")
            await until(lambda: _held_by(house, first, 2, 4), 15, "two replicas to hold two each")
            shares = list((await holders(house, first)).values())
            assert sorted(shares.count(name) for name in set(shares)) == [2, 2]
            seen = {resource.resource_id: len(ends(house, resource.resource_id)) for resource in resources}
            await until(
                lambda: all(len(ends(house, one)) >= count + 3 for one, count in seen.items()),
                15,
                "three intervals",
            )
        await until(lambda: _held_by(house, first, 1, 4), 8, "the other to take over")
        late = len(ends(house))
        await until(lambda: len(ends(house)) > late + 4, what="all to go on")

    for resource in resources:
        check_unbroken(ends(house, resource.resource_id))
    for cloud in clouds:
        driver.forget_cloud(cloud.url)


async def test_a_replica_that_ended_long_ago_is_forgotten(house: House) -> None:
    async with house.monitor():
        await until(lambda: _replicas(house, 1), what="the replica to be known")
        await house.execute(
            "insert into replica (token, name, alive_until) values "
            f"('{uuid4()}', 'old', now() - interval '61 minutes'), "
            f"('{uuid4()}', 'late', now() - interval '1 minute')"
        )
    async with house.monitor():
        await until(lambda: _replicas(house, 2), what="the old one to be forgotten, the late one not")


async def _replicas(house: House, count: int) -> bool:
    return len(await house.fetch("select token from replica")) == count


async def _held_by(house: House, run: Running, replicas: int, resources: int) -> bool:
    held = await holders(house, run)
    return (len(set(held.values())), len(held)) == (replicas, resources)


@asynccontextmanager
async def process(house: House) -> AsyncIterator[asyncio.subprocess.Process]:
    """A monitor of its own process; killed at the end at the latest."""
    settings = house.settings
    given: dict[str, Any] = {
        "database_url": settings.database_dsn,
        "sealing_keys": settings.sealing_keys.get_secret_value(),
        "verify_keys": settings.verify_keys,
        "port": 0,
    }
    pipe = asyncio.subprocess.PIPE
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.service.monitor_process", stdin=pipe, stdout=pipe,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert started.stdin is not None
    assert started.stdout is not None
    try:
        started.stdin.write(json.dumps(given).encode() + b"\n")
        await started.stdin.drain()
        async with asyncio.timeout(30):
            while (await started.stdout.readline()) not in (b"running\n", b""):
                pass
        yield started
    finally:
        if started.returncode is None:
            os.kill(started.pid, signal.SIGKILL)
            await started.wait()


@pytest.mark.chaos
async def test_a_killed_monitor_is_replaced_and_nothing_is_missing(house: House, tmp_path: Path) -> None:
    cloud = make_cloud(f"sim://{tmp_path}/cloud.json")
    resource = house.resource(cloud.url, PASSWORD)
    async with process(house) as doomed:
        await house.announce(resource)
        await until(lambda: len(ends(house)) >= 3, 20, "samples of the first")
        async with house.monitor() as heir:
            os.kill(doomed.pid, signal.SIGKILL)
            await doomed.wait()
            published = len(ends(house))
            await asyncio.sleep(1.5)  # a lease outlives its holder: nobody takes it early
            assert len(ends(house)) <= published + 1
            await house.let_leases_expire()
            await until(lambda: len(ends(house)) >= published + 5, 15, "samples of the heir")
            (holder,) = (await holders(house, heir)).values()

    assert f":{os.getpid()}:" in holder
    check_unbroken(ends(house))
    qualities = {sample.quality for event in house.heard(UsageSampled) for sample in event.samples}
    assert qualities == {Quality.MEASURED, Quality.BACKFILLED}


async def test_a_replica_that_lost_its_lease_settles_nothing(house: House) -> None:
    cloud = make_cloud()
    async with house.monitor():
        await house.announce(house.resource(cloud.url, PASSWORD))
        await until(lambda: len(ends(house)) >= 1, what="the first sample")
        cloud.control.set_fault("latency_s", 1.5)
        await asyncio.sleep(1)  # a round is under way, as nearly always from now on
        # Another replica, which is alive, holds the resource from now on.
        await house.execute(
            "insert into replica values ($1, 'other', now() + interval '1 hour')", other := uuid4()
        )
        await house.execute(
            "update resource set lease_token = $1, lease_until = now() + interval '1 hour', sampled_at = null",
            other,
        )
        published = len(ends(house))
        await asyncio.sleep(3)
        assert await house.fetch("select sampled_at, lease_token from resource") == [(None, other)]
        assert len(ends(house)) <= published + 3  # those of the round that was under way
    driver.forget_cloud(cloud.url)


@pytest.mark.chaos
async def test_no_interval_is_lost_while_the_bus_is_down(
    database_url: str, private_rabbitmq: RabbitNode
) -> None:
    cloud = make_cloud()
    async with open_house(database_url, private_rabbitmq.url) as house, house.monitor():
        await house.announce(house.resource(cloud.url, PASSWORD))
        await until(lambda: len(ends(house)) >= 2, 20, "the first samples")
        await private_rabbitmq.stop()
        await asyncio.sleep(3)
        await private_rabbitmq.start()
        back_at = datetime.now(UTC)  # noqa: TID251 - the cloud keeps wall time here
        await until(lambda: ends(house)[-1] > back_at + timedelta(seconds=2), 60, "samples after the outage")
        assert house.heard(ResourceDegraded) == []
    check_unbroken(ends(house))
    driver.forget_cloud(cloud.url)


async def test_stepped_time_repeats_exactly_even_where_clouds_are_slow(database_url: str) -> None:
    start = datetime(2026, 11, 20, tzinfo=UTC)
    seen: list[list[tuple[datetime, datetime, float]]] = []
    for name in ("one", "two"):
        clock = SteppedClock(start)
        cloud = create_cloud(
            f"sim://{uuid4().hex}",
            PASSWORD,
            SimulatedSettings.model_validate(
                {"interval_s": 60, "clusters": (LAB,), "faults": {"latency_s": 7.0}}
            ),
            clock,
        )
        cloud.control.set_fault("latency_s", 7.0)
        async with (
            open_house(database_url, jitter=0.0, beat_floor_s=60.0) as house,
            house.monitor(clock) as run,
        ):
            await house.announce(house.resource(cloud.url, PASSWORD, interval_s=60.0, name=name))
            await _settled(house, run)
            while clock.now() < start + timedelta(minutes=12):
                assert clock.advance()
                await _settled(house, run)
        rounds = house.heard(UsageSampled)
        seen.append([(one.received_at, one.samples[0].at, one.samples[0].cpu_used_mhz[0]) for one in rounds])
        await house.execute("delete from resource")
        driver.forget_cloud(cloud.url)

    assert seen[0] == seen[1]
    assert len(seen[0]) >= 12
    check_unbroken([at for _, at, _ in seen[0]], 60.0)


async def _settled(house: House, run: Running) -> None:
    """Nothing goes on and nothing waits: time may move."""
    async with asyncio.timeout(20):
        while True:
            await run.activity.idle()
            if await house.bus.depth() == 0:
                return
            await asyncio.sleep(0.005)
