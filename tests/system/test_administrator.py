"""What a vCenter's administrator does while we lend, and how soon we follow: seen on real parts, past our rows.

The cloud's 20 seconds pass in one of ours: what is waited for is counted in ticks, what we do then in seconds.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import structlog

from tests.contract.providers import administrator
from tests.contract.providers.vsphere_target import HOST_MHZ, BackDoor
from tests.support import until
from tests.system.eye import OURS, Vm
from tests.system.installing import POLICY, Installed, install
from tests.system.lab import TICK_S, Lab, owners
from tests.system.processes import Deployment
from tools.parts.vcsim import Vcsim

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("processes")]

FLOOR_MHZ = 2 * 200
LENT_MHZ = FLOOR_MHZ + 200
WITHIN_S = 60.0
log = structlog.get_logger()
Record = Callable[[str, object], None]


@pytest.fixture
async def lab(vcsim: Vcsim) -> AsyncIterator[Lab]:
    """A vCenter of one cluster and three hosts, a tenth of each in use by its owner."""
    await vcsim.start(flags=("-perf-default", "1"))
    async with owners(vcsim) as found:
        yield found


@pytest.fixture
async def installed(tmp_path: Path, database_url: str, amqp_url: str, lab: Lab) -> AsyncIterator[Installed]:
    """An installation that lends: a machine on every host, with more than its floor."""
    deployment = Deployment(tmp_path, database_url, amqp_url)
    try:
        for name in ("registry", "policy", "monitor", "workload"):
            await deployment.start(name)
        await deployment.start("supply", "templates", "contribution")
        installed = await install(deployment, lab, policy=POLICY)
        await installed.set_mode("lend")
        await until(lambda: _lent(lab, 3), timeout=120, what="a machine on every host, lent to")
        yield installed
    finally:
        await deployment.stop()


async def test_we_follow_what_an_administrator_does(
    installed: Installed, lab: Lab, record_property: Record
) -> None:
    door, story = BackDoor(lab.vcsim), _Story(lab, record_property)
    await drs_is_switched_off_and_on(installed, lab, door, story)
    await a_machine_is_moved(installed, lab, door, story)
    await a_host_goes_into_maintenance(lab, door, story)
    await a_host_is_lost(installed, lab, story)


async def drs_is_switched_off_and_on(installed: Installed, lab: Lab, door: BackDoor, story: "_Story") -> None:
    story.begin()
    await administrator.switch_drs(door, enabled=False)
    await story.wait(lambda: _give_way_alone(lab), "DRS off: limits at the floor, least shares")
    assert story.ticks <= 2
    reasons = await until(lambda: _reasons(installed, "DRS was switched off"), what="an event that says why")
    assert any("budgets at the floor" in reason for reason in reasons)
    await until(lambda: _lent(lab, 3), timeout=60, what="lending without a pool")
    assert await administrator.pools(door) == []
    story.begin()
    await administrator.switch_drs(door, enabled=True)
    lab.set_owner(
        0.4
    )  # no emergency: the next change of the limits brings them home, or a look every five minutes
    await story.wait(lambda: _is_home(lab), "DRS on: machines in a new pool")
    lab.set_owner(0.1)


async def a_machine_is_moved(installed: Installed, lab: Lab, door: BackDoor, story: "_Story") -> None:
    crowded, emptied = sorted(lab.hosts)[:2]
    (moved,) = [vm.name for vm in await lab.ours() if vm.host == emptied]
    await until(lambda: _lent(lab, 3), timeout=60, what="lending again")
    story.begin()
    await administrator.move_to_host(door, lambda name: name == moved, crowded)
    await story.wait(lambda: _is_known_on(installed, moved, crowded), "a move: the row follows")
    await story.wait(lambda: _fits(lab, crowded), "a move: both limits fit one host's budget")
    assert story.seconds <= 2 * TICK_S, "by our own look, every ten real seconds"


async def a_host_goes_into_maintenance(lab: Lab, door: BackDoor, story: "_Story") -> None:
    leaving, staying = sorted(lab.hosts)[0], sorted(lab.hosts)[2]
    await administrator.move_to_host(door, lambda name: not name.startswith(OURS), staying)
    assert [vm for vm in await lab.ours() if vm.host == leaving and vm.is_on]
    story.begin()
    await administrator.enter_maintenance(door, leaving)
    await story.wait(lambda: _is_empty(lab, leaving), "maintenance: nothing of ours runs there")
    assert story.ticks * TICK_S + story.seconds <= WITHIN_S, "never delayed"
    await until(lambda: administrator.is_in_maintenance(door, leaving), what="maintenance itself")


async def a_host_is_lost(installed: Installed, lab: Lab, story: "_Story") -> None:
    lost = sorted(lab.hosts)[2]
    story.begin()
    await lab.vcsim.set_connection(lost, "notResponding")
    await story.wait(lambda: _has_no_budget(installed, lost), "a lost host: no budget")
    assert story.ticks <= 2


class _Story:
    """How long each thing took: in ticks of the cloud's clock while it was waited for, and in real seconds."""

    def __init__(self, lab: Lab, record: Record) -> None:
        self._lab = lab
        self._record = record
        self._began = (0, 0.0)
        self.ticks = 0
        self.seconds = 0.0

    def begin(self) -> None:
        self._began = (self._lab.ticks, time.monotonic())

    async def wait(self, condition: Callable[[], Awaitable[object]], what: str) -> None:
        await until(condition, timeout=60, what=what)
        # A tick that was already under way when it began counts for nothing.
        self.ticks = max(0, self._lab.ticks - self._began[0] - 1)
        self.seconds = time.monotonic() - self._began[1]
        self._record(what, f"{self.ticks} ticks, {self.seconds:.1f} s")
        log.info("test.measured", what=what, ticks=self.ticks, seconds=round(self.seconds, 1))


async def _lent(lab: Lab, count: int) -> bool:
    vms = await lab.ours()
    return len(vms) == count and all(vm.is_on and LENT_MHZ < vm.limit_mhz < HOST_MHZ for vm in vms)


async def _give_way_alone(lab: Lab) -> bool:
    vms = await lab.ours()
    return all(vm.limit_mhz <= FLOOR_MHZ and vm.shares == ("custom", "custom") for vm in vms)


async def _is_home(lab: Lab) -> bool:
    vms = await lab.ours()
    return {(vm.pool, vm.shares) for vm in vms} == {("tides", ("low", "low"))}


async def _fits(lab: Lab, host: str) -> bool:
    there = [vm.limit_mhz for vm in await lab.ours() if vm.host == host and vm.is_on]
    return len(there) == 2 and sum(there) <= 0.9 * HOST_MHZ


async def _is_empty(lab: Lab, host: str) -> bool:
    vms: list[Vm] = await lab.ours()
    return not [vm for vm in vms if vm.host == host and vm.is_on]


async def _is_known_on(installed: Installed, name: str, host: str) -> bool:
    return (name, host) in {(row["name"], row["host"]) for row in await installed.machines()}


async def _has_no_budget(installed: Installed, host: str) -> bool:
    shown = {each["host"]: each for each in (await installed.cluster())["hosts"]}
    return bool(shown[host]["state"] == "failed" and shown[host]["budget_mhz"] == 0)


async def _reasons(installed: Installed, words: str) -> list[str]:
    found = [event["body"].get("reason", "") for event in await installed.events()]
    return [reason for reason in found if words in reason]
