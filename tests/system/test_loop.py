"""The loop on real parts: vcsim, RabbitMQ, PostgreSQL, and every service as a process of its own.

Asserted through REST, events, and a second client that looks at vcsim: never at our rows.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import until
from tests.system.installing import POLICY, install
from tests.system.lab import Lab, owners
from tests.system.processes import Deployment
from tools.parts.vcsim import Vcsim

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("processes")]


@pytest.fixture
async def lab(vcsim: Vcsim) -> AsyncIterator[Lab]:
    """A vCenter of one cluster and three hosts, a tenth of each in use by its owner."""
    async with owners(vcsim) as found:
        yield found


@pytest.fixture
async def deployment(tmp_path: Path, database_url: str, amqp_url: str) -> AsyncIterator[Deployment]:
    """An installation without a process yet."""
    found = Deployment(tmp_path, database_url, amqp_url)
    yield found
    await found.stop()


async def test_a_sample_from_the_cloud_changes_a_limit_in_the_cloud(deployment: Deployment, lab: Lab) -> None:
    for name in ("registry", "policy", "monitor", "workload"):
        await deployment.start(name)
    await deployment.start("supply", "templates", "contribution")
    installed = await install(deployment, lab, policy=POLICY)

    await installed.set_mode("observe")
    await until(installed.is_judged, timeout=60, what="a decision while observing")
    assert await lab.ours() == [], "observing touches nothing"

    await installed.set_mode("lend")
    vms = await until(lambda: _running(lab, 3), timeout=90, what="a machine on every host")
    assert {vm.pool for vm in vms} == {"tides"}
    idle = await until(lambda: _limits_above(lab, 1000), timeout=60, what="limits that lend an idle host")

    busy = idle[0].host
    lab.owner[busy] = 0.75
    await until(lambda: _limit_below(lab, busy, 700), timeout=60, what="a limit that follows the owner")
    applied = [event for event in await installed.events() if event["key"] == "action.limits_applied.v1"]
    assert applied, "the change is an event"


async def _running(lab: Lab, count: int) -> object:
    vms = await lab.ours()
    return vms if sum(vm.is_on for vm in vms) >= count else None


async def _limits_above(lab: Lab, mhz: int) -> object:
    vms = await lab.ours()
    return vms if vms and all(mhz < vm.limit_mhz < 10**6 for vm in vms) else None


async def _limit_below(lab: Lab, host: str, mhz: int) -> bool:
    return all(vm.limit_mhz < mhz for vm in await lab.ours() if vm.host == host)
