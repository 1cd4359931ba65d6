"""A single ESXi host keeps what every driver must keep, without a clone: behind a proxy that is as strict as one."""

import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from pyVmomi import vim

from libs.providers.base import Capability, Cause, Full, MachineSpec, Power, Rejected, Unavailable
from tests.contract.providers.suite import ProviderSuite
from tests.contract.providers.target import bring, deploy, seen
from tests.contract.providers.vsphere_target import HostTarget, find, opened_host
from tests.faultproxy import FaultProxy, SoapFault
from tools.parts.vcsim import Vcsim


class TestHost(ProviderSuite):
    @pytest.fixture
    async def target(self, vcsim: Vcsim) -> AsyncIterator[HostTarget]:
        await vcsim.start(vms=1, flags=("-esx", "-autostart=false", "-perf-default", "1"))
        async with FaultProxy.before(vcsim) as proxy:
            proxy.rules.esxi = True
            async with opened_host(vcsim, proxy.url) as target:
                yield target
                assert not proxy.disks.loose, "copies were left behind"


@pytest.fixture
def cloud() -> dict[str, Any]:
    return {"vms": 1, "flags": ("-esx", "-autostart=false", "-perf-default", "1")}


@pytest.fixture
async def target(vcsim: Vcsim, proxy: FaultProxy) -> AsyncIterator[HostTarget]:
    """The host as it is seen through the proxy."""
    proxy.rules.esxi = True
    async with opened_host(vcsim, proxy.url) as target:
        yield target
        proxy.rules.heal()


STEPS = ("MakeDirectory", "CreateVM_Task", "CopyVirtualDisk_Task", "MoveVirtualDisk_Task", "ReconfigVM_Task")


async def break_off(target: HostTarget, proxy: FaultProxy, spec: MachineSpec, step: str) -> None:
    """Create, and lose the answer of this step; whoever goes on knows nothing of it."""
    proxy.rules.reset_after[step] = 1
    with pytest.raises(Unavailable):
        await target.provider.create(spec)
    await target.provider.aclose()
    target.provider = await target.open(target.vcsim.password)


@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_after_any_step_is_gone_on_from(
    target: HostTarget, proxy: FaultProxy, step: str
) -> None:
    spec = target.make_spec()
    await break_off(target, proxy, spec, step)
    assert (await deploy(target, spec)).configured
    assert (await target.back_door.names()).count(spec.name) == 1
    vmdks = {name for name in await target.files(spec.name) or () if name.endswith(".vmdk")}
    assert vmdks == {"disk-0.vmdk", "disk-0-flat.vmdk"}
    assert not proxy.disks.loose
    disks = await target.back_door.run(partial(_disks_of, spec.name))
    assert disks == [(f"[LocalDS_0] {spec.name}/disk-0.vmdk", True)]
    await bring(target, spec.name, Power.ON)


@pytest.mark.parametrize("step", STEPS)
async def test_a_create_that_broke_off_anywhere_is_deleted_without_a_trace(
    target: HostTarget, proxy: FaultProxy, step: str
) -> None:
    spec = target.make_spec()
    await break_off(target, proxy, spec, step)
    await target.provider.delete(spec.name)
    assert not await target.exists(spec.name)
    assert await target.files(spec.name) is None
    assert not proxy.disks.loose


async def test_a_copy_that_the_host_still_writes_is_waited_for_by_create_and_by_delete(
    target: HostTarget, proxy: FaultProxy
) -> None:
    spec = target.make_spec()
    await break_off(target, proxy, spec, "CopyVirtualDisk_Task")
    proxy.rules.faults["DeleteVirtualDisk_Task"] = SoapFault("FileLocked", "locked", "<file>x</file>")
    with pytest.raises(Unavailable):
        await target.provider.create(spec)
    with pytest.raises(Unavailable):
        await target.provider.delete(spec.name)
    assert await target.exists(spec.name), "what is copied belongs to a machine that is listed"
    proxy.rules.faults.clear()
    assert (await deploy(target, spec)).configured


async def test_a_host_that_does_not_answer_for_a_moment_is_asked_after_the_same_copy(
    target: HostTarget, proxy: FaultProxy
) -> None:
    def cut_next(method: str, body: str) -> None:
        if method == "CopyVirtualDisk_Task":
            proxy.rules.reset_before["RetrievePropertiesEx"] = 1

    proxy.listener = cut_next
    spec = target.make_spec()
    with pytest.raises(Unavailable) as refusal:
        await target.provider.create(spec)
    assert refusal.value.cause is Cause.UNREACHABLE
    assert (await deploy(target, spec)).configured
    assert proxy.calls["CopyVirtualDisk_Task"] == 1


