"""Making a machine: found by name, else cloned; then moved to its host, configured and marked. Every step repeats."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from pyVmomi import vim

from libs.providers.base import Cause, MachineSpec, Power, ProviderError, Rejected, Unavailable
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.faults import translate
from libs.providers.vsphere.fleet import Labels, Machine, find_machine
from libs.providers.vsphere.hardware import (
    Place,
    clone_spec,
    config_spec,
    device_changes,
    find_network,
    read_devices,
)
from libs.providers.vsphere.inventory import (
    Cluster,
    choose_datastore,
    find_child,
    find_cluster,
    find_folder,
    read_objects,
)
from libs.providers.vsphere.marks import name_of, read_label
from libs.providers.vsphere.overrides import keep_in_place, show_attribute
from libs.providers.vsphere.pools import Shares, ensure_pool
from libs.providers.vsphere.session import Session
from libs.providers.vsphere.settings import VSphereSettings
from libs.providers.vsphere.templates import Template, Templates

CLONE_CALL_S = 60.0
CLONE_WAIT_S = 15.0
USER_DATA_LIMIT = 16 * 1024
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Workshop:
    """What deploying needs from the open session."""

    session: Session
    settings: VSphereSettings
    labels: Labels
    templates: Templates
    shares: Callable[[Api, Cluster], Shares]
    clones: dict[str, Any]
    """Clone tasks that were still running when `create` returned, by machine name."""


def check_spec(spec: MachineSpec) -> None:
    """Raises Rejected(INVALID) for what no vSphere can take, or what would be unlimited."""
    if spec.name != name_of(spec.mark):
        raise Rejected(Cause.INVALID, f"a machine's name must be {name_of(spec.mark)!r}")
    if not math.isfinite(spec.limit_mhz) or spec.limit_mhz < 1:
        raise Rejected(Cause.INVALID, "a machine needs a CPU limit of at least 1 MHz")
    if spec.vcpus < 1 or spec.memory_mib < 4 or spec.memory_mib % 4:
        raise Rejected(Cause.INVALID, "a machine has at least one vCPU, and memory in steps of 4 MiB")
    if len(spec.user_data.encode()) > USER_DATA_LIMIT:
        raise Rejected(Cause.INVALID, f"user data is larger than {USER_DATA_LIMIT} bytes")


async def create_machine(shop: Workshop, spec: MachineSpec) -> None:
    """Make the machine, or go on where an earlier call stopped; returns early while the clone is still running."""
    check_spec(spec)
    doing = f"creating {spec.name}"
    found = await shop.session.call(lambda api: _find(api, shop, spec), doing)
    if found is None:
        if not await _clone(shop, spec, doing):
            return
        found = await shop.session.call(lambda api: _find(api, shop, spec), doing)
    shop.clones.pop(spec.name, None)
    if found is None:
        raise Unavailable(Cause.CONFLICT, f"{doing}: the clone has ended and is not in our folder yet")
    if not found.label.configured:
        await _configure(shop, spec, found, doing)


def _find(api: Api, shop: Workshop, spec: MachineSpec) -> Machine | None:
    """The machine if it is ours and complete enough to be seen. Raises Rejected(CONFLICT) for a look-alike."""
    machine = find_machine(api, shop.settings, shop.labels, spec.name)
    if machine is not None and machine.label.mark != spec.mark:
        raise Rejected(
            Cause.CONFLICT, f"{spec.name} belongs to installation {machine.label.mark.installation_id}"
        )
    return machine


async def _clone(shop: Workshop, spec: MachineSpec, doing: str) -> bool:
    """Clone, and wait a little. False while it still runs: accepted, the next call goes on."""
    try:
        task = shop.clones.get(spec.name)
        if task is None:
            task = await shop.session.call(lambda api: _start_clone(api, shop, spec), doing, CLONE_CALL_S)
            if task is None:
                return False
            shop.clones[spec.name] = task
            log.info("vsphere.clone_started", machine=spec.name, cluster=spec.cluster, template=spec.template)
        await shop.session.finish(task, doing, CLONE_WAIT_S)
    except ProviderError as refusal:
        if refusal.cause is Cause.TIMEOUT and spec.name in shop.clones:
            return False
        shop.clones.pop(spec.name, None)
        if refusal.cause is Cause.CONFLICT and "DuplicateName" in refusal.detail:
            return await _is_being_made(shop, spec, doing)
        raise
    return True


async def _is_being_made(shop: Workshop, spec: MachineSpec, doing: str) -> bool:
    """The name is taken: by our clone of an earlier call (False while it runs), else it is somebody's."""
    found = await shop.session.call(lambda api: _find(api, shop, spec), doing)
    if found is not None:
        return True
    await shop.session.call(lambda api: _refuse_look_alike(api, shop, spec), doing)
    return False


