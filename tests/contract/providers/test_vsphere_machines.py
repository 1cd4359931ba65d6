"""What the vSphere driver makes, and leaves alone, in a vCenter's inventory."""

import asyncio
import base64
import gzip
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from pyVmomi import vim

from libs.common.contracts.usage import Drs, HostState, Quality
from libs.providers.base import Cause, Power, Rejected
from tests.contract.providers.target import bring, delete_and_wait, deploy, newest, seen
from tests.contract.providers.vsphere_target import (
    COSTOP_COUNTER,
    CPU_COUNTER,
    MEMORY_COUNTER,
    NETWORK,
    READY_COUNTER,
    TEMPLATE,
    VSphereTarget,
    counter_ids,
    find,
    opened,
)
from tools.parts.vcsim import Vcsim


@pytest.fixture
async def target(vcsim: Vcsim) -> AsyncIterator[VSphereTarget]:
    await vcsim.start(clusters=2, hosts=2, vms=2, flags=("-perf-default", "1"))
    async with opened(vcsim) as target:
        yield target


async def test_a_machine_is_made_as_its_spec_says(target: VSphereTarget) -> None:
    spec = replace(target.make_spec(), user_data="#cloud-config\nhostname: tide\n", vcpus=2, memory_mib=2048)
    await deploy(target, spec)

    def look(content: Any) -> tuple[Any, dict[str, str], str]:
        vm = find(content, vim.VirtualMachine, spec.name)
        return vm.config, {option.key: option.value for option in vm.config.extraConfig}, vm.parent.name

    config, options, folder = await target.back_door.run(look)
    assert folder == "tides"
    assert (config.hardware.numCPU, config.hardware.memoryMB) == (2, 2048)
    assert config.cpuAllocation.limit == 1500
    assert config.cpuAllocation.reservation == 0
    assert config.cpuAllocation.shares.level == "low"
    assert config.memoryAllocation.shares.level == "low"
    assert config.memoryAllocation.reservation == 0
    assert config.instanceUuid == str(spec.mark.machine_id)
    assert str(spec.mark.installation_id) in config.annotation
    assert options["guestinfo.userdata.encoding"] == "gzip+base64"
    assert gzip.decompress(base64.b64decode(options["guestinfo.userdata"])).decode() == spec.user_data


async def test_the_pool_gives_way_and_reserves_no_cpu(target: VSphereTarget) -> None:
    def add_sibling(content: Any) -> None:
        root = find(content, vim.ClusterComputeResource, "DC0_C0").resourcePool
        many = vim.ResourceAllocationInfo(
            reservation=0,
            expandableReservation=True,
            limit=-1,
            shares=vim.SharesInfo(level="custom", shares=4000),
        )
        root.CreateResourcePool("owner", vim.ResourceConfigSpec(cpuAllocation=many, memoryAllocation=many))

    await target.back_door.run(add_sibling)
    assert await target.provider.set_limits(target.cluster, 3000, {}) == 1
    pool = await target.back_door.run(lambda content: find(content, vim.ResourcePool, "tides").config)
    # Two machines with one vCPU each and normal shares lie beside the pools.
    assert pool.cpuAllocation.shares.level == "custom"
    assert 1 <= pool.cpuAllocation.shares.shares <= (4000 + 2 * 1000) * 0.01
    assert 1 <= pool.memoryAllocation.shares.shares <= (4000 + 2 * 320) * 0.01
    assert (pool.cpuAllocation.limit, pool.cpuAllocation.reservation) == (3000, 0)
    assert pool.cpuAllocation.expandableReservation is False
    assert (pool.memoryAllocation.reservation, pool.memoryAllocation.expandableReservation) == (0, True)


async def test_a_look_alike_in_our_folder_is_not_ours(target: VSphereTarget) -> None:
    spec = target.make_spec()
    await target.back_door.add_machine(spec.name, folder="tides")
    with pytest.raises(Rejected) as refusal:
        await target.provider.create(spec)
    assert refusal.value.cause is Cause.CONFLICT
    assert await target.provider.machines() == []
    with pytest.raises(Rejected):
        await target.provider.set_power(spec.name, Power.ON)
    await target.provider.delete(spec.name)
    assert await target.exists(spec.name)


async def test_a_marked_copy_outside_our_folder_or_under_another_name_is_not_ours(
    target: VSphereTarget,
) -> None:
    spec, moved, renamed = (target.make_spec() for _ in range(3))
    for each in (spec, moved, renamed):
        await deploy(target, each)

    def disguise(content: Any) -> None:
        vm = find(content, vim.VirtualMachine, moved.name)
        content.rootFolder.childEntity[0].vmFolder.MoveIntoFolder_Task([vm])
        find(content, vim.VirtualMachine, renamed.name).Rename_Task(f"tides-{uuid4()}")

    await target.back_door.run(disguise)
    assert [machine.name for machine in await target.provider.machines()] == [spec.name]


