"""Monitor, from outside: what it publishes of clouds that work, fail, come back and change."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.contracts.resource import InventoryChanged, LoginRefused, ResourceDegraded, ResourceRecovered
from libs.common.contracts.usage import Quality, Sample, UsageSampled
from libs.common.ids import cluster_id
from libs.providers.base import Cause, Rejected, Unavailable, sealing_context
from libs.providers.simulated import Cloud, ClusterDefinition, SimulatedSettings, create_cloud, driver
from tests.service.monitor_house import House, open_house
from tests.service.scripted_cloud import Script, ScriptedDriver, installed, make_sample
from tests.support import until

PASSWORD = "correct horse"
LAB = ClusterDefinition(name="lab", hosts=2, cores=8)


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        yield house


def make_cloud(**settings: object) -> Cloud:
    shape = SimulatedSettings.model_validate({"interval_s": 1, "clusters": (LAB,)} | settings)
    return create_cloud(f"sim://{uuid4().hex}", PASSWORD, shape)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = make_cloud(clusters=(LAB, ClusterDefinition(name="shop", hosts=1, cores=4)))
    yield made
    driver.forget_cloud(made.url)


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[ScriptedDriver]:
    with installed(tmp_path) as found:
        found.clouds["vc.example"] = Script()
        yield found


def ends(house: House, resource_id: UUID | None = None, cluster: str = "domain-c1") -> list[datetime]:
    """Ends of a cluster's published intervals, every message counted once."""
    samples = [sample for event in house.heard(UsageSampled, resource_id) for sample in event.samples]
    return sorted(sample.at for sample in samples if sample.cluster == cluster)


def check_unbroken(times: list[datetime], step_s: float = 1.0) -> None:
    """No interval is missing and none is there twice."""
    steps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    assert steps == [step_s] * len(steps)


async def sampled(house: House, count: int, resource_id: UUID | None = None) -> None:
    """Wait for this many more intervals."""
    target = len(ends(house, resource_id)) + count
    await until(lambda: len(ends(house, resource_id)) >= target, 20, f"{count} intervals")


async def test_every_interval_of_every_cluster_is_published_once(house: House, cloud: Cloud) -> None:
    async with house.monitor():
        resource = house.resource(cloud.url, PASSWORD)
        await house.announce(resource)
        await sampled(house, 4)

    check_unbroken(ends(house))
    check_unbroken(ends(house, cluster="domain-c2"))
    assert len(house.messages) == len({event.id for event in house.messages})
    (inventory,) = house.heard(InventoryChanged)
    lab, shop = inventory.clusters
    assert (lab.cluster_id, lab.name) == (cluster_id(resource.resource_id, "domain-c1"), "lab")
    assert [host.cores for host in lab.hosts] == [8, 8]
    assert [host.cores for host in shop.hosts] == [4]
    rounds = house.heard(UsageSampled)
    assert all(0 <= (event.received_at - event.samples[0].at).total_seconds() < 2 for event in rounds)
    assert {event.clock_offset_s for event in rounds} == {0.0}


async def test_an_outage_is_said_once_and_nothing_of_it_is_lost(house: House, cloud: Cloud) -> None:
    async with house.monitor() as run:
        await house.announce(house.resource(cloud.url, PASSWORD))
        await sampled(house, 2)
        cloud.control.set_fault("unavailable", True)
        (degraded,) = await until(lambda: house.heard(ResourceDegraded), what="the outage to be said")
        (shown,) = await house.monitors(run)
        await asyncio.sleep(2)  # two intervals of outage, to be read afterwards
        cloud.control.clear_faults()
        (recovered,) = await until(lambda: house.heard(ResourceRecovered), what="the end to be said")
        await sampled(house, 2)
        (mended,) = await house.monitors(run)

    assert degraded.cause == "unreachable"
    assert (shown["cause"], shown["failures"] >= 2, shown["degraded_at"] is not None) == (
        "unreachable",
        True,
        True,
    )
    assert (mended["cause"], mended["failures"], mended["degraded_at"]) == (None, 0, None)
    assert shown["cloud"]["state"] in ("open", "half_open")
    assert (shown["cloud"]["cause"], shown["cloud"]["next_try_at"] is not None) == ("unreachable", True)
    assert shown["cloud"]["since"] <= shown["degraded_at"]
    assert mended["cloud"] == {"state": "closed", "failures": 0} | dict.fromkeys(
        ("cause", "detail", "since", "next_try_at")
    )
    assert 2 <= recovered.outage_s < 10
    assert len(house.heard(ResourceDegraded)) == len(house.heard(ResourceRecovered)) == 1
    check_unbroken(ends(house))
    samples = [sample for event in house.heard(UsageSampled) for sample in event.samples]
    assert Quality.BACKFILLED in {sample.quality for sample in samples}
    assert len(house.heard(InventoryChanged)) == 1


