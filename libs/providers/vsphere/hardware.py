"""Specifications for a clone and its configuration: what a machine of ours is made of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from libs.providers.base import Cause, MachineSpec, Rejected
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.fleet import LEAST_SHARES
from libs.providers.vsphere.inventory import Cluster, read_objects, read_related
from libs.providers.vsphere.marks import annotation, finished_options, identity_options
from libs.providers.vsphere.pools import whole_mhz

_KIB_PER_GIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where a machine is made."""

    folder: Any
    pool: Any
    host: Any | None
    datastore: Any | None
    snapshot: Any | None = None
    """A linked clone's base."""


def clone_spec(spec: MachineSpec, place: Place) -> Any:
    """A clone that stays off and bears the mark from its first moment."""
    location = vim.vm.RelocateSpec(pool=place.pool, host=place.host)
    if place.snapshot is not None:
        location.diskMoveType = "createNewChildDiskBacking"
    elif place.datastore is not None:
        location.datastore = place.datastore
    return vim.vm.CloneSpec(
        location=location,
        snapshot=place.snapshot,
        template=False,
        powerOn=False,
        config=vim.vm.ConfigSpec(
            instanceUuid=str(spec.mark.machine_id),
            annotation=annotation(spec.mark),
            extraConfig=identity_options(spec.mark),
        ),
    )


def config_spec(spec: MachineSpec, changes: Sequence[Any], shares: Any) -> Any:
    """The whole configuration in one change; the mark says that it is done."""
    return vim.vm.ConfigSpec(
        numCPUs=spec.vcpus,
        memoryMB=spec.memory_mib,
        annotation=annotation(spec.mark),
        cpuAllocation=vim.ResourceAllocationInfo(
            reservation=0, limit=whole_mhz(spec.limit_mhz), shares=shares
        ),
        memoryAllocation=vim.ResourceAllocationInfo(reservation=0, limit=-1, shares=shares),
        deviceChange=list(changes),
        extraConfig=finished_options(spec),
    )


@dataclass(frozen=True, slots=True)
class Slot:
    """A disk of a VM, and where it hangs."""

    file: str
    kib: int
    controller: tuple[str, int]
    """Type and bus number."""
    unit: int


def slots_of(devices: Iterable[Any]) -> list[Slot]:
    """The disks among these devices that lie in files, in the order of their keys."""
    devices = list(devices)
    controllers = {device.key: device for device in devices}
    disks: list[Any] = [device for device in devices if isinstance(device, vim.vm.device.VirtualDisk)]
    return [
        Slot(
            file=str(disk.backing.fileName),
            kib=int(disk.capacityInKB),
            controller=_kind_of(controllers[disk.controllerKey]),
            unit=int(disk.unitNumber or 0),
        )
        for disk in sorted(disks, key=lambda disk: int(disk.key))
        if getattr(disk.backing, "fileName", None) and disk.controllerKey in controllers
    ]


def files_of(devices: Iterable[Any]) -> set[str]:
    """The files of the disks among these devices, and those that snapshots rest on."""
    found = set()
    for device in devices:
        backing = device.backing if isinstance(device, vim.vm.device.VirtualDisk) else None
        while backing is not None:
            found.add(str(getattr(backing, "fileName", "")))
            backing = getattr(backing, "parent", None)
    return found


def controllers_of(devices: Iterable[Any]) -> dict[tuple[str, int], int]:
    """Keys of the controllers among these devices, by type and bus number."""
    return {
        _kind_of(device): int(device.key)
        for device in devices
        if isinstance(device, vim.vm.device.VirtualController)
    }


def _kind_of(controller: Any) -> tuple[str, int]:
    return type(controller).__name__, int(getattr(controller, "busNumber", 0) or 0)


def shell_spec(spec: MachineSpec, vmx_path: str, template: Mapping[str, Any]) -> Any:
    """A machine like the template but without disks and cards, that bears the mark and the limit."""
    boot = template.get("config.bootOptions")
    secure = bool(getattr(boot, "efiSecureBootEnabled", False))
    controllers = _new_controllers(template.get("config.hardware.device") or ())
    made = config_spec(spec, controllers, make_shares(least=False))
    made.extraConfig = identity_options(spec.mark)
    made.name = spec.name
    # A copy that somebody makes of it gets another UUID: that is how look-alikes are told apart here.
    made.uuid = made.instanceUuid = str(spec.mark.machine_id)
    made.files = vim.vm.FileInfo(vmPathName=vmx_path)
    made.guestId = template.get("config.guestId")
    made.version = template.get("config.version")
    made.firmware = template.get("config.firmware")
    made.bootOptions = vim.vm.BootOptions(efiSecureBootEnabled=True) if secure else None
    return made


def _new_controllers(devices: Iterable[Any]) -> list[Any]:
    """Changes that add the disks' controllers; every machine has its IDE controllers by itself."""
    devices = list(devices)
    used = {device.controllerKey for device in devices if isinstance(device, vim.vm.device.VirtualDisk)}
    changes = []
    for number, old in enumerate(device for device in devices if device.key in used):
        if isinstance(old, vim.vm.device.VirtualIDEController):
            continue
        new: Any = type(old)(key=-200 - number, busNumber=old.busNumber)
        if isinstance(new, vim.vm.device.VirtualSCSIController):
            new.sharedBus = vim.vm.device.VirtualSCSIController.Sharing.noSharing
        changes.append(_change(new, "add"))
    return changes


