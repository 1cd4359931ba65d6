"""Bulk reads of the inventory: container views, leaf paths only, every page of the answer."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pyVmomi import vim, vmodl

from libs.common.contracts.usage import Drs, HostState
from libs.providers.base import Cause, Rejected, Unavailable
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.settings import VSphereSettings
from libs.providers.vsphere.soap import Leaves, Ref

_Collector = vmodl.query.PropertyCollector
PAGE = 1000
MIB = 1024 * 1024
GIB = 1024 * MIB

Paths = Mapping[Any, Iterable[str]]
"""Leaf property paths by managed object type."""

DATACENTER_LEAVES: Leaves = {"name": str, "vmFolder": Ref, "hostFolder": Ref}
COMPUTE_LEAVES: Leaves = {"name": str, "resourcePool": Ref, "datastore": tuple}
# Every path again: a server may take only the most specific type that fits.
_DRS, _DRS_EXTENT = "configurationEx.drsConfig.enabled", "configurationEx.drsConfig.defaultVmBehavior"
CLUSTER_LEAVES: Leaves = {**COMPUTE_LEAVES, _DRS: bool, _DRS_EXTENT: str}
HOST_LEAVES: Leaves = {
    "name": str,
    "parent": Ref,
    "runtime.connectionState": str,
    "runtime.powerState": str,
    "runtime.inMaintenanceMode": bool,
    "summary.hardware.cpuMhz": int,
    "summary.hardware.numCpuCores": int,
    "summary.hardware.memorySize": int,
    "summary.quickStats.overallCpuUsage": int,
    "summary.quickStats.overallMemoryUsage": int,
}
DATASTORE_LEAVES: Leaves = {
    "name": str,
    "summary.accessible": bool,
    "summary.capacity": int,
    "summary.freeSpace": int,
    "summary.maintenanceMode": str,
    "summary.multipleHostAccess": bool,
}
TASK_LEAVES: Leaves = {"info.state": str, "info.descriptionId": str, "info.entity": Ref}
_ENTERING_MAINTENANCE = "HostSystem.enterMaintenanceMode"


@dataclass(frozen=True, slots=True)
class Row:
    """One managed object and the properties that could be read."""

    ref: Any
    properties: dict[str, Any]

    @property
    def id(self) -> str:
        return ref_id(self.ref)


@dataclass(frozen=True, slots=True)
class Host:
    """A host as the inventory shows it."""

    ref: Any
    name: str
    state: HostState
    cores: int
    core_mhz: float
    memory_mib: float
    quick_cpu_mhz: float | None
    quick_memory_mib: float | None

    @property
    def id(self) -> str:
        return ref_id(self.ref)

    @property
    def cpu_mhz(self) -> float:
        """Cores times clock: a cluster's own total leaves out hosts that are away, or counts cores wrongly."""
        return self.cores * self.core_mhz


@dataclass(frozen=True, slots=True)
class Datastore:
    """A datastore and its room."""

    ref: Any
    name: str
    shared: bool
    usable: bool
    capacity_gib: float
    free_gib: float


@dataclass(slots=True)
class Cluster:
    """A cluster, or a stand-alone host as a cluster of one."""

    ref: Any
    name: str
    datacenter: Any
    vm_folder: Any
    root_pool: Any
    pools_possible: bool
    hosts: list[Host] = field(default_factory=list)
    datastores: list[Datastore] = field(default_factory=list)
    drs: Drs | None = None

    @property
    def id(self) -> str:
        return ref_id(self.ref)


def ref_id(ref: Any) -> str:
    """The managed object id: stable, and never given twice."""
    return str(ref._GetMoId())


def read_objects(api: Api, consumer: str, refs: Sequence[Any], paths: Paths) -> list[Row]:
    """Properties of known objects; one that is gone is left out."""
    if not refs:
        return []
    return _retrieve(api, consumer, [_Collector.ObjectSpec(obj=ref) for ref in refs], paths)