async def test_one_failed_round_is_no_outage(house: House, scripted: ScriptedDriver) -> None:
    script = scripted.clouds["vc.example"]
    script.samples = [make_sample("domain-c1", datetime.now(UTC))]  # noqa: TID251 - the cloud's own clock
    async with house.monitor() as run:
        resource = house.resource("https://vc.example", PASSWORD, provider="scripted", interval_s=0.5)
        await house.announce(resource)
        await until(lambda: script.opened == 1)
        script.refuse = Rejected(Cause.UNKNOWN, "just once")
        await until(lambda: _failing(house, run), what="the failed round")
        script.refuse = None
        script.samples.append(make_sample("domain-c1", script.samples[0].at + timedelta(seconds=20)))
        await until(lambda: len(ends(house)) == 2, what="the next sample")

    assert house.heard(ResourceDegraded) == []
    assert house.heard(ResourceRecovered) == []
    assert (script.opened, script.closed) == (1, 1), "the session outlived it"


async def test_after_a_long_outage_the_cloud_is_heard_within_an_interval_or_when_it_said(
    house: House, scripted: ScriptedDriver
) -> None:
    """As long as ten minutes are for an interval of 20 s: pauses that grow would have reached a minute here."""
    script = scripted.clouds["vc.example"]
    script.samples = [make_sample("domain-c1", datetime.now(UTC))]  # noqa: TID251 - the cloud's own clock
    async with house.monitor() as run:
        resource = house.resource("https://vc.example", PASSWORD, provider="scripted", interval_s=0.1)
        await house.announce(resource)
        await until(lambda: len(ends(house)) == 1, what="the first interval")
        script.refuse = Unavailable(Cause.UNREACHABLE, "503 Service Unavailable")

        async def failed(times: int) -> bool:
            return bool((await house.monitors(run))[0]["failures"] >= times)

        await until(lambda: failed(12), what="an outage of many rounds")
        script.refuse = None
        script.samples.append(make_sample("domain-c1", script.samples[0].at + timedelta(seconds=20)))
        await until(lambda: len(ends(house)) == 2, 10, what="news after the outage")
        await until(lambda: house.heard(ResourceRecovered), what="the end to be settled")

        script.refuse = Unavailable(Cause.UNREACHABLE, "503 Service Unavailable", 40.0)
        shown = await until(lambda: _failing(house, run), what="a failure with a time to wait")
        pause_s = (datetime.fromisoformat(shown["due_at"]) - datetime.now(UTC)).total_seconds()  # noqa: TID251
        assert 20 < pause_s <= 44
    assert script.opened <= 4, "one try at a new session in five failures"
    assert (len(house.heard(ResourceDegraded)), len(house.heard(ResourceRecovered))) == (1, 1)


async def test_a_slow_cloud_delays_no_other(house: House, cloud: Cloud) -> None:
    slow = make_cloud()
    async with house.monitor():
        slow_one = house.resource(slow.url, PASSWORD)
        await house.announce(slow_one)
        await sampled(house, 1, slow_one.resource_id)
        slow.control.set_fault("latency_s", 29.0)
        quick_one = house.resource(cloud.url, PASSWORD)
        await house.announce(quick_one)
        await sampled(house, 5, quick_one.resource_id)

    check_unbroken(ends(house, quick_one.resource_id))
    driver.forget_cloud(slow.url)


