"""The whole ladder on real parts, with two monitors and two workload replicas, as an administrator sees it.

Asserted through REST, events, and a second client that looks at vcsim: never at our rows.
"""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.contract.providers.vsphere_target import HOST_MHZ
from tests.support import until
from tests.system.eye import Sight, Vm
from tests.system.installing import POLICY, PROCESSES, Installed, install
from tests.system.lab import TICK_S, Lab, owners
from tests.system.processes import Deployment
from tools.parts.vcsim import Vcsim

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.xdist_group("processes")]

FLOOR_MHZ = 2 * 200
LEAST_MHZ = FLOOR_MHZ + 200
"""Surely more than the floor."""
NORMAL_SHARES = 1000
"""Of a machine with one vCPU, as the owner's are here."""
PATIENT: dict[str, Any] = {**POLICY, "ladder": {**POLICY["ladder"], "drain_grace_s": 120.0}}
"""Long enough to drain that every machine is seen doing so."""
RUNGS = ("lend", "floor", "no_new", "suspend", "drain", "destroy")


@pytest.fixture
async def lab(vcsim: Vcsim) -> AsyncIterator[Lab]:
    """A vCenter of one cluster and three hosts, a tenth of each in use by its owner."""
    await vcsim.start(flags=("-perf-default", "1"))  # recorded noise is a load that nobody asked for
    async with owners(vcsim) as found:
        yield found


@pytest.fixture
async def installed(tmp_path: Path, database_url: str, amqp_url: str, lab: Lab) -> AsyncIterator[Installed]:
    """An installation that observes the vCenter."""
    deployment = Deployment(tmp_path, database_url, amqp_url)
    try:
        await deployment.start_all(PROCESSES)
        yield await install(deployment, lab, policy=PATIENT)
    finally:
        await deployment.stop()


async def test_an_idle_vcenter_lends_and_gets_everything_back(installed: Installed, lab: Lab) -> None:
    await observing_touches_nothing(installed, lab)
    await an_idle_cloud_lends(installed, lab)
    await limits_follow_each_owner(lab)
    await a_busy_owner_gets_everything_back(installed, lab)
    await machines_return_when_the_load_falls(lab)
    await the_red_button_holds_across_a_restart(installed, lab)
    await deleting_the_resource_releases_it(installed, lab)
    assert lab.twice == set(), "a machine existed twice"
    await every_request_has_one_outcome(installed)


async def observing_touches_nothing(installed: Installed, lab: Lab) -> None:
    before = await lab.look()
    await until(installed.is_judged, timeout=60, what="a decision while observing")
    seen = lab.ticks
    await until(lambda: lab.ticks > seen + 5, timeout=30, what="more samples")
    after = await lab.look()
    assert (_names(after), after.pools, after.folders) == (_names(before), before.pools, before.folders)
    assert await installed.machines() == []


async def an_idle_cloud_lends(installed: Installed, lab: Lab) -> None:
    await installed.set_mode("lend")
    await until(lambda: _running_on(lab, 3), timeout=90, what="a machine on every host")
    await until(lambda: _agrees(installed, lab), timeout=30, what="rows that say what the cloud has")
    sight = await lab.look()
    assert {(vm.pool, vm.folder, vm.shares) for vm in sight.ours} == {("tides", "tides", ("low", "low"))}
    (pool,) = (pool for pool in sight.pools if pool.name == "tides")
    siblings = [vm for vm in sight.vms if vm.pool == pool.parent]
    assert 0 < pool.shares <= NORMAL_SHARES * len(siblings) // 100, "one percent of the owner's machines"


async def limits_follow_each_owner(lab: Lab) -> None:
    idle, normal, full = sorted(lab.hosts)
    await until(lambda: _limits(lab, sorted(lab.hosts), LEAST_MHZ, HOST_MHZ), timeout=60, what="lent hosts")
    lab.owner = {idle: 0.1, normal: 0.45, full: 0.78}
    await until(lambda: _limits(lab, [full], 0, FLOOR_MHZ), timeout=30, what="the floor where it is full")
    most = int((0.88 - 0.45) * HOST_MHZ)
    await until(lambda: _limits(lab, [normal], 0, most), timeout=30, what="a limit beside the owner")
    assert await _limits(lab, [idle], most, HOST_MHZ), "an idle host lends as before"
    pools = (await lab.look()).pools
    assert all(pool.limit_mhz < 3 * HOST_MHZ for pool in pools if pool.name == "tides")


async def a_busy_owner_gets_everything_back(installed: Installed, lab: Lab) -> None:
    await until(lambda: _limits(lab, sorted(lab.hosts)[:1], LEAST_MHZ, HOST_MHZ), what="something to cut")
    raised_at = lab.now
    lab.set_owner(0.95)
    await until(lambda: _limits(lab, sorted(lab.hosts), 0, FLOOR_MHZ), timeout=20, what="limits cut")
    cut = await until(lambda: _floored_since(installed, raised_at), timeout=20, what="the cut as an event")
    within = timedelta(seconds=2 * TICK_S)
    assert datetime.fromisoformat(cut["body"]["sampled_at"]) <= raised_at + within, "cut within two samples"
    await until(lambda: _running_on(lab, 0), timeout=90, what="all machines gone")
    rungs = [each["decision"]["rung"] for each in await installed.decisions()]
    climbed = [RUNGS[rung] for rung, before in zip(rungs[1:], rungs, strict=False) if rung > before]
    assert climbed[-4:] == ["floor", "no_new", "drain", "destroy"], "rung by rung"
    await until(lambda: _counts(installed, {"machine_draining": 3, "machine_destroyed": 3}), what="events")


