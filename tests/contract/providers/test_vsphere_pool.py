"""Our pool when somebody else edits it too: what they did is seen before it is changed, and the cap still counts."""

from typing import Any

import pytest
from pyVmomi import vim

from libs.providers.base import Cause, Unavailable
from tests.contract.providers.target import deploy
from tests.contract.providers.vsphere_target import VSphereTarget, find
from tests.faultproxy import FaultProxy


@pytest.fixture
async def target(target: VSphereTarget) -> VSphereTarget:
    """With one machine of ours, and so with our pool."""
    await deploy(target, target.make_spec())
    return target


async def cap(target: VSphereTarget) -> int:
    """The pool's CPU limit in the cloud, MHz."""

    def look(content: Any) -> int:
        return int(find(content, vim.ResourcePool, "tides").config.cpuAllocation.limit)

    return await target.back_door.run(look)


async def test_an_edit_in_between_is_seen_and_the_cap_is_set_all_the_same(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    proxy.rules.edits_before["UpdateConfig"] = 1
    before = proxy.calls["UpdateConfig"]
    await target.provider.set_limits(target.cluster, 2100.0, {})
    assert await cap(target) == 2100
    assert proxy.calls["UpdateConfig"] == before + 2, "refused once, then looked again"


async def test_somebody_who_edits_all_the_time_makes_it_wait_for_the_next_beat(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    await target.provider.set_limits(target.cluster, 2100.0, {})
    proxy.rules.edits_before["UpdateConfig"] = 2
    with pytest.raises(Unavailable) as refusal:
        await target.provider.set_limits(target.cluster, 1700.0, {})
    assert refusal.value.cause is Cause.CONFLICT
    assert await cap(target) == 2100
    await target.provider.set_limits(target.cluster, 1700.0, {})
    assert await cap(target) == 1700


async def test_what_somebody_edited_is_repaired_at_the_next_change(target: VSphereTarget) -> None:
    await target.provider.set_limits(target.cluster, 2100.0, {})

    def unlimit(content: Any) -> None:
        allocation = vim.ResourceAllocationInfo(limit=-1, reservation=0, expandableReservation=True)
        allocation.shares = vim.SharesInfo(level="high", shares=8000)
        spec = vim.ResourceConfigSpec(cpuAllocation=allocation, memoryAllocation=allocation)
        find(content, vim.ResourcePool, "tides").UpdateConfig(None, spec)

    await target.back_door.run(unlimit)
    await target.provider.set_limits(target.cluster, 2100.0, {})
    assert await cap(target) == 2100
    kept = await target.back_door.run(
        lambda content: find(content, vim.ResourcePool, "tides").config.cpuAllocation
    )
    assert not kept.expandableReservation
    assert kept.shares.level == "custom"