async def test_another_installations_machine_is_listed_and_left_alone(target: VSphereTarget) -> None:
    spec = target.make_spec()
    await deploy(target, spec)
    target.installation_id = uuid4()
    other = await target.open(target.vcsim.password)
    try:
        assert [machine.mark for machine in await other.machines()] == [spec.mark]
        for attempt in (other.delete(spec.name), other.set_power(spec.name, Power.ON)):
            with pytest.raises(Rejected) as refusal:
                await attempt
            assert refusal.value.cause is Cause.CONFLICT
        with pytest.raises(Rejected):
            await other.release(target.cluster)
    finally:
        await other.aclose()
    assert await target.exists(spec.name)


async def test_limits_change_only_what_differs_and_the_newest_wins(target: VSphereTarget) -> None:
    first, second = target.make_spec(), target.make_spec()
    for spec in (first, second):
        await deploy(target, spec)
    wishes = {first.name: 700.0, second.name: 1500.0}
    assert await target.provider.set_limits(target.cluster, 4000, wishes) == 2
    counts = await asyncio.gather(
        *(
            target.provider.set_limits(target.cluster, 4000, {first.name: float(mhz)})
            for mhz in (600, 500, 400)
        )
    )
    assert sum(counts) <= 3
    machine = await seen(target, first.name)
    assert machine is not None
    assert machine.limit_mhz == 400


async def test_an_absent_machine_does_not_keep_the_others_from_their_limits(target: VSphereTarget) -> None:
    spec = target.make_spec()
    await deploy(target, spec)
    with pytest.raises(Rejected) as refusal:
        await target.provider.set_limits(target.cluster, 4000, {"tides-absent": 500.0, spec.name: 800.0})
    assert refusal.value.cause is Cause.NOT_FOUND
    machine = await seen(target, spec.name)
    assert machine is not None
    assert machine.limit_mhz == 800


@pytest.mark.parametrize("mhz", [float("nan"), float("inf"), -1.0])
async def test_a_limit_is_never_unlimited(target: VSphereTarget, mhz: float) -> None:
    with pytest.raises(Rejected) as refusal:
        await target.provider.set_limits(target.cluster, mhz, {})
    assert refusal.value.cause is Cause.INVALID
    with pytest.raises(Rejected):
        await target.provider.create(replace(target.make_spec(), limit_mhz=mhz))


async def test_a_cluster_is_released_while_another_still_uses_the_folder(target: VSphereTarget) -> None:
    clusters = [each.cluster for each in (await target.provider.validate()).clusters]
    staying = replace(target.make_spec(), cluster=clusters[1])
    hosts = {sample.cluster: sample.hosts for sample in await target.provider.sample(None)}
    await deploy(target, replace(staying, host=hosts[clusters[1]][0]))
    leaving = target.make_spec()
    await deploy(target, leaving)
    await target.provider.delete(leaving.name)
    await target.provider.release(clusters[0])
    assert [machine.name for machine in await target.provider.machines()] == [staying.name]
    await target.provider.delete(staying.name)
    await target.back_door.add_machine("somebody's", folder="tides")
    await target.provider.release(clusters[1])
    assert await target.exists("somebody's")


async def test_what_is_not_there_is_not_found(target: VSphereTarget) -> None:
    spec = target.make_spec()
    for wrong in (
        replace(spec, cluster="domain-c999"),
        replace(spec, host="host-999"),
        replace(spec, network="no such network"),
    ):
        with pytest.raises(Rejected) as refusal:
            await target.provider.create(wrong)
        assert refusal.value.cause is Cause.NOT_FOUND
    assert not await target.exists(spec.name)


async def test_a_machine_is_put_into_its_network_and_its_disk_grows(target: VSphereTarget) -> None:
    spec = replace(target.make_spec(), disk_gib=4.0)
    await deploy(target, spec)

    def look(content: Any) -> tuple[str, int]:
        group = find(content, vim.dvs.DistributedVirtualPortgroup, NETWORK)
        devices = find(content, vim.VirtualMachine, spec.name).config.hardware.device
        card = next(each for each in devices if isinstance(each, vim.vm.device.VirtualEthernetCard))
        disk = next(each for each in devices if isinstance(each, vim.vm.device.VirtualDisk))
        port: Any = getattr(card.backing, "port", None)
        assert port.portgroupKey == group.key
        return str(port.switchUuid), int(disk.capacityInKB or 0)

    switch, capacity_kib = await target.back_door.run(look)
    assert switch
    assert capacity_kib == 4 * 1024 * 1024


async def test_without_a_named_network_nothing_is_made(target: VSphereTarget) -> None:
    spec = replace(target.make_spec(), network=None)
    with pytest.raises(Rejected) as refusal:
        await target.provider.create(spec)
    assert refusal.value.cause is Cause.INVALID
    assert "`network`" in refusal.value.detail
    assert not await target.exists(spec.name)