def read_view(api: Api, consumer: str, container: Any, paths: Paths, recursive: bool = True) -> list[Row]:
    """Properties of everything of these types under a container."""
    view = api.content.viewManager.CreateContainerView(container, list(paths), recursive)
    try:
        through = _Collector.TraversalSpec(type=vim.view.ContainerView, path="view", skip=False)
        return _retrieve(
            api, consumer, [_Collector.ObjectSpec(obj=view, skip=True, selectSet=[through])], paths
        )
    finally:
        view.DestroyView()


def read_related(api: Api, consumer: str, refs: Sequence[Any], relation: str, paths: Paths) -> list[Row]:
    """Properties of what these objects point at through one property (a pool's machines, a host's tasks)."""
    if not refs:
        return []
    specs = [
        _Collector.ObjectSpec(
            obj=ref,
            skip=True,
            selectSet=[_Collector.TraversalSpec(type=type(ref), path=relation, skip=False)],
        )
        for ref in refs
    ]
    return _retrieve(api, consumer, specs, paths)


def _retrieve(api: Api, consumer: str, objects: list[Any], paths: Paths) -> list[Row]:
    wanted = [_Collector.PropertySpec(type=kind, pathSet=list(names)) for kind, names in paths.items()]
    spec = _Collector.FilterSpec(objectSet=objects, propSet=wanted, reportMissingObjectsInResults=True)
    collector = api.collector(consumer)
    rows: list[Row] = []
    page = collector.RetrievePropertiesEx([spec], _Collector.RetrieveOptions(maxObjects=PAGE))
    while page is not None:
        rows.extend(_read_page(page))
        if not page.token:
            break
        page = collector.ContinueRetrievePropertiesEx(page.token)
    return rows


def _read_page(page: Any) -> Iterator[Row]:
    for item in page.objects:
        missing = item.missingSet or ()
        for lack in missing:
            # A session that ended is told property by property here, not as a fault of the call.
            if isinstance(lack.fault, vim.fault.NotAuthenticated):
                raise lack.fault
        if any(isinstance(lack.fault, vmodl.fault.ManagedObjectNotFound) for lack in missing):
            continue
        yield Row(item.obj, {entry.name: entry.val for entry in item.propSet or ()})


def read_datacenters(api: Api, settings: VSphereSettings) -> list[Row]:
    """Datacenters in scope. Raises Unavailable when none is visible."""
    rows = read_view(api, "inventory", api.content.rootFolder, {vim.Datacenter: DATACENTER_LEAVES})
    return choose_datacenters(rows, settings)


def choose_datacenters(rows: Iterable[Row], settings: VSphereSettings) -> list[Row]:
    """Those in scope. Raises Unavailable when none is visible: an inventory is never silently empty."""
    wanted = set(settings.datacenters)
    found = [
        row
        for row in rows
        if "vmFolder" in row.properties and (not wanted or row.properties.get("name") in wanted)
    ]
    if not found:
        raise Unavailable(Cause.NOT_FOUND, "no datacenter in scope is visible to this account")
    return found


def read_clusters(api: Api, settings: VSphereSettings) -> list[Cluster]:
    """Clusters in scope with their hosts and datastores, in the order of their ids."""
    found: list[Cluster] = []
    for datacenter in read_datacenters(api, settings):
        paths: Paths = {
            vim.ComputeResource: COMPUTE_LEAVES,
            vim.ClusterComputeResource: CLUSTER_LEAVES,
            vim.HostSystem: HOST_LEAVES,
            vim.Datastore: DATASTORE_LEAVES,
        }
        rows = read_view(api, "inventory", datacenter.ref, paths)
        clusters = list(assemble(datacenter, rows, settings))
        api.places.update({cluster.id: (cluster.ref, datacenter) for cluster in clusters})
        found.extend(clusters)
    hosts = [host.ref for cluster in found for host in cluster.hosts]
    tasks = read_related(api, "inventory", hosts, "recentTask", {vim.Task: TASK_LEAVES})
    return finish_clusters(found, tasks)


