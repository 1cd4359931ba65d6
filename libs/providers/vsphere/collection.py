"""What every round reads of the inventory, over the raw wire: the same clusters and machines as pyVmomi's reads."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any

from pyVmomi.VmomiSupport import GetWsdlName, GetWsdlType, ManagedObject

from libs.providers.vsphere.api import Api
from libs.providers.vsphere.fleet import MACHINE_LEAVES, Labels, Machine, choose_machines, make_machines
from libs.providers.vsphere.inventory import (
    CLUSTER_LEAVES,
    COMPUTE_LEAVES,
    DATACENTER_LEAVES,
    DATASTORE_LEAVES,
    HOST_LEAVES,
    TASK_LEAVES,
    Cluster,
    Row,
    assemble,
    choose_datacenters,
    finish_clusters,
    ref_id,
)
from libs.providers.vsphere.marks import Label
from libs.providers.vsphere.pools import POOL_LEAVES, Pool, choose_pools
from libs.providers.vsphere.session import Session
from libs.providers.vsphere.settings import VSphereSettings
from libs.providers.vsphere.soap import Found, Garbled, Line, Paths, Ref, Step, View, write_start

_NAMESPACE = "urn:vim25"
_BATCH = 100
_PLACES: Paths = {
    "ComputeResource": COMPUTE_LEAVES,
    "ClusterComputeResource": CLUSTER_LEAVES,
    "Datastore": DATASTORE_LEAVES,
}
_HOSTS: Paths = {"HostSystem": HOST_LEAVES, "Task": TASK_LEAVES}
_TASKS = (Step("HostSystem", "recentTask"),)
_STATISTICS = "summary.quickStats."
_AMOUNTS = ("summary.hardware.", "summary.capacity", "summary.freeSpace")


async def collect_clusters(line: Line, settings: VSphereSettings) -> list[Cluster]:
    """Clusters in scope with their hosts and datastores. Raises Unavailable when none is visible, and Garbled."""
    root = View(line.access.root, ("Datacenter",))
    datacenters = choose_datacenters(
        make_rows(await line.read_view("places", root, {"Datacenter": DATACENTER_LEAVES})), settings
    )
    views = [View(to_ref(each.ref), tuple(_PLACES)) for each in datacenters]
    places = [make_rows(await line.read_view("places", view, _PLACES)) for view in views]
    grouped = [View(row_ref, ("HostSystem",)) for row_ref in _of_kind(places, "ClusterComputeResource")]
    alone = _of_kind(places, "ComputeResource")
    found = await line.pace.run([*_reading_views(line, grouped), *_reading_alone(line, alone)])
    line.keep_views([root, *views, *grouped])
    hosts = [row for rows in found for row in make_rows(rows)]
    tasks = [row for row in hosts if to_ref(row.ref).kind == "Task"]
    clusters = [
        cluster
        for datacenter, rows in zip(datacenters, places, strict=True)
        for cluster in assemble(datacenter, [*rows, *hosts], settings)
    ]
    return finish_clusters(clusters, tasks)


_Reading = Callable[[int], Awaitable[list[Found]]]


def _reading_views(line: Line, views: Iterable[View]) -> list[_Reading]:
    """Each cluster's hosts through a view of its own, which also keeps an answer small."""
    return [lambda lane, view=view: line.read_view(f"hosts-{lane}", view, _HOSTS, _TASKS) for view in views]  # type: ignore[misc]


def _reading_alone(line: Line, alone: Sequence[Ref]) -> list[_Reading]:
    """Stand-alone hosts in batches: a view for each single host would be a call for each."""
    step = Step("ComputeResource", "host", _TASKS)
    starts = [write_start(ref, [step]) for ref in alone]
    return [
        lambda lane, part=starts[begin : begin + _BATCH]: line.retrieve(f"hosts-{lane}", part, _HOSTS)  # type: ignore[misc]
        for begin in range(0, len(starts), _BATCH)
    ]


async def collect_machines(
    line: Line, session: Session, clusters: Iterable[Cluster], settings: VSphereSettings, labels: Labels
) -> list[Machine]:
    """Our machines in the folders of these clusters; only labels that are new are read by pyVmomi."""
    machines: list[Machine] = []
    for root in sorted({to_ref(cluster.vm_folder) for cluster in clusters}):
        folder = root if line.access.on_host else await line.find_child(root, settings.folder)
        if folder is None or folder.kind != "Folder":
            continue
        start = write_start(folder, [Step("Folder", "childEntity")])
        found = await line.retrieve("machines", [start], {"VirtualMachine": MACHINE_LEAVES})
        rows = choose_machines(make_rows(found))
        known = labels.recall(rows)
        if known is None:
            known = await session.call(partial(_read_labels, labels, rows), "reading labels")
        machines.extend(make_machines(rows, known))
    return machines


def _read_labels(labels: Labels, rows: Sequence[Row], api: Api) -> dict[str, Label]:
    return labels.read(api, rows)


async def collect_pools(
    line: Line, clusters: Iterable[Cluster], settings: VSphereSettings
) -> dict[str, Pool]:
    """Our pools by cluster id, as far as they exist."""
    able = [cluster for cluster in clusters if cluster.pools_possible]
    step = Step("ResourcePool", "resourcePool")
    starts = [write_start(to_ref(cluster.root_pool), [step]) for cluster in able]
    found = await line.retrieve("pools", starts, {"ResourcePool": POOL_LEAVES})
    return choose_pools(make_rows(found), able, settings)


def make_rows(found: Iterable[Found]) -> list[Row]:
    """As pyVmomi's reads give them. Raises Garbled where something other than a statistic makes no sense."""
    return [_row(each) for each in found]


def _row(found: Found) -> Row:
    senseless = [path for path in found.broken if not path.startswith(_STATISTICS)]
    senseless += [
        path
        for path, value in found.values.items()
        if path.startswith(_AMOUNTS) and isinstance(value, int) and value < 0
    ]
    if senseless:
        raise Garbled(f"{found.ref.kind} {found.ref.id}: {senseless[0]} makes no sense")
    return Row(_object(found.ref), {path: _value(value) for path, value in found.values.items()})


def _value(value: Any) -> Any:
    if type(value) is Ref:
        return _object(value)
    return [_object(each) for each in value] if type(value) is tuple else value


def _object(ref: Ref) -> Any:
    kind = _kind(ref.kind)
    if kind is None:
        raise Garbled(f"{ref.kind[:100]} is no managed object")
    return kind(ref.id)


@lru_cache(maxsize=256)
def _kind(name: str) -> Any | None:
    try:
        kind = GetWsdlType(_NAMESPACE, name)
    except Exception:  # the name came from the other side, and pyVmomi says no in many ways
        return None
    return kind if issubclass(kind, ManagedObject) else None


def to_ref(ref: Any) -> Ref:
    """A managed object of pyVmomi's as the raw wire names it."""
    return Ref(GetWsdlName(type(ref)), ref_id(ref))


def _of_kind(places: Iterable[Iterable[Row]], kind: str) -> list[Ref]:
    refs = (to_ref(row.ref) for rows in places for row in rows)
    return [ref for ref in refs if ref.kind == kind]