async def test_one_session_per_resource_until_its_address_or_secret_changes(
    house: House, scripted: ScriptedDriver
) -> None:
    script = scripted.clouds["vc.example"]
    start = datetime.now(UTC)  # noqa: TID251 - the cloud's own clock
    script.samples = [make_sample("domain-c1", start)]
    resource = house.resource("https://vc.example", PASSWORD, provider="scripted")

    async def next_interval() -> None:
        script.samples.append(make_sample("domain-c1", script.samples[-1].at + timedelta(seconds=20)))
        await until(lambda: len(ends(house)) == len(script.samples), what="the next interval")

    async with house.monitor():
        await house.announce(resource)
        await until(lambda: len(ends(house)) == 1, what="the first interval")
        await next_interval()
        renamed = resource.model_copy(update={"id": uuid4(), "revision": 2, "name": "Other"})
        await house.announce(renamed)
        await next_interval()
        assert (script.opened, script.closed) == (1, 0)
        script.password = "changed"
        sealed = house.settings.vault().seal("changed", sealing_context(resource.url, None, None))
        await house.announce(
            renamed.model_copy(update={"id": uuid4(), "revision": 3, "sealed_secret": sealed})
        )
        await until(lambda: script.opened == 2, what="a new session")
        await next_interval()
    assert (script.opened, script.closed) == (2, 2)
    assert script.logins == [("tides", PASSWORD), ("tides", "changed")]


async def test_refused_logins_are_few_and_a_new_password_helps_at_once(
    house: House, scripted: ScriptedDriver
) -> None:
    script = scripted.clouds["vc.example"]
    script.password = "changed"
    script.samples = [make_sample("domain-c1", datetime.now(UTC))]  # noqa: TID251 - the cloud's own clock
    resource = house.resource("https://vc.example", PASSWORD, provider="scripted", interval_s=0.1)
    async with house.monitor() as run:
        await house.announce(resource)
        shown = await until(lambda: _failing(house, run), what="the first failure")
        await asyncio.sleep(1)  # ten intervals in which nobody may knock
        assert len(script.logins) == 1
        pause_s = (datetime.fromisoformat(shown["due_at"]) - datetime.now(UTC)).total_seconds()  # noqa: TID251
        assert 60 < pause_s <= 120
        await until(lambda: house.heard(LoginRefused), what="others to be told")
        assert [one.resource_revision for one in house.heard(LoginRefused)] == [1]
        sealed = house.settings.vault().seal("changed", sealing_context(resource.url, None, None))
        await house.announce(
            resource.model_copy(update={"id": uuid4(), "revision": 2, "sealed_secret": sealed})
        )
        await until(lambda: len(ends(house)) == 1, what="the first interval")
    assert PASSWORD not in str(house.messages)


async def _failing(house: House, run: Any) -> Any:
    watched = await house.monitors(run)
    return watched[0] if watched and watched[0]["failures"] else None


async def test_a_gone_resource_is_left_alone_and_stays_gone(house: House, cloud: Cloud) -> None:
    resource = house.resource(cloud.url, PASSWORD)
    async with house.monitor() as run:
        await house.announce(resource)
        await sampled(house, 1)
        await house.announce(resource.model_copy(update={"id": uuid4(), "revision": 3, "gone": True}))
        gone = await until(lambda: [one for one in house.heard(InventoryChanged) if one.gone], what="its end")
        await until(lambda: _watched(house, run, 0), what="nothing to be watched")
        late = resource.model_copy(update={"id": uuid4(), "revision": 2})
        await house.announce(late)
        await until(lambda: _quiet(house), what="the late word to be heard")
        assert await house.monitors(run) == []
        assert await house.fetch("select sealed_secret from resource") == [("",)]
    assert (gone[0].revision, gone[0].clusters) == (2, ())


async def _watched(house: House, run: Any, count: int) -> bool:
    return len(await house.monitors(run)) == count


async def _quiet(house: House) -> bool:
    return await house.bus.depth() == 0


async def test_the_inventory_is_told_when_it_changes_and_a_cluster_is_not_forgotten_lightly(
    house: House, scripted: ScriptedDriver
) -> None:
    script = scripted.clouds["vc.example"]
    start = datetime.now(UTC)  # noqa: TID251 - the cloud's own clock
    script.samples = [make_sample("domain-c1", start), make_sample("domain-c2", start)]

    async def interval(*samples: tuple[str, list[str]]) -> None:
        script.samples += [
            make_sample(cluster, script.samples[-1].at + timedelta(seconds=20), hosts)
            for cluster, hosts in samples
        ]
        await until(lambda: len(ends(house)) == len({one.at for one in script.samples}), what="the interval")

    async with house.monitor():
        await house.announce(house.resource("https://vc.example", PASSWORD, provider="scripted"))
        await until(lambda: len(ends(house)) == 1, what="the first interval")
        await interval(("domain-c1", ["host-1", "host-9"]), ("domain-c2", ["host-1"]))
        for _ in range(2):
            await interval(("domain-c1", ["host-1", "host-9"]))
        await until(lambda: len(house.heard(InventoryChanged)) == 2, what="the new host")
        await interval(("domain-c1", ["host-1", "host-9"]))
        await until(lambda: len(house.heard(InventoryChanged)) == 3, what="the lost cluster")

    told = [
        (event.revision, {cluster.cluster: len(cluster.hosts) for cluster in event.clusters})
        for event in house.heard(InventoryChanged)
    ]
    assert told == [
        (1, {"domain-c1": 1, "domain-c2": 1}),
        (2, {"domain-c1": 2, "domain-c2": 1}),
        (3, {"domain-c1": 2}),
    ]


