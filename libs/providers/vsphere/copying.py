"""Machines of a single ESXi host, which cannot clone: a marked machine without disks first, then copies of the disks.

The mark comes before the first byte, so whatever a crash leaves belongs to a machine that is listed and can be deleted.
A copy has another name until it is whole: only what bears its final name is ever attached.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from pyVmomi import vim

from libs.providers.base import Cause, Full, MachineSpec, ProviderError, Rejected
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.fleet import Machine
from libs.providers.vsphere.hardware import (
    attach_spec,
    controllers_of,
    files_of,
    find_network,
    read_devices,
    shell_spec,
    slots_of,
)
from libs.providers.vsphere.inventory import find_cluster, read_datacenters, read_objects, read_view
from libs.providers.vsphere.placing import (
    Workshop,
    find_host,
    find_template,
    make_place,
    network_of,
    refuse_look_alike,
)
from libs.providers.vsphere.session import Session
from libs.providers.vsphere.settings import VSphereSettings
from libs.providers.vsphere.templates import Template

CALL_S = 60.0
WAIT_S = 6.0
"""How long one call waits for what the host does meanwhile: callers have 20 s for everything, all disks together."""
_OURS = re.compile(r"disk-\d+(-copying)?\.vmdk")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DiskCopy:
    """A disk of the template, and where its copy goes."""

    source: str
    target: str
    half: str
    """The name of the copy until it is whole."""
    kib: int
    controller: tuple[str, int]
    """Type and bus number of the controller it hangs on."""
    unit: int


async def make_shell(shop: Workshop, spec: MachineSpec, doing: str) -> bool:
    """A machine with its mark, its limit and no disk. False while it is still being made."""
    try:
        task = await shop.session.call(lambda api: _start_shell(api, shop, spec), doing, CALL_S)
        if task is not None:
            await shop.session.finish(task, doing, WAIT_S)
    except ProviderError as refusal:
        if refusal.cause is Cause.TIMEOUT:
            return False
        raise
    log.info("vsphere.shell_made", machine=spec.name, template=spec.template)
    return task is not None


def _start_shell(api: Api, shop: Workshop, spec: MachineSpec) -> Any | None:
    cluster = find_cluster(api, shop.settings, spec.cluster)
    template = find_template(api, shop, spec)
    like = _read_template(api, template)
    find_network(api, cluster, network_of(shop, spec))
    if refuse_look_alike(api, shop, spec, cluster):
        return None
    place = make_place(api, shop, spec, cluster, template, find_host(cluster, spec.host))
    chosen = place.datastore
    store = next((each for each in cluster.datastores if each.ref == chosen), None)
    if store is None:
        raise Full(Cause.CAPACITY, f"host {cluster.name} has no usable datastore")
    home = f"[{store.name}] {spec.name}"
    try:
        api.content.fileManager.MakeDirectory(home, None, False)
    except vim.fault.FileAlreadyExists:
        log.info("vsphere.directory_found", machine=spec.name, datastore=store.name)
    config = shell_spec(spec, f"{home}/{spec.name}.vmx", like)
    return place.folder.CreateVM_Task(config, place.pool)


def _read_template(api: Api, template: Template) -> dict[str, Any]:
    paths = (
        "config.guestId",
        "config.version",
        "config.firmware",
        "config.bootOptions",
        "config.hardware.device",
        "runtime.powerState",
    )
    rows = read_objects(api, "templates", [template.ref], {vim.VirtualMachine: paths})
    got = rows[0].properties if rows else {}
    if str(got.get("runtime.powerState")) != "poweredOff":
        raise Rejected(
            Cause.CONFLICT,
            f"template {template.seen.name!r} is not powered off: a single host copies its disks, "
            "which are locked while it runs",
        )
    return got


async def copy_disks(shop: Workshop, spec: MachineSpec, machine: Machine, doing: str) -> bool:
    """Copy the template's disks and attach them, going on where an earlier call stopped. False while a copy runs."""
    home, copies = await shop.session.call(lambda api: _plan(api, shop, spec, machine), doing, CALL_S)
    if not copies:
        return True
    store = await shop.session.call(lambda api: _browser(api, shop.settings, home), doing)
    files = set(await list_files(shop.session, store, home, doing) or ())
    until = time.monotonic() + WAIT_S
    for disk in copies:
        if _file(disk.target) in files:
            continue
        if time.monotonic() > until or not await _copy(shop, spec, disk, files, doing):
            return False
    await shop.session.do(lambda api: _attach(api, machine, copies), doing)
    log.info("vsphere.disks_attached", machine=spec.name, count=len(copies))
    return True


def _plan(api: Api, shop: Workshop, spec: MachineSpec, machine: Machine) -> tuple[str, list[DiskCopy]]:
    """The machine's directory, and the copies of the template's disks that are not attached to it yet."""
    home, attached = _attached(api, machine)
    template = _read_template(api, find_template(api, shop, spec))
    copies = [
        DiskCopy(
            source=slot.file,
            target=f"{home}/disk-{number}.vmdk",
            half=f"{home}/disk-{number}-copying.vmdk",
            kib=slot.kib,
            controller=slot.controller,
            unit=slot.unit,
        )
        for number, slot in enumerate(slots_of(template.get("config.hardware.device") or ()))
    ]
    return home, [each for each in copies if each.target not in attached]