async def test_create_comes_back_while_the_host_copies_and_goes_on_when_it_is_asked_again(
    target: HostTarget, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.providers.vsphere.copying.WAIT_S", 0.2)
    copying: list[str] = []

    def show(method: str, text: str) -> bytes:
        """The copy's task is not at its end yet."""
        if method == "CopyVirtualDisk_Task":
            copying.extend(re.findall(r">([^<]+)</returnval>", text))
        if any(f">{task}<" in text for task in copying):
            text = re.sub(r"(info\.state</name>\s*<val[^>]*>)success", r"\1running", text)
        return text.encode()

    proxy.rules.mutate = show
    spec = target.make_spec()
    await target.provider.create(spec)
    await target.provider.create(spec)
    machine = await seen(target, spec.name)
    assert machine is not None
    assert not machine.configured
    proxy.rules.mutate = None
    assert (await deploy(target, spec)).configured
    assert proxy.calls["CopyVirtualDisk_Task"] == 1


async def test_the_first_disk_grows_to_the_size_that_is_asked_for(target: HostTarget) -> None:
    template = await target.provider.find_template(target.template)
    assert template is not None
    spec = target.make_spec(disk_gib=template.disk_gib * 2)
    await deploy(target, spec)
    assert await target.back_door.run(partial(_disk_gib, spec.name)) == pytest.approx(spec.disk_gib)
    assert await target.back_door.run(partial(_disk_gib, target.template)) == pytest.approx(template.disk_gib)


async def test_a_host_of_a_vcenter_is_named_so_and_not_lent(target: HostTarget, proxy: FaultProxy) -> None:
    assert [each.code for each in (await target.provider.validate()).blockers] == ["no_network"]
    managed = (
        "<propSet><name>summary.managementServerIp</name>"
        '<val xsi:type="xsd:string">192.0.2.7</val></propSet></objects>'
    )
    kind = 'type="HostSystem"'

    def show(method: str, text: str) -> bytes:
        return (text.replace("</objects>", managed) if kind in text else text).encode()

    proxy.rules.mutate = show
    blockers = {each.code: each.detail for each in (await target.provider.validate()).blockers}
    assert "192.0.2.7" in blockers["managed_host"]


async def test_a_copy_without_room_is_full_and_goes_on_when_there_is_some(
    target: HostTarget, proxy: FaultProxy
) -> None:
    proxy.rules.faults["CopyVirtualDisk_Task"] = SoapFault(
        "NoDiskSpace", "Insufficient disk space", "<file>x</file><datastore>LocalDS_0</datastore>"
    )
    spec = target.make_spec()
    with pytest.raises(Full):
        await target.provider.create(spec)
    machine = await seen(target, spec.name)
    assert machine is not None
    assert not machine.configured
    proxy.rules.faults.clear()
    assert (await deploy(target, spec)).configured


async def test_a_copied_machine_is_not_ours_even_with_our_name_and_mark(target: HostTarget) -> None:
    spec = target.make_spec()
    await deploy(target, spec)
    await target.back_door.run(partial(_copy_machine, spec.name))
    assert (await target.back_door.names()).count(spec.name) == 2
    assert await seen(target, spec.name) is not None
    await target.provider.delete(spec.name)
    assert (await target.back_door.names()).count(spec.name) == 1
    assert await seen(target, spec.name) is None
    with pytest.raises(Rejected) as refusal:
        await target.provider.create(spec)
    assert refusal.value.cause is Cause.CONFLICT


async def test_a_template_that_runs_is_not_copied(target: HostTarget) -> None:
    await target.back_door.run(
        lambda content: find(content, vim.VirtualMachine, target.template).PowerOnVM_Task()
    )
    spec = target.make_spec()
    with pytest.raises(Rejected, match="not powered off"):
        await target.provider.create(spec)
    assert await target.files(spec.name) is None


async def test_a_host_says_what_it_is_and_what_it_can_do(target: HostTarget, proxy: FaultProxy) -> None:
    facts = await target.provider.validate()
    assert any("single ESXi host" in text for text in facts.warnings)
    assert re.fullmatch(r"[0-9a-f-]{36}", facts.instance_id), "two hosts would be taken for one"
    assert Capability.DISK_COPY in target.provider.capabilities
    assert not target.provider.capabilities & {
        Capability.CLONE, Capability.LINKED_CLONE, Capability.ATTRIBUTE, Capability.DRS_OVERRIDE,
    }  # fmt: skip
    proxy.rules.lacking = {"Datastore.FileManagement", "Folder.Create"}
    assert [each.privilege for each in (await target.provider.validate()).missing] == [
        "Datastore.FileManagement"
    ]
    proxy.rules.faults["HasPrivilegeOnEntities"] = SoapFault("NotSupported")
    facts = await target.provider.validate()
    assert facts.missing == ()
    assert any("does not say" in text for text in facts.warnings)


async def test_under_the_free_licence_a_host_is_observed_and_says_that_it_cannot_lend(
    target: HostTarget, proxy: FaultProxy
) -> None:
    proxy.rules.free_licence = True
    provider = await target.open(target.vcsim.password)
    blockers = {each.code: each for each in (await provider.validate()).blockers}
    assert "includes the vSphere API" in blockers["read_only_licence"].remedy
    assert provider.capabilities == {Capability.HOSTS_VISIBLE, Capability.BACKFILL}
    assert (await provider.sample(None))[0].cpu_capacity_mhz[0] > 0
    assert await provider.machines() == []
    with pytest.raises(Rejected, match="licence") as refusal:
        await provider.create(target.make_spec())
    assert refusal.value.cause is Cause.PERMISSION
    await provider.aclose()


def _disk_gib(name: str, content: Any) -> float:
    devices: list[Any] = find(content, vim.VirtualMachine, name).config.hardware.device
    return sum(each.capacityInKB for each in devices if isinstance(each, vim.vm.device.VirtualDisk)) / 1024**2


def _disks_of(name: str, content: Any) -> list[tuple[str, bool]]:
    devices: list[Any] = find(content, vim.VirtualMachine, name).config.hardware.device
    disks: list[Any] = [each for each in devices if isinstance(each, vim.vm.device.VirtualDisk)]
    return [(each.backing.fileName, bool(each.backing.thinProvisioned)) for each in disks]


def _copy_machine(name: str, content: Any) -> None:
    """What somebody does who copies a machine's directory and registers the copy."""
    old = find(content, vim.VirtualMachine, name)
    config = vim.vm.ConfigSpec(
        name=name,
        files=vim.vm.FileInfo(vmPathName=f"[LocalDS_0] copy-of-{name}/{name}.vmx"),
        extraConfig=list(old.config.extraConfig),
        guestId="otherGuest",
    )
    old.parent.CreateVM_Task(config, old.resourcePool)
