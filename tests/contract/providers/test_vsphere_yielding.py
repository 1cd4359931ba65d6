"""Our machines give way whatever is done to our pool: DRS switched off mid-life, the pool edited, gone, or left."""

import pytest
import structlog
from pyVmomi import vim

from libs.common.contracts.usage import Exposure
from libs.providers.base import Cause, MachineSpec, Power, Rejected
from tests.contract.providers import administrator
from tests.contract.providers.target import bring, deploy, newest
from tests.contract.providers.vsphere_target import VSphereTarget, find
from tests.faultproxy import FaultProxy, no_permission

LEAST = ("custom", 1, "custom", 1, "Resources")
HOME = ("low", 0, "low", 0, "tides")
"""vcsim leaves out what a level means in numbers."""


@pytest.fixture
async def spec(target: VSphereTarget) -> MachineSpec:
    """A machine of ours that runs in our pool and gives way there."""
    spec = target.make_spec()
    await deploy(target, spec)
    await bring(target, spec.name, Power.ON)
    await mend(target, spec)
    assert (await newest(target)).exposed is None
    return spec


async def mend(target: VSphereTarget, spec: MachineSpec, mhz: float = 900.0) -> int:
    """What workload does on its beat."""
    return await target.provider.set_limits(target.cluster, 2000.0, {spec.name: mhz})


async def test_drs_switched_off_is_seen_and_the_machines_give_way_alone(
    target: VSphereTarget, spec: MachineSpec
) -> None:
    await administrator.switch_drs(target.back_door, enabled=False)
    assert await administrator.pools(target.back_door) == []
    sample = await newest(target)
    assert (sample.exposed, sample.cap_mhz) == (Exposure.NO_POOLS, None)
    assert await mend(target, spec, 400.0) == 1, "limit and shares in one change of the machine"
    assert await administrator.shares_of(target.back_door, spec.name) == LEAST
    sample = await newest(target)
    assert (sample.exposed, sum(sample.cpu_limit_mhz)) == (None, 400.0)
    assert await mend(target, spec, 400.0) == 0, "settled: nothing more is changed"


async def test_a_machine_that_is_made_without_drs_gives_way_from_the_start(target: VSphereTarget) -> None:
    await administrator.switch_drs(target.back_door, enabled=False)
    spec = target.make_spec()
    await deploy(target, spec)
    await bring(target, spec.name, Power.ON)
    assert await administrator.shares_of(target.back_door, spec.name) == LEAST
    assert (await newest(target)).exposed is None
    assert await administrator.pools(target.back_door) == []
    await target.provider.delete(spec.name)
    await target.provider.release(target.cluster)


async def test_with_drs_again_the_pool_is_made_and_takes_the_machines_back(
    target: VSphereTarget, spec: MachineSpec
) -> None:
    await administrator.switch_drs(target.back_door, enabled=False)
    await mend(target, spec)
    await administrator.switch_drs(target.back_door, enabled=True)
    assert (await newest(target)).exposed is None, "least shares give way wherever they are"
    assert await mend(target, spec) == 3, "the pool, the move into it, and the shares inside it"
    assert await administrator.shares_of(target.back_door, spec.name) == HOME
    sample = await newest(target)
    assert (sample.exposed, sample.cap_mhz) == (None, 2000.0)
    assert await mend(target, spec) == 0


async def test_a_raised_pool_is_seen_and_set_back(target: VSphereTarget, spec: MachineSpec) -> None:
    await administrator.raise_pool(target.back_door)
    assert (await newest(target)).exposed is Exposure.POOL_ALTERED
    assert await mend(target, spec) == 1
    kept = await target.back_door.run(lambda content: find(content, vim.ResourcePool, "tides").config)
    for allocation in (kept.cpuAllocation, kept.memoryAllocation):
        assert (str(allocation.shares.level), allocation.reservation) == ("custom", 0)
    sample = await newest(target)
    assert (sample.exposed, sample.cap_mhz) == (None, 2000.0)


async def test_shares_raised_by_hand_are_seen_at_the_next_tick_and_set_back(
    target: VSphereTarget, spec: MachineSpec
) -> None:
    await administrator.raise_shares(target.back_door, 100_000)
    assert (await newest(target)).exposed is Exposure.POOL_ALTERED
    assert await mend(target, spec) == 1
    assert (await newest(target)).exposed is None
    await administrator.add_pool(target.back_door, "owner", 50_000)
    assert (await newest(target)).exposed is None, "what the owner adds makes ours no heavier"


