"""The owner's load that Tides computes is the load that was driven, less ours: a day's shape, in a few ticks."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.providers.vsphere_target import VSphereTarget, opened
from tests.system.day import drive
from tests.system.lab import owners
from tools.parts.vcsim import Vcsim

TICKS = 60


@pytest.fixture
async def target(vcsim: Vcsim) -> AsyncIterator[VSphereTarget]:
    await vcsim.start(hosts=3, vms=2, flags=("-perf-default", "1"))
    async with opened(vcsim) as target:
        yield target


async def test_owner_load_is_what_was_driven_within_one_percent(target: VSphereTarget) -> None:
    async with owners(target.vcsim, running=False) as lab:
        found = [one for tick in [each async for each in drive(target, lab, TICKS)] for one in tick]

    assert len(found) == TICKS * 3
    assert max(one.error for one in found) <= 0.01
    assert max(one.driven for one in found) > 0.6
    assert max(one.ours for one in found) > 0.2, "ours must matter, or the test shows nothing"