def finish_clusters(clusters: Sequence[Cluster], tasks: Iterable[Row]) -> list[Cluster]:
    """In the order of their ids; a host that a task brings into maintenance counts as in it."""
    if not clusters:
        raise Unavailable(Cause.NOT_FOUND, "no cluster in scope is visible to this account")
    _note_entering_maintenance(tasks, clusters)
    return sorted(clusters, key=lambda cluster: cluster.id)


def find_cluster(api: Api, settings: VSphereSettings, cluster_id: str) -> Cluster:
    """A cluster in scope by its reference, read alone once it is known where it lies. Raises Rejected(NOT_FOUND)."""
    known = api.places.get(cluster_id)
    found = [] if known is None else _read_cluster(api, *known, settings)
    for cluster in found or read_clusters(api, settings):
        if cluster.id == cluster_id:
            return cluster
    raise Rejected(Cause.NOT_FOUND, f"no cluster {cluster_id} in scope")


def _read_cluster(api: Api, ref: Any, datacenter: Row, settings: VSphereSettings) -> list[Cluster]:
    """This one with its hosts and datastores, in one question; none where it is gone or in scope no longer."""
    kind = type(ref)
    tasks = _Collector.TraversalSpec(type=vim.HostSystem, path="recentTask", skip=False)
    ways = [
        _Collector.TraversalSpec(type=kind, path="host", skip=False, selectSet=[tasks]),
        _Collector.TraversalSpec(type=kind, path="datastore", skip=False),
    ]
    paths: Paths = {
        kind: CLUSTER_LEAVES if kind is vim.ClusterComputeResource else COMPUTE_LEAVES,
        vim.HostSystem: HOST_LEAVES,
        vim.Datastore: DATASTORE_LEAVES,
        vim.Task: TASK_LEAVES,
    }
    try:
        rows = _retrieve(api, "inventory", [_Collector.ObjectSpec(obj=ref, selectSet=ways)], paths)
    except vmodl.fault.ManagedObjectNotFound:
        return []
    found = list(assemble(datacenter, rows, settings))
    _note_entering_maintenance((row for row in rows if isinstance(row.ref, vim.Task)), found)
    return found


def assemble(datacenter: Row, rows: Sequence[Row], settings: VSphereSettings) -> Iterator[Cluster]:
    """The clusters in scope of a datacenter out of the rows of clusters, hosts and datastores."""
    wanted = set(settings.clusters)
    datastores = {row.id: _make_datastore(row) for row in rows if isinstance(row.ref, vim.Datastore)}
    hosts = [row for row in rows if isinstance(row.ref, vim.HostSystem)]
    if any("parent" not in host.properties for host in hosts):
        raise Unavailable(Cause.PERMISSION, "a host in scope cannot be read by this account")
    for row in rows:
        name = row.properties.get("name")
        if not isinstance(row.ref, vim.ComputeResource) or "resourcePool" not in row.properties:
            continue
        if wanted and name not in wanted:
            continue
        drs = row.properties.get(_DRS)
        yield Cluster(
            ref=row.ref,
            name=str(name),
            datacenter=datacenter.ref,
            vm_folder=datacenter.properties["vmFolder"],
            root_pool=row.properties["resourcePool"],
            pools_possible=bool(drs) or not isinstance(row.ref, vim.ClusterComputeResource),
            drs=_read_drs(row),
            hosts=sorted(
                (_make_host(host) for host in hosts if _is_child(host, row)), key=lambda host: host.id
            ),
            datastores=[
                datastores[ref_id(ref)]
                for ref in row.properties.get("datastore") or ()
                if ref_id(ref) in datastores
            ],
        )


_DRS_EXTENTS = {"manual": Drs.MANUAL, "partiallyAutomated": Drs.PARTIAL, "fullyAutomated": Drs.FULL}


def _read_drs(row: Row) -> Drs | None:
    is_on = row.properties.get(_DRS)
    if is_on is None:
        return None
    return _DRS_EXTENTS.get(str(row.properties.get(_DRS_EXTENT)), Drs.ON) if is_on else Drs.OFF