async def test_a_pool_that_was_moved_below_another_is_seen_and_left_for_a_new_one(
    target: VSphereTarget, spec: MachineSpec
) -> None:
    """Beside other siblings its shares mean something else."""
    await administrator.add_pool(target.back_door, "owner", 50_000)
    await administrator.move_pool(target.back_door, "owner")
    assert await administrator.pools(target.back_door) == ["owner"]
    assert (await newest(target)).exposed is Exposure.POOL_GONE
    await mend(target, spec)
    assert await administrator.pools(target.back_door) == ["owner", "tides"]
    assert await administrator.shares_of(target.back_door, spec.name) == HOME
    assert (await newest(target)).exposed is None
    left = await target.back_door.run(
        lambda content: [each.name for each in find(content, vim.ResourcePool, "owner").resourcePool]
    )
    assert left == [], "the old one is taken away"


async def test_a_renamed_pool_is_made_anew_and_the_old_one_goes(
    target: VSphereTarget, spec: MachineSpec
) -> None:
    await administrator.rename_pool(target.back_door, "science")
    assert (await newest(target)).exposed is Exposure.POOL_GONE
    await mend(target, spec)
    assert await administrator.pools(target.back_door) == ["tides"]
    assert await administrator.shares_of(target.back_door, spec.name) == HOME
    assert (await newest(target)).exposed is None


async def test_a_pool_that_this_session_never_knew_is_left_where_it_is(
    target: VSphereTarget, spec: MachineSpec
) -> None:
    await administrator.rename_pool(target.back_door, "science")
    fresh = await target.open(target.vcsim.password)
    await fresh.set_limits(target.cluster, 2000.0, {spec.name: 900.0})
    await fresh.aclose()
    assert await administrator.pools(target.back_door) == ["science", "tides"]
    assert await administrator.shares_of(target.back_door, spec.name) == HOME


async def test_a_machine_that_was_moved_out_is_brought_back(target: VSphereTarget, spec: MachineSpec) -> None:
    await administrator.move_out(target.back_door, spec.name)
    assert (await newest(target)).exposed is Exposure.OUTSIDE_POOL
    with structlog.testing.capture_logs() as logs:
        assert await mend(target, spec) == 1
    (told,) = [each for each in logs if each["event"] == "vsphere.machines_adopted"]
    assert (told["machines"], told["log_level"]) == ([spec.name], "warning")
    assert await administrator.shares_of(target.back_door, spec.name) == HOME
    assert (await newest(target)).exposed is None


async def test_a_machine_that_may_not_be_brought_back_stays_exposed_but_limited(
    target: VSphereTarget, spec: MachineSpec, proxy: FaultProxy
) -> None:
    await administrator.move_out(target.back_door, spec.name)
    proxy.rules.faults["MoveIntoResourcePool"] = no_permission("Resource.AssignVMToPool")
    with pytest.raises(Rejected) as refusal:
        await mend(target, spec, 400.0)
    assert refusal.value.cause is Cause.PERMISSION
    sample = await newest(target)
    assert sample.exposed is Exposure.OUTSIDE_POOL
    assert sum(sample.cpu_limit_mhz) == 400.0, "the limit was set before"


async def test_new_siblings_change_our_shares(target: VSphereTarget, spec: MachineSpec) -> None:
    def shares(content: object) -> int:
        return int(find(content, vim.ResourcePool, "tides").config.cpuAllocation.shares.shares)

    before = await target.back_door.run(shares)
    await administrator.add_pool(target.back_door, "owner", 50_000)
    fresh = await target.open(target.vcsim.password)  # siblings are counted once in five minutes of a session
    assert await fresh.set_limits(target.cluster, 2000.0, {spec.name: 900.0}) == 1
    await fresh.aclose()
    assert await target.back_door.run(shares) == before + 500, "one percent more"


async def test_a_foreign_machine_in_the_cluster_exposes_nothing_and_is_not_moved(
    target: VSphereTarget, spec: MachineSpec
) -> None:
    name = f"tides-{spec.mark.installation_id}"
    await target.back_door.add_machine(name)
    assert (await newest(target)).exposed is None
    assert await mend(target, spec) == 0
    assert (await administrator.shares_of(target.back_door, name))[-1] == "Resources"