async def machines_return_when_the_load_falls(lab: Lab) -> None:
    lab.set_owner(0.1)
    lab.second_s = 0.4  # the memory of a busy owner fades for a quarter of an hour
    await until(lambda: _running_on(lab, 3), timeout=90, what="machines that return")
    assert len(lab.ever) == 6, "new machines, not the old ones"
    await until(lambda: _limits(lab, sorted(lab.hosts), LEAST_MHZ, HOST_MHZ), timeout=60, what="lent hosts")
    lab.second_s = 1.0


async def the_red_button_holds_across_a_restart(installed: Installed, lab: Lab) -> None:
    before = _names(await lab.look())
    await installed.press("pause")
    await until(lambda: _limits(lab, sorted(lab.hosts), 0, FLOOR_MHZ), timeout=20, what="the floor at once")
    for name in ("workload-1", "workload-2"):
        process = installed.deployment.processes[name]
        await process.stop()
        await process.start()
    judged_at = (await installed.cluster())["decided_at"]
    seen = lab.ticks
    await until(lambda: lab.ticks > seen + 5, timeout=30, what="more samples")
    await until(lambda: _is_judged_after(installed, judged_at), timeout=30, what="a decision while paused")
    cluster = await installed.cluster()
    assert (cluster["paused_by"], cluster["paused_reason"]) == ("tester", "a test says so")
    assert await _limits(lab, sorted(lab.hosts), 0, FLOOR_MHZ), "still at the floor"
    assert _names(await lab.look()) == before, "machines stay, none comes"
    await installed.press("resume")
    await until(lambda: _limits(lab, sorted(lab.hosts), LEAST_MHZ, HOST_MHZ), timeout=60, what="lent again")


async def deleting_the_resource_releases_it(installed: Installed, lab: Lab) -> None:
    path = f"/v1/resources/{installed.resource['id']}"
    await installed.deployment.ask("registry", "DELETE", path, expect=(202,))
    await until(lambda: _running_on(lab, 0), timeout=90, what="all machines gone")
    await until(lambda: _is_forgotten(installed, path), timeout=60, what="the resource forgotten")
    sight = await lab.look()
    assert "tides" not in sight.folders
    assert "tides" not in {pool.name for pool in sight.pools}
    assert await installed.clusters() == []


async def every_request_has_one_outcome(installed: Installed) -> None:
    events = await installed.events()
    ids = Counter((e["key"], e["body"]["action_id"]) for e in events if "action_id" in e["body"])
    assert [key for key, count in ids.items() if count > 1] == []
    requested = {action for key, action in ids if key == "action.limits_requested.v1"}
    ended = {action for key, action in ids if key.split("_")[1] in ("applied.v1", "superseded.v1")}
    assert requested == ended, "each request was applied or superseded"


async def _running_on(lab: Lab, count: int) -> bool:
    vms = await lab.ours()
    on_host = Counter(vm.host for vm in vms if vm.is_on)  # a fresh clone is not yet where it belongs
    assert max(on_host.values(), default=0) <= 1, "one machine per host"
    return len(vms) == count and all(vm.is_on for vm in vms)


async def _limits(lab: Lab, hosts: list[str], least: float, most: float) -> list[Vm]:
    """Our machines on these hosts, if there is one on each and all limits lie between."""
    vms = [vm for vm in await lab.ours() if vm.host in hosts]
    good = {vm.host for vm in vms} == set(hosts) and all(least <= vm.limit_mhz <= most for vm in vms)
    return vms if good else []


async def _agrees(installed: Installed, lab: Lab) -> bool:
    rows = {(m["name"], m["host"], m["limit_mhz"]) for m in await installed.machines()}
    return rows == {(vm.name, vm.host, float(vm.limit_mhz)) for vm in await lab.ours()}


async def _floored_since(installed: Installed, since: datetime) -> dict[str, Any] | None:
    """The first applied limits that lend nobody more than the floor, by a sample after `since`."""
    for event in await installed.events():
        body = event["body"]
        if event["key"] != "action.limits_applied.v1" or max(body["budgets_mhz"].values()) > FLOOR_MHZ:
            continue
        if datetime.fromisoformat(body["sampled_at"]) > since:
            return event
    return None


async def _counts(installed: Installed, least: dict[str, int]) -> bool:
    keys = Counter(event["key"] for event in await installed.events())
    return all(keys[f"action.{name}.v1"] >= count for name, count in least.items())


async def _is_judged_after(installed: Installed, at: str) -> bool:
    return bool((await installed.cluster())["decided_at"] > at)


async def _is_forgotten(installed: Installed, path: str) -> bool:
    answer = await installed.deployment.ask("registry", "GET", path, expect=(200, 404))
    return bool(answer.get("status") == 404)


def _names(sight: Sight) -> list[str]:
    return sorted(vm.name for vm in sight.vms)