def _is_child(host: Row, cluster: Row) -> bool:
    parent = host.properties["parent"]
    return parent is not None and ref_id(parent) == cluster.id


def _make_host(row: Row) -> Host:
    got = row.properties
    return Host(
        ref=row.ref,
        name=str(got.get("name", row.id)),
        state=_state_of(got),
        cores=int(got.get("summary.hardware.numCpuCores", 0)),
        core_mhz=float(got.get("summary.hardware.cpuMhz", 0)),
        memory_mib=float(got.get("summary.hardware.memorySize", 0)) / MIB,
        quick_cpu_mhz=_number(got.get("summary.quickStats.overallCpuUsage")),
        quick_memory_mib=_number(got.get("summary.quickStats.overallMemoryUsage")),
    )


def _number(value: Any) -> float | None:
    return None if value is None or value < 0 else float(value)


def _state_of(got: Mapping[str, Any]) -> HostState:
    if str(got.get("runtime.powerState")) in ("standBy", "poweredOff"):
        return HostState.STANDBY
    known = "summary.hardware.numCpuCores" in got
    if str(got.get("runtime.connectionState")) != "connected" or not known:
        return HostState.FAILED
    return HostState.MAINTENANCE if got.get("runtime.inMaintenanceMode") else HostState.CONNECTED


def _note_entering_maintenance(tasks: Iterable[Row], clusters: Sequence[Cluster]) -> None:
    """A host that is entering maintenance counts as in it: vSphere only tells by the running task."""
    for task in tasks:
        got = task.properties
        if got.get("info.descriptionId") != _ENTERING_MAINTENANCE:
            continue
        if str(got.get("info.state")) in ("running", "queued") and got.get("info.entity") is not None:
            _mark_maintenance(clusters, ref_id(got["info.entity"]))


def _mark_maintenance(clusters: Sequence[Cluster], host_id: str) -> None:
    for cluster in clusters:
        cluster.hosts = [
            replace(host, state=HostState.MAINTENANCE) if host.id == host_id else host
            for host in cluster.hosts
        ]


def _make_datastore(row: Row) -> Datastore:
    got = row.properties
    return Datastore(
        ref=row.ref,
        name=str(got.get("name", row.id)),
        shared=got.get("summary.multipleHostAccess") is not False,
        usable=bool(got.get("summary.accessible", True))
        and str(got.get("summary.maintenanceMode", "normal")) == "normal",
        capacity_gib=float(got.get("summary.capacity", 0)) / GIB,
        free_gib=float(got.get("summary.freeSpace", 0)) / GIB,
    )


def choose_datastore(cluster: Cluster, settings: VSphereSettings) -> Datastore | None:
    """Where our machines' disks go: the named datastore, else the roomiest that all hosts of the cluster share."""
    if settings.datastore is not None:
        return next((store for store in cluster.datastores if store.name == settings.datastore), None)
    usable = [
        store for store in cluster.datastores if store.usable and (store.shared or len(cluster.hosts) == 1)
    ]
    return max(usable, key=lambda store: (store.free_gib, store.name), default=None)


def find_child(api: Api, folder: Any, name: str) -> Any | None:
    """A child of a folder by its exact name, whatever it is."""
    return api.content.searchIndex.FindChild(folder, name)


def find_machines_named(api: Api, folder: Any, name: str) -> list[Any]:
    """The VMs of this name in a folder: one at most in a vCenter, while a single host takes a name twice."""
    if api.on_host:
        rows = read_view(api, "machines", folder, {vim.VirtualMachine: ("name",)})
        return [row.ref for row in rows if row.properties.get("name") == name]
    child = find_child(api, folder, name)
    return [child] if isinstance(child, vim.VirtualMachine) else []


def find_folder(api: Api, vm_folder: Any, name: str) -> Any | None:
    """Our folder of a datacenter, if it exists; a single host has one folder for all and can have no other."""
    if api.on_host:
        return vm_folder
    child = find_child(api, vm_folder, name)
    return child if isinstance(child, vim.Folder) else None
