"""What disks a machine has, what of it is told to a host, and which guests and licences do not do."""

from typing import Any
from uuid import uuid4

import pytest
from pyVmomi import vim, vmodl

from libs.providers.base import MachineSpec, Mark
from libs.providers.vsphere.hardware import (
    attach_spec,
    controllers_of,
    device_changes,
    files_of,
    shell_spec,
    slots_of,
)
from libs.providers.vsphere.licence import is_free
from libs.providers.vsphere.templates import judge_guest

_device = vim.vm.device


def make_spec(**changes: Any) -> MachineSpec:
    mark = Mark(uuid4(), uuid4())
    values: dict[str, Any] = {
        "name": f"tides-{mark.machine_id}", "mark": mark, "cluster": "c", "host": None, "template": "t", "vcpus": 2,
        "memory_mib": 1024, "disk_gib": 1.0, "limit_mhz": 900.0, "user_data": "x",
    }  # fmt: skip
    return MachineSpec(**values | changes)


def make_disk(key: int, controller: int, unit: int, file: str, parent: str | None = None) -> Any:
    backing = _device.VirtualDisk.FlatVer2BackingInfo(fileName=file, diskMode="persistent")
    if parent is not None:
        backing.parent = _device.VirtualDisk.FlatVer2BackingInfo(fileName=parent, diskMode="persistent")
    return _device.VirtualDisk(
        key=key, controllerKey=controller, unitNumber=unit, capacityInKB=1024**2, backing=backing
    )


TEMPLATE = [
    _device.VirtualIDEController(key=200, busNumber=0),
    _device.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="noSharing"),
    _device.VirtualLsiLogicController(key=1001, busNumber=1, sharedBus="noSharing"),
    _device.VirtualNVMEController(key=31000, busNumber=0),
    make_disk(2016, 1001, 3, "[ds] t/data.vmdk"),
    make_disk(2000, 1000, 0, "[ds] t/root.vmdk"),
    make_disk(32000, 31000, 0, "[ds] t/fast.vmdk"),
    make_disk(3000, 200, 1, "[ds] t/old.vmdk"),
]


def test_every_disk_hangs_on_a_new_machine_where_it_hung_on_the_template() -> None:
    spec = make_spec()
    shell = shell_spec(
        spec, "[ds] x/x.vmx", {"config.hardware.device": TEMPLATE, "config.guestId": "debian12_64Guest"}
    )
    made = [change.device for change in shell.deviceChange]
    assert {type(each).__name__.rpartition(".")[2] for each in made} == {
        "ParaVirtualSCSIController", "VirtualLsiLogicController", "VirtualNVMEController",
    }  # fmt: skip
    assert (shell.uuid, shell.instanceUuid) == (str(spec.mark.machine_id),) * 2
    assert not any(option.key == "tides.configured" for option in shell.extraConfig)

    present = controllers_of([TEMPLATE[0], *made])
    slots = slots_of(TEMPLATE)
    attached = attach_spec((slot.file, slot.kib, present[slot.controller], slot.unit) for slot in slots)
    kinds = {each.key: type(each) for each in (TEMPLATE[0], *made)}
    found = {
        change.device.backing.fileName: (kinds[change.device.controllerKey], change.device.unitNumber)
        for change in attached.deviceChange
    }
    assert found == {
        "[ds] t/root.vmdk": (_device.ParaVirtualSCSIController, 0),
        "[ds] t/data.vmdk": (_device.VirtualLsiLogicController, 3),
        "[ds] t/fast.vmdk": (_device.VirtualNVMEController, 0),
        "[ds] t/old.vmdk": (_device.VirtualIDEController, 1),
    }
    assert slots[0].file == "[ds] t/root.vmdk", "the first disk is the one that grows"


def test_what_a_snapshot_rests_on_belongs_to_the_machine() -> None:
    disk = make_disk(2000, 1000, 0, "[ds] x/disk-0-000001.vmdk", parent="[ds] x/disk-0.vmdk")
    assert files_of([TEMPLATE[0], disk]) == {"[ds] x/disk-0-000001.vmdk", "[ds] x/disk-0.vmdk"}


def test_a_disk_that_shares_its_template_s_is_limited_and_never_grows() -> None:
    linked = make_disk(2000, 1000, 0, "[ds] x/x.vmdk", parent="[ds] t/root.vmdk")
    backing = _device.VirtualEthernetCard.NetworkBackingInfo(deviceName="n")
    changes = device_changes([linked], make_spec(disk_gib=9.0), backing, iops=200)
    assert [change.operation for change in changes] == ["edit", "add"]
    assert (changes[0].device.capacityInKB, changes[0].device.storageIOAllocation.limit) == (1024**2, 200)
    again = device_changes([changes[0].device], make_spec(disk_gib=9.0), backing, iops=200)
    assert [change.operation for change in again] == ["add"]


@pytest.mark.parametrize(
    "guest", ["windows2019srv_64Guest", "winNetEnterpriseGuest", "longhornGuest", "win2000ServGuest"]
)
def test_windows_is_known_by_its_guest_id(guest: str) -> None:
    assert guest in (judge_guest(guest) or "")


@pytest.mark.parametrize("guest", ["debian12_64Guest", "otherGuest64", "ubuntu64Guest", ""])
def test_another_guest_is_let_pass(guest: str) -> None:
    assert judge_guest(guest) is None


def make_licence(edition: str, name: str, *features: str) -> Any:
    properties = [
        vmodl.KeyAnyValue(key="feature", value=vim.KeyValue(key=feature, value=feature))
        for feature in features
    ]
    return vim.LicenseManager.LicenseInfo(
        licenseKey="0", editionKey=edition, name=name, total=0, costUnit="cpuPackage", properties=properties
    )


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        (make_licence("esxBasic", "VMware vSphere 7 Hypervisor", "vsmp:8"), True),
        (make_licence("esx.hypervisor.cpuPackage", "VMware vSphere 8 Hypervisor"), True),
        (make_licence("esx.hypervisor.cpuPackage", "VMware vSphere 8 Hypervisor", "vimapi"), False),
        (make_licence("esx.enterprisePlus.cpuPackage", "VMware vSphere 8 Enterprise Plus", "vimapi"), False),
        (make_licence("esx.standard.cpuPackage", "VMware vSphere 8 Standard"), False),
        (make_licence("eval", "Evaluation Mode"), False),
    ],
)
def test_a_free_licence_is_known_by_its_name_and_by_what_it_lacks(licence: Any, free: bool) -> None:
    assert is_free(licence) is free