async def test_a_cluster_that_lags_behind_its_neighbour_misses_nothing(
    house: House, scripted: ScriptedDriver
) -> None:
    script = scripted.clouds["vc.example"]
    start = datetime.now(UTC)  # noqa: TID251 - the cloud's own clock
    script.samples = [make_sample("domain-c1", start), make_sample("domain-c2", start)]
    async with house.monitor():
        await house.announce(house.resource("https://vc.example", PASSWORD, provider="scripted"))
        await until(lambda: len(ends(house, cluster="domain-c2")) == 1, what="the first interval")
        for number in range(1, 4):
            end = start + timedelta(seconds=20 * number)
            script.samples.append(make_sample("domain-c1", end))
            await until(lambda: len(ends(house)) > number, what="the first cluster")  # noqa: B023
            script.samples.append(make_sample("domain-c2", end))
            await until(lambda: len(ends(house, cluster="domain-c2")) > number, what="the second")  # noqa: B023
    check_unbroken(ends(house), 20.0)
    check_unbroken(ends(house, cluster="domain-c2"), 20.0)


async def test_an_empty_inventory_is_an_outage_and_no_empty_cloud(house: House, cloud: Cloud) -> None:
    async with house.monitor():
        await house.announce(house.resource(cloud.url, PASSWORD))
        await sampled(house, 1)
        for cluster in ("domain-c1", "domain-c2"):
            cloud.control.remove_cluster(cluster)
        (degraded,) = await until(lambda: house.heard(ResourceDegraded), 15, "the outage to be said")
        for cluster in ("domain-c1", "domain-c2"):
            cloud.control.restore_cluster(cluster)
        await until(lambda: house.heard(ResourceRecovered), 15, "the end to be said")
        await sampled(house, 1)

    assert degraded.cause == "not_found"
    assert len(house.heard(InventoryChanged)) == 1
    check_unbroken(ends(house))


async def test_a_wrong_clock_is_measured(house: House, cloud: Cloud) -> None:
    cloud.control.shift_clock(timedelta(minutes=5))
    behind = make_cloud()
    behind.control.shift_clock(timedelta(minutes=-5))
    async with house.monitor():
        fast, slow = (house.resource(one.url, PASSWORD) for one in (cloud, behind))
        await house.announce(fast)
        await house.announce(slow)
        await sampled(house, 2, fast.resource_id)
        await sampled(house, 2, slow.resource_id)

    assert 297 < house.heard(UsageSampled, fast.resource_id)[-1].clock_offset_s <= 300
    assert -300 <= house.heard(UsageSampled, slow.resource_id)[-1].clock_offset_s < -290
    driver.forget_cloud(behind.url)


async def test_a_driver_that_breaks_says_nothing_that_it_should_not(
    house: House, scripted: ScriptedDriver
) -> None:
    scripted.clouds["vc.example"].refuse = KeyError(f"password={PASSWORD}")
    async with house.monitor():
        await house.announce(house.resource("https://vc.example", PASSWORD, provider="scripted"))
        await house.announce(house.resource("https://vc.example", PASSWORD, provider="nimbus"))
        degraded = await until(
            lambda: len(d := house.heard(ResourceDegraded)) == 2 and d, what="both outages"
        )

    assert sorted(event.cause for event in degraded) == ["invalid", "unknown"]
    assert PASSWORD not in str(house.messages)


async def test_impossible_measurements_pass_through(house: House, cloud: Cloud) -> None:
    cloud.control.set_fault("impossible_samples", True)
    async with house.monitor():
        await house.announce(house.resource(cloud.url, PASSWORD))
        await sampled(house, 1)
    sample: Sample = house.heard(UsageSampled)[0].samples[0]
    assert sample.cpu_ours_mhz[0] > sample.cpu_used_mhz[0]