async def test_a_template_of_several_cards_or_none_gives_a_machine_of_one(target: VSphereTarget) -> None:
    kind = vim.vm.device.VirtualEthernetCard

    def cards(content: Any, name: str) -> list[Any]:
        devices = find(content, vim.VirtualMachine, name).config.hardware.device
        return [each for each in devices if isinstance(each, kind)]

    def change(operation: str, device: Any) -> Callable[[Any], None]:
        changes = [vim.vm.device.VirtualDeviceSpec(operation=operation, device=device)]
        return lambda content: find(content, vim.VirtualMachine, TEMPLATE).ReconfigVM_Task(
            vim.vm.ConfigSpec(deviceChange=changes)
        )

    def groups(content: Any, name: str) -> list[str]:
        return [str(each.backing.port.portgroupKey) for each in cards(content, name)]

    own = await target.back_door.run(
        lambda content: find(content, vim.dvs.DistributedVirtualPortgroup, NETWORK).key
    )
    backing = kind.NetworkBackingInfo(deviceName="VM Network")
    await target.back_door.run(change("add", vim.vm.device.VirtualE1000(key=-1, backing=backing)))
    before = await target.back_door.run(lambda content: cards(content, TEMPLATE))
    assert len(before) == 2
    two = await deploy(target, target.make_spec())
    assert await target.back_door.run(lambda content: groups(content, two.name)) == [own]
    for card in before:
        await target.back_door.run(change("remove", card))
    none = await deploy(target, target.make_spec())
    assert await target.back_door.run(lambda content: groups(content, none.name)) == [own]


async def test_a_scope_leaves_out_other_clusters_and_a_missing_one_is_told(target: VSphereTarget) -> None:
    connection = target.connection(
        target.vcsim.password, target.vcsim.ca_file.read_text(), clusters=["DC0_C1", "nowhere"]
    )
    scoped = await target.open_with(connection)
    facts = await scoped.validate()
    assert [cluster.name for cluster in facts.clusters] == ["DC0_C1"]
    assert any("nowhere" in warning for warning in facts.warnings)
    await deploy(target, target.make_spec())
    assert await scoped.machines() == []
    await scoped.aclose()


async def test_validation_warns_until_there_is_a_network_and_a_template(target: VSphereTarget) -> None:
    warnings = " ".join((await target.provider.validate()).warnings)
    assert [each.code for each in (await target.provider.validate()).blockers] == ["no_network"]
    assert "No template is visible" in warnings
    await target.back_door.run(lambda content: find(content, vim.VirtualMachine, TEMPLATE).PowerOffVM_Task())
    await target.back_door.run(lambda content: find(content, vim.VirtualMachine, TEMPLATE).MarkAsTemplate())
    connection = target.connection(target.vcsim.password, target.vcsim.ca_file.read_text(), network=NETWORK)
    named = await target.open_with(connection)
    warnings = " ".join((await named.validate()).warnings)
    assert "network" not in warnings
    assert "template" not in warnings
    assert await named.find_template(TEMPLATE) is not None
    await named.aclose()
    connection = replace(connection, settings={"network": "elsewhere", "datastore": "LocalDS_9"})
    wrong = await target.open_with(connection)
    facts = await wrong.validate()
    assert [each.code for each in facts.blockers] == ["network_missing", "no_datastore"]
    warnings = " ".join(facts.warnings)
    assert "no network named 'elsewhere'" in warnings
    assert "no usable datastore named 'LocalDS_9'" in warnings
    await wrong.aclose()
    assert (await deploy(target, target.make_spec())).configured


def _move(name: str, host: str, content: Any) -> None:
    place = vim.vm.RelocateSpec(host=vim.HostSystem(host, content.rootFolder._stub))
    find(content, vim.VirtualMachine, name).RelocateVM_Task(place)


def _owners_on(host: str, content: Any) -> list[str]:
    machines = vim.HostSystem(host, content.rootFolder._stub).vm
    on = [vm.name for vm in machines if vm.runtime.powerState == "poweredOn"]
    return [name for name in on if not name.startswith("tides-")]