def _refuse_look_alike(api: Api, shop: Workshop, spec: MachineSpec) -> bool:
    """Whether a VM of this name lies in our folder. Raises Rejected(CONFLICT) for one without our mark."""
    cluster = find_cluster(api, shop.settings, spec.cluster)
    folder = find_folder(api, cluster.vm_folder, shop.settings.folder)
    vm = None if folder is None else find_child(api, folder, spec.name)
    if not isinstance(vm, vim.VirtualMachine):
        return False
    rows = read_objects(api, "machines", [vm], {vim.VirtualMachine: ("config.uuid", "config.extraConfig")})
    got = rows[0].properties if rows else {}
    label = read_label(spec.name, got.get("config.extraConfig") or ())
    # A VM that is just being cloned has no configuration yet.
    if "config.uuid" in got and (label is None or label.mark != spec.mark):
        raise Rejected(Cause.CONFLICT, f"a machine named {spec.name} without our mark is in our folder")
    return True


def _start_clone(api: Api, shop: Workshop, spec: MachineSpec) -> Any | None:
    """Start the clone; None when one of this name is being made already."""
    cluster = find_cluster(api, shop.settings, spec.cluster)
    template = shop.templates.find(api, spec.template)
    if template is None:
        raise Rejected(Cause.NOT_FOUND, f"no template {spec.template!r} in scope")
    host = _find_host(cluster, spec.host)
    find_network(api, cluster, _network_of(shop, spec))
    if _refuse_look_alike(api, shop, spec):
        return None
    place = _make_place(api, shop, spec, cluster, template, host)
    return template.ref.CloneVM_Task(place.folder, spec.name, clone_spec(spec, place))


def _network_of(shop: Workshop, spec: MachineSpec) -> str:
    """The port group of our machines. Raises Rejected(INVALID): the template's own may reach anything."""
    name = spec.network or shop.settings.network
    if name is None:
        raise Rejected(
            Cause.INVALID,
            "no network is named: set `network` of the resource to a port group for our machines",
        )
    return name


def _make_place(
    api: Api, shop: Workshop, spec: MachineSpec, cluster: Cluster, template: Template, host: Any | None
) -> Place:
    settings = shop.settings
    store = choose_datastore(cluster, settings)
    if settings.datastore is not None and store is None:
        raise Rejected(Cause.NOT_FOUND, f"cluster {cluster.name} has no datastore {settings.datastore!r}")
    if settings.linked_clone and template.snapshot is None:
        raise Rejected(Cause.NOT_FOUND, f"template {spec.template!r} has no snapshot for linked clones")
    pool = cluster.root_pool
    if cluster.pools_possible:
        pool = ensure_pool(api, cluster, settings, spec.limit_mhz, shop.shares(api, cluster)).ref
    return Place(
        folder=_ensure_folder(api, cluster.vm_folder, settings.folder),
        pool=pool,
        host=host,
        datastore=store.ref if store is not None else None,
        snapshot=template.snapshot if settings.linked_clone else None,
    )


def _find_host(cluster: Cluster, host_id: str | None) -> Any | None:
    if host_id is None:
        return None
    for host in cluster.hosts:
        if host.id == host_id:
            return host.ref
    raise Rejected(Cause.NOT_FOUND, f"cluster {cluster.name} has no host {host_id}")


def _ensure_folder(api: Api, vm_folder: Any, name: str) -> Any:
    folder = find_folder(api, vm_folder, name)
    if folder is not None:
        return folder
    try:
        return vm_folder.CreateFolder(name)
    except vim.fault.DuplicateName as taken:
        folder = find_folder(api, vm_folder, name)
        if folder is None:
            raise translate(taken, f"making the folder {name!r}") from None
        return folder


async def _configure(shop: Workshop, spec: MachineSpec, machine: Machine, doing: str) -> None:
    """Bring a fresh clone to its host and configure it; the mark of completion is written by the same change."""
    if machine.power is not Power.OFF:
        raise Rejected(Cause.CONFLICT, f"{spec.name} was powered on before it was configured")
    cluster = await shop.session.call(lambda api: find_cluster(api, shop.settings, spec.cluster), doing)
    if spec.host is not None and machine.host_id != spec.host:
        await shop.session.do(lambda api: _move(api, shop, spec, cluster, machine), doing, CLONE_WAIT_S)
    await keep_in_place(shop.session, cluster, machine.ref)
    await shop.session.do(lambda api: _reconfigure(api, shop, spec, cluster, machine), doing)
    await show_attribute(shop.session, machine.ref, spec.mark)
    log.info("vsphere.machine_configured", machine=spec.name, cluster=spec.cluster, host=spec.host)


def _move(api: Api, shop: Workshop, spec: MachineSpec, cluster: Cluster, machine: Machine) -> Any:
    pool = cluster.root_pool
    if cluster.pools_possible:
        pool = ensure_pool(api, cluster, shop.settings, spec.limit_mhz, shop.shares(api, cluster)).ref
    return machine.ref.RelocateVM_Task(vim.vm.RelocateSpec(host=_find_host(cluster, spec.host), pool=pool))


def _reconfigure(api: Api, shop: Workshop, spec: MachineSpec, cluster: Cluster, machine: Machine) -> Any:
    network = find_network(api, cluster, _network_of(shop, spec))
    changes = device_changes(read_devices(api, machine.ref), spec, network, shop.settings.linked_clone)
    return machine.ref.ReconfigVM_Task(config_spec(spec, changes))