async def _copy(shop: Workshop, spec: MachineSpec, disk: DiskCopy, files: set[str], doing: str) -> bool:
    session = shop.session
    try:
        if spec.name not in shop.copies:
            if _file(disk.half) in files:
                # Nobody knows whether it is whole. One that is still being written is locked: a later call deletes it.
                await session.do(lambda api: _disks(api).DeleteVirtualDisk_Task(disk.half), doing)
            shop.copies[spec.name] = await session.call(lambda api: _start_copy(api, disk), doing, CALL_S)
            log.info("vsphere.copy_started", machine=spec.name, disk=_file(disk.target))
        await session.finish(shop.copies[spec.name], doing, WAIT_S)
    except ProviderError as refusal:
        if refusal.cause is Cause.TIMEOUT and spec.name in shop.copies:
            return False
        # A host that does not answer may still be copying: the next call asks after the same task.
        if refusal.cause is not Cause.UNREACHABLE:
            shop.copies.pop(spec.name, None)
        raise
    del shop.copies[spec.name]
    await session.do(
        lambda api: _disks(api).MoveVirtualDisk_Task(disk.half, None, disk.target, None, False), doing
    )
    return True


def _start_copy(api: Api, disk: DiskCopy) -> Any:
    thin = vim.VirtualDiskManager.VirtualDiskSpec(diskType="thin", adapterType="lsiLogic")
    return _disks(api).CopyVirtualDisk_Task(disk.source, None, disk.half, None, thin, False)


def _attach(api: Api, machine: Machine, copies: Sequence[DiskCopy]) -> Any:
    present = controllers_of(read_devices(api, machine.ref))
    wanted = [(disk.target, disk.kib, present.get(disk.controller), disk.unit) for disk in copies]
    if any(controller is None for _, _, controller, _ in wanted):
        raise Rejected(
            Cause.INVALID, f"{machine.name} has no controller for a disk of its template: change the template"
        )
    return machine.ref.ReconfigVM_Task(attach_spec(wanted))


async def delete_copies(session: Session, settings: VSphereSettings, machine: Machine, doing: str) -> None:
    """Delete the disks that were copied for a machine and never attached: destroying it would leave them behind."""
    home, attached = await session.call(lambda api: _attached(api, machine), doing)
    store = await session.call(lambda api: _browser(api, settings, home), doing)
    for name in sorted(await list_files(session, store, home, doing) or ()):
        path = f"{home}/{name}"
        if _OURS.fullmatch(name) and path not in attached:
            await session.do(lambda api, path=path: _disks(api).DeleteVirtualDisk_Task(path), doing)  # type: ignore[misc]
            log.info("vsphere.copy_deleted", machine=machine.name, disk=name)


def _attached(api: Api, machine: Machine) -> tuple[str, set[str]]:
    """The directory of a machine, and the files of its disks."""
    return _home_of(api, machine.ref), files_of(read_devices(api, machine.ref))


async def remove_home(session: Session, settings: VSphereSettings, name: str, doing: str) -> None:
    """Remove the directory of a machine that is gone, where it is left and empty: nothing else in it is ours."""
    browsers = await session.call(lambda api: _browsers(api, settings), doing)
    for store in sorted(browsers):
        home = f"[{store}] {name}"
        if await list_files(session, browsers[store], home, doing) == []:
            await session.do(
                lambda api, home=home: api.content.fileManager.DeleteDatastoreFile_Task(home),  # type: ignore[misc]
                doing,
            )
            log.info("vsphere.directory_removed", machine=name, directory=home)


async def list_files(session: Session, browser: Any, home: str, doing: str) -> list[str] | None:
    """Names of the files in a directory of a datastore; None when it is not there."""
    everything = vim.host.DatastoreBrowser.SearchSpec(matchPattern=["*"])
    try:
        found = await session.do(lambda api: browser.SearchDatastore_Task(home, everything), doing)
    except Rejected as refusal:
        if refusal.cause is Cause.NOT_FOUND:
            return None
        raise
    return [str(each.path) for each in found.file or ()]


def _browser(api: Api, settings: VSphereSettings, home: str) -> Any:
    name = home[1:].partition("]")[0]
    browser = _browsers(api, settings).get(name)
    if browser is None:
        raise Rejected(Cause.PERMISSION, f"the files of datastore {name!r} cannot be listed by this account")
    return browser


def _browsers(api: Api, settings: VSphereSettings) -> dict[str, Any]:
    """What lists the files of each datastore in scope, by the datastore's name."""
    paths = {vim.Datastore: ("name", "browser")}
    places = [datacenter.ref for datacenter in read_datacenters(api, settings)]
    rows = [row.properties for place in places for row in read_view(api, "inventory", place, paths)]
    return {str(got["name"]): got["browser"] for got in rows if got.keys() >= {"name", "browser"}}


def _home_of(api: Api, vm: Any) -> str:
    rows = read_objects(api, "machines", [vm], {vim.VirtualMachine: ("config.files.vmPathName",)})
    path = str(rows[0].properties.get("config.files.vmPathName", "")) if rows else ""
    home = path.rpartition("/")[0]
    if not re.fullmatch(r"\[[^\]]+\] .+", home):
        raise Rejected(Cause.NOT_FOUND, "the directory of a machine cannot be read")
    return home


def _file(path: str) -> str:
    return path.rpartition("/")[2]


def _disks(api: Api) -> Any:
    return api.content.virtualDiskManager