async def test_maintenance_and_our_use_show_in_the_sample(target: VSphereTarget) -> None:
    spec = target.make_spec(host=(await newest(target)).hosts[0])
    await deploy(target, spec)
    await bring(target, spec.name, Power.ON)
    host, other = (await newest(target)).hosts
    await target.vcsim.set_perf(host, {CPU_COUNTER: 1800, MEMORY_COUNTER: 2048 * 1024})
    vm = await target.back_door.machine_id(spec.name)
    await target.vcsim.set_perf(vm, {CPU_COUNTER: 600, MEMORY_COUNTER: 512 * 1024})
    ids = await target.back_door.run(counter_ids)
    active, balloon, swapped = (ids[f"mem.{name}.average"] for name in ("active", "vmmemctl", "swapped"))
    await target.vcsim.set_perf(host, {CPU_COUNTER: 1800, MEMORY_COUNTER: 2048 * 1024, active: 640 * 1024})
    for name in ("DC0_C0_RP0_VM0", "DC0_C0_RP0_VM1"):
        owner = await target.back_door.machine_id(name)
        lost = {balloon: 96 * 1024, swapped: 32 * 1024}
        await target.vcsim.set_perf(owner, {READY_COUNTER: 1000, COSTOP_COUNTER: 400} | lost)
        await target.back_door.run(partial(_move, name, host))
    await target.back_door.run(
        lambda content: vim.HostSystem(other, content.rootFolder._stub).EnterMaintenanceMode_Task(0)
    )
    sample = await newest(target)
    assert sample.quality is Quality.MEASURED
    assert sample.states == (HostState.CONNECTED, HostState.MAINTENANCE)
    assert (sample.cpu_used_mhz[0], sample.cpu_ours_mhz[0]) == (1800, 600)
    assert (sample.memory_used_mib[0], sample.memory_ours_mib[0]) == (2048, 512)
    assert (sample.machines, sample.cpu_limit_mhz) == ((1, 0), (1500, 0))
    # 1.4 s of 20 s waited by each vCPU of the owner's machines there; on hosts without ours nobody asks.
    assert sample.contention_percent[0] == pytest.approx(7.0)
    assert sample.contention_percent[1] is None
    # The balloon and swap of the owner's machines that are on there, and what of the host's memory is active.
    owners = len(await target.back_door.run(partial(_owners_on, host)))
    assert owners > 0
    assert sample.owner_balloon_mib == (owners * 96, None)
    assert sample.owner_swapped_mib == (owners * 32, None)
    assert sample.memory_active_mib == (640, None)
    assert sample.drs is Drs.ON
    assert sample.datastore_free_gib is not None


async def test_without_counters_the_summary_serves_and_says_so(target: VSphereTarget) -> None:
    sample = await newest(target)
    await target.vcsim.set_host_load(sample.hosts[0], 2100, 3000)
    await target.vcsim.set_perf(sample.hosts[0], {CPU_COUNTER: 0, MEMORY_COUNTER: 0})
    await target.vcsim.set_perf(sample.hosts[1], {CPU_COUNTER: 0, MEMORY_COUNTER: 0})
    other = {each.cluster: each for each in await target.provider.sample(None)}[target.cluster]
    assert other.quality is Quality.PARTIAL
    assert other.cpu_used_mhz[0] == 2100
    assert other.memory_used_mib[0] == 3000


async def test_an_hour_that_was_missed_is_filled_back(target: VSphereTarget) -> None:
    first = await newest(target)
    for _ in range(30):
        await target.settle()
    samples = [each for each in await target.provider.sample(first.at) if each.cluster == target.cluster]
    assert [each.quality for each in samples[:-1]] == [Quality.BACKFILLED] * (len(samples) - 1)
    assert samples[-1].quality is Quality.MEASURED
    assert len(samples) in (30, 31, 32)
    assert all((later.at - earlier.at).total_seconds() == 20 for earlier, later in pairwise(samples))


async def test_snapshots_that_others_left_go_with_our_machine_and_no_others(target: VSphereTarget) -> None:
    spec = target.make_spec()
    await deploy(target, spec)

    def take(content: Any) -> None:
        for name in (spec.name, target.template):
            find(content, vim.VirtualMachine, name).CreateSnapshot_Task("backup", "", False, False)

    await target.back_door.run(take)
    await delete_and_wait(target, spec.name)

    def template_snapshots(content: Any) -> list[str]:
        template = find(content, vim.VirtualMachine, target.template)
        return [each.name for each in template.snapshot.rootSnapshotList]

    assert spec.name not in await target.back_door.names()
    assert await target.back_door.run(template_snapshots) == ["backup"]


async def test_a_stand_alone_host_is_a_cluster_of_one(vcsim: Vcsim) -> None:
    await vcsim.start(hosts=1, vms=1, flags=("-perf-default", "1", "-standalone-host", "1"))
    async with opened(vcsim) as target:
        [alone] = [each for each in (await target.provider.validate()).clusters if each.name == "DC0_H0"]
        target.cluster = alone.cluster
        host = (await newest(target)).hosts[0]
        spec = target.make_spec(host=host)
        assert (await deploy(target, spec)).host == host
        assert await target.provider.set_limits(alone.cluster, 2000, {spec.name: 900}) == 2
        assert (await newest(target)).cap_mhz == 2000
        await target.provider.delete(spec.name)
        await target.provider.release(alone.cluster)
