"""Where a machine is made: what is there already, its pool, folder, network and datastore."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from pyVmomi import vim

from libs.providers.base import Cause, MachineSpec, Rejected
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.clones import Clones
from libs.providers.vsphere.faults import translate
from libs.providers.vsphere.fleet import Labels, Machine, bears_id, find_machine
from libs.providers.vsphere.hardware import Place
from libs.providers.vsphere.inventory import (
    Cluster,
    choose_datastore,
    find_folder,
    find_machines_named,
    read_objects,
)
from libs.providers.vsphere.marks import read_label
from libs.providers.vsphere.pools import Shares, ensure_pool
from libs.providers.vsphere.session import Session
from libs.providers.vsphere.settings import Clone, VSphereSettings
from libs.providers.vsphere.templates import Template, Templates

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Workshop:
    """What deploying needs from the open session."""

    session: Session
    settings: VSphereSettings
    labels: Labels
    templates: Templates
    shares: Callable[[Api, Cluster], Shares]
    clones: Clones
    """Those that were still running when `create` returned."""
    copies: dict[str, Any]
    """Tasks that copy a disk on a single host and were still running then, by machine name."""


def find_ours(api: Api, shop: Workshop, spec: MachineSpec) -> Machine | None:
    """The machine if it is ours and complete enough to be seen. Raises Rejected(CONFLICT) for a look-alike."""
    machine = find_machine(api, shop.settings, shop.labels, spec.name)
    if machine is not None and machine.label.mark != spec.mark:
        raise Rejected(
            Cause.CONFLICT, f"{spec.name} belongs to installation {machine.label.mark.installation_id}"
        )
    return machine


def find_template(api: Api, shop: Workshop, spec: MachineSpec) -> Template:
    """What the machine is made of. Raises Rejected(NOT_FOUND)."""
    template = shop.templates.find(api, spec.template)
    if template is None:
        raise Rejected(Cause.NOT_FOUND, f"no template {spec.template!r} in scope")
    return template


def find_pool(api: Api, shop: Workshop, spec: MachineSpec, cluster: Cluster) -> Any:
    """Our pool of the cluster, made on demand; the cluster's own where there can be none."""
    if not cluster.pools_possible:
        return cluster.root_pool
    return ensure_pool(api, cluster, shop.settings, spec.limit_mhz, shop.shares(api, cluster)).ref


def refuse_look_alike(api: Api, shop: Workshop, spec: MachineSpec, cluster: Cluster) -> bool:
    """Whether a VM of this name lies in our folder. Raises Rejected(CONFLICT) for one without our mark."""
    folder = find_folder(api, cluster.vm_folder, shop.settings.folder)
    vms = [] if folder is None else find_machines_named(api, folder, spec.name)
    paths = ("config.uuid", "config.instanceUuid", "config.extraConfig")
    for row in read_objects(api, "machines", vms, {vim.VirtualMachine: paths}):
        got = row.properties
        label = read_label(spec.name, got.get("config.extraConfig") or ())
        ours = label is not None and label.mark == spec.mark and (not api.on_host or bears_id(row, label))
        # A VM that is just being cloned has no configuration yet.
        if "config.uuid" in got and not ours:
            raise Rejected(Cause.CONFLICT, f"a machine named {spec.name} without our mark is in our folder")
    return bool(vms)


def network_of(shop: Workshop, spec: MachineSpec) -> str:
    """The port group of our machines. Raises Rejected(INVALID): the template's own may reach anything."""
    name = spec.network or shop.settings.network
    if name is None:
        raise Rejected(
            Cause.INVALID,
            "no network is named: set `network` of the resource to a port group for our machines",
        )
    return name


def make_place(
    api: Api, shop: Workshop, spec: MachineSpec, cluster: Cluster, template: Template, host: Any | None
) -> Place:
    settings = shop.settings
    store = choose_datastore(cluster, settings)
    if settings.datastore is not None and store is None:
        raise Rejected(Cause.NOT_FOUND, f"cluster {cluster.name} has no datastore {settings.datastore!r}")
    obstacle = "a single ESXi host cannot clone" if api.on_host else None
    linked = decide_linked(settings, cluster, template, spec, obstacle)
    return Place(
        folder=_ensure_folder(api, cluster.vm_folder, settings.folder),
        pool=find_pool(api, shop, spec, cluster),
        host=host,
        datastore=store.ref if store is not None else None,
        snapshot=template.snapshot if linked else None,
    )


def decide_linked(
    settings: VSphereSettings,
    cluster: Cluster,
    template: Template,
    spec: MachineSpec,
    obstacle: str | None = None,
) -> bool:
    """Whether the machine is a linked clone. Raises Rejected(INVALID) where it must be one and cannot."""
    if settings.clone_mode is Clone.FULL or spec.is_whole:
        return False
    obstacle = obstacle or _obstacle(settings, cluster, template, spec)
    if obstacle is None:
        return True
    if settings.clone_mode is Clone.LINKED:
        raise Rejected(
            Cause.INVALID, f"no linked clone of {spec.template!r}: {obstacle}; `clone: auto` makes full ones"
        )
    log.info("vsphere.full_clone_instead", machine=spec.name, template=spec.template, reason=obstacle)
    return False


def _obstacle(
    settings: VSphereSettings, cluster: Cluster, template: Template, spec: MachineSpec
) -> str | None:
    """Why a clone cannot share the template's disks; None where it can."""
    if template.snapshot is None:
        return "the template has no snapshot"
    if len(template.stores) != 1:
        return "the template's disks lie on several datastores"
    (store,) = template.stores
    chosen = choose_datastore(cluster, settings)
    if chosen is None or chosen.name != store:
        # The disk budget is about the datastore that was chosen, and it counts a linked clone full.
        return f"the template lies on datastore {store!r}, machines on {chosen.name if chosen else None!r}"
    if round(spec.disk_gib, 3) > round(template.first_disk_gib, 3):
        return "a disk that shares its template's cannot grow"
    return None


def find_host(cluster: Cluster, host_id: str | None) -> Any | None:
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