def attach_spec(disks: Iterable[tuple[str, int, int | None, int]]) -> Any:
    """A change that attaches disks which exist: file, size in KiB, controller's key, unit number."""
    changes = [
        _change(
            vim.vm.device.VirtualDisk(
                key=-300 - number,
                controllerKey=controller,
                unitNumber=unit,
                capacityInKB=kib,
                backing=vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
                    fileName=file, diskMode="persistent", thinProvisioned=True
                ),
            ),
            "add",
        )
        for number, (file, kib, controller, unit) in enumerate(disks)
    ]
    return vim.vm.ConfigSpec(deviceChange=changes)


def make_shares(*, least: bool) -> Any:
    """Shares of a machine of ours: low inside our pool, and where it is in none the least that there is."""
    if least:
        return vim.SharesInfo(level=vim.SharesInfo.Level.custom, shares=LEAST_SHARES)
    return vim.SharesInfo(level=vim.SharesInfo.Level.low, shares=0)


def limit_spec(limit_mhz: float | None, shares: Any) -> Any:
    """A change of CPU limit (None: as it is) and shares; what somebody reserved for the machine is given back."""
    limit = None if limit_mhz is None else whole_mhz(limit_mhz)
    return vim.vm.ConfigSpec(
        cpuAllocation=vim.ResourceAllocationInfo(reservation=0, limit=limit, shares=shares),
        memoryAllocation=vim.ResourceAllocationInfo(reservation=0, limit=-1, shares=shares),
    )


def read_devices(api: Api, vm: Any) -> list[Any]:
    """The devices of a VM."""
    rows = read_objects(api, "machines", [vm], {vim.VirtualMachine: ("config.hardware.device",)})
    return list(rows[0].properties.get("config.hardware.device") or ()) if rows else []


def device_changes(
    devices: Iterable[Any], spec: MachineSpec, network: Any, iops: int | None = None
) -> list[Any]:
    """What must change on a fresh clone: a larger first disk, limited disks, one card, in the operator's network."""
    devices = list(devices)
    disks: list[Any] = [device for device in devices if isinstance(device, vim.vm.device.VirtualDisk)]
    wanted_kib = round(spec.disk_gib * _KIB_PER_GIB)
    changed = []
    for number, disk in enumerate(disks):
        larger = number == 0 and not _shares_base(disk) and disk.capacityInKB < wanted_kib
        if larger:
            disk.capacityInKB, disk.capacityInBytes = wanted_kib, wanted_kib * 1024
        limited = iops is not None and read_iops(disk) != iops
        if limited:
            disk.storageIOAllocation = vim.StorageResourceManager.IOAllocationInfo(limit=iops)
        if larger or limited:
            changed.append(_change(disk, "edit"))
    return changed + _card_changes(devices, network)


def _shares_base(disk: Any) -> bool:
    """Whether it is a linked clone's disk, which cannot grow."""
    return getattr(disk.backing, "parent", None) is not None


def read_iops(disk: Any) -> int | None:
    """A disk's limit in operations per second; None when it has none."""
    limit = getattr(disk.storageIOAllocation, "limit", None)
    return None if limit is None or limit < 0 else int(limit)


def _card_changes(devices: Sequence[Any], backing: Any) -> list[Any]:
    """One card in this network; what else the template has would stand in networks that nobody named."""
    cards = [device for device in devices if isinstance(device, vim.vm.device.VirtualEthernetCard)]
    if not cards:
        card = vim.vm.device.VirtualVmxnet3(key=-100, backing=backing)
        card.connectable = vim.vm.device.VirtualDevice.ConnectInfo(
            startConnected=True, allowGuestControl=True
        )
        return [_change(card, "add")]
    cards[0].backing = backing
    return [_change(cards[0], "edit"), *(_change(card, "remove") for card in cards[1:])]


def _change(device: Any, operation: str) -> Any:
    return vim.vm.device.VirtualDeviceSpec(operation=operation, device=device)


def find_network(api: Api, cluster: Cluster, name: str) -> Any:
    """The backing of a network of this cluster. Raises Rejected(NOT_FOUND)."""
    paths = {
        vim.Network: ("name",),
        vim.dvs.DistributedVirtualPortgroup: ("name", "key", "config.distributedVirtualSwitch"),
    }
    for row in read_related(api, "inventory", [cluster.ref], "network", paths):
        if row.properties.get("name") != name:
            continue
        if not isinstance(row.ref, vim.dvs.DistributedVirtualPortgroup):
            return vim.vm.device.VirtualEthernetCard.NetworkBackingInfo(deviceName=name, network=row.ref)
        return _port_backing(api, row.properties)
    raise Rejected(Cause.NOT_FOUND, f"cluster {cluster.name} has no network named {name!r}")


def named_networks(api: Api, cluster: Cluster, name: str | None) -> list[Any]:
    """The cluster's networks of this name: one, or none."""
    paths = {vim.Network: ("name",), vim.dvs.DistributedVirtualPortgroup: ("name",)}
    rows = read_related(api, "inventory", [cluster.ref] if name else [], "network", paths)
    return [row.ref for row in rows if row.properties.get("name") == name]


def _port_backing(api: Api, group: dict[str, Any]) -> Any:
    switch = group.get("config.distributedVirtualSwitch")
    rows = read_objects(
        api, "inventory", [switch] if switch else [], {vim.DistributedVirtualSwitch: ("uuid",)}
    )
    if not rows:
        raise Rejected(
            Cause.PERMISSION, "the distributed switch of the network cannot be read by this account"
        )
    port = vim.dvs.PortConnection(portgroupKey=group["key"], switchUuid=rows[0].properties["uuid"])
    return vim.vm.device.VirtualEthernetCard.DistributedVirtualPortBackingInfo(port=port)
