"""Our machines as the inventory shows them: only what lies in our folder and bears a mark that agrees with its name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pyVmomi import vim

from libs.providers.base import Cause, MachineSeen, Power, Unavailable
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.inventory import (
    Cluster,
    Row,
    find_folder,
    find_machines_named,
    read_datacenters,
    read_objects,
    read_related,
    ref_id,
)
from libs.providers.vsphere.marks import PREFIX, Label, read_label
from libs.providers.vsphere.settings import VSphereSettings
from libs.providers.vsphere.soap import Leaves, Ref

LEAST_SHARES = 1
"""Of a machine where there is no pool: far below 1 % of the smallest that an owner's can have (500 for one vCPU), so
that nothing has to be counted anew when the owner's machines change."""
_SHARES = tuple(f"config.{kind}Allocation.shares" for kind in ("cpu", "memory"))
MACHINE_LEAVES: Leaves = {
    "name": str,
    "runtime.host": Ref,
    "runtime.powerState": str,
    "runtime.connectionState": str,
    "config.template": bool,
    "config.cpuAllocation.limit": int,
    **{f"{shares}.level": str for shares in _SHARES},
    **{f"{shares}.shares": int for shares in _SHARES},
    "resourcePool": Ref,
    "summary.quickStats.overallCpuUsage": int,
    "summary.quickStats.hostMemoryUsage": int,
}
_PATHS = {vim.VirtualMachine: MACHINE_LEAVES}
_POWERS = {"poweredOn": Power.ON, "poweredOff": Power.OFF, "suspended": Power.SUSPENDED}


@dataclass(frozen=True, slots=True)
class Machine:
    """One of our machines."""

    ref: Any
    name: str
    label: Label
    host_id: str | None
    power: Power
    limit_mhz: float | None
    """None is unlimited: never by us, but an administrator can."""
    quick_cpu_mhz: float
    quick_memory_mib: float
    connection: str
    pool_id: str | None = None
    """The resource pool that it lies in."""
    has_least_shares: bool = False
    """Whether it gives way to everybody beside it, whatever pool it is in."""
    has_low_shares: bool = True
    """Whether it has the shares of a machine inside our pool."""

    @property
    def id(self) -> str:
        return ref_id(self.ref)


class Labels:
    """Labels of finished machines, remembered because they never change: a VM's whole extraConfig is heavy."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Label] = {}

    def recall(self, rows: Sequence[Row]) -> dict[str, Label] | None:
        """Labels by object id when all of these VMs are known, else None."""
        keys = {row.id: (row.id, str(row.properties.get("name", ""))) for row in rows}
        if not self._known.keys() >= set(keys.values()):
            return None
        return {ref: self._known[key] for ref, key in keys.items()}

    def read(self, api: Api, rows: Sequence[Row]) -> dict[str, Label]:
        """Labels by object id of those VMs that are ours."""
        named = {row.id: (row.id, str(row.properties.get("name", ""))) for row in rows}
        unknown = [row.ref for row in rows if named[row.id] not in self._known]
        fresh: dict[str, Label] = {}
        paths = {vim.VirtualMachine: ("config.extraConfig", "config.uuid", "config.instanceUuid")}
        for row in read_objects(api, "machines", unknown, paths):
            label = read_label(named[row.id][1], row.properties.get("config.extraConfig") or ())
            if label is None or (api.on_host and not bears_id(row, label)):
                continue
            fresh[row.id] = label
            if label.configured:
                self._known[named[row.id]] = label
        return fresh | {ref: self._known[key] for ref, key in named.items() if key in self._known}


def bears_id(row: Row, label: Label) -> bool:
    """Whether a VM is the one that was made: on a host a copy keeps name and options, and gets another UUID."""
    uuids = {str(row.properties.get(path, "")).lower() for path in ("config.uuid", "config.instanceUuid")}
    return str(label.mark.machine_id) in uuids


def read_fleet(api: Api, folders: Iterable[Any], labels: Labels) -> list[Machine]:
    """Every machine of ours in these folders. Raises Unavailable when a VM there cannot be read."""
    found: list[Machine] = []
    for folder in folders:
        rows = choose_machines(read_related(api, "machines", [folder], "childEntity", _PATHS))
        found.extend(make_machines(rows, labels.read(api, rows)))
    return found


def choose_machines(rows: Sequence[Row]) -> list[Row]:
    """Those of the VMs in our folder that may be ours. Raises Unavailable when one cannot be read."""
    if any("name" not in row.properties for row in rows):
        raise Unavailable(Cause.PERMISSION, "a machine in our folder cannot be read by this account")
    return [
        row
        for row in rows
        if row.properties["name"].startswith(PREFIX) and not row.properties.get("config.template")
    ]


def make_machines(rows: Sequence[Row], ours: Mapping[str, Label]) -> list[Machine]:
    """The machines of those rows that bear a label."""
    return [_make_machine(row, ours[row.id]) for row in rows if row.id in ours]


def find_folders(api: Api, settings: VSphereSettings, clusters: Iterable[Cluster] = ()) -> list[Any]:
    """Our folders in the datacenters of these clusters, or of the whole scope."""
    roots = {ref_id(cluster.vm_folder): cluster.vm_folder for cluster in clusters}
    if not roots:
        roots = {row.id: row.properties["vmFolder"] for row in read_datacenters(api, settings)}
    folders = (find_folder(api, root, settings.folder) for root in roots.values())
    return [folder for folder in folders if folder is not None]


def find_machine(api: Api, settings: VSphereSettings, labels: Labels, name: str) -> Machine | None:
    """Our machine of this name; a look-alike without our mark is not found."""
    vms = [vm for folder in find_folders(api, settings) for vm in find_machines_named(api, folder, name)]
    rows = read_objects(api, "machines", vms, _PATHS)
    rows = [row for row in rows if row.properties.get("name") == name]
    ours = labels.read(api, rows)
    return next(iter(make_machines(rows, ours)), None)


def _make_machine(row: Row, label: Label) -> Machine:
    got = row.properties
    limit = got.get("config.cpuAllocation.limit")
    host = got.get("runtime.host")
    return Machine(
        ref=row.ref,
        name=got["name"],
        label=label,
        host_id=None if host is None else ref_id(host),
        power=_POWERS.get(str(got.get("runtime.powerState")), Power.OFF),
        limit_mhz=None if limit is None or limit < 0 else float(limit),
        quick_cpu_mhz=float(got.get("summary.quickStats.overallCpuUsage") or 0),
        quick_memory_mib=float(got.get("summary.quickStats.hostMemoryUsage") or 0),
        connection=str(got.get("runtime.connectionState", "connected")),
        pool_id=None if got.get("resourcePool") is None else ref_id(got["resourcePool"]),
        has_least_shares=all(
            str(got.get(f"{shares}.level")) == "custom"
            and int(got.get(f"{shares}.shares") or 0) <= LEAST_SHARES
            for shares in _SHARES
        ),
        has_low_shares=all(str(got.get(f"{shares}.level")) == "low" for shares in _SHARES),
    )


def describe_fleet(api: Api, machines: Sequence[Machine], clusters: Sequence[Cluster]) -> list[MachineSeen]:
    """Machines of these clusters as the driver's callers see them, with the task that is running on each."""
    cluster_of = {host.id: cluster.id for cluster in clusters for host in cluster.hosts}
    mine = [machine for machine in machines if machine.host_id in cluster_of]
    tasks = _running_tasks(api, mine)
    return [
        MachineSeen(
            name=machine.name,
            mark=machine.label.mark,
            cluster=cluster_of[machine.host_id or ""],
            host=machine.host_id,
            power=machine.power,
            configured=machine.label.configured,
            limit_mhz=machine.limit_mhz,
            task=running.task if (running := tasks.get(machine.id)) else None,
            progress=running.progress if running else None,
            error=None if machine.connection == "connected" else f"the machine is {machine.connection}",
        )
        for machine in sorted(mine, key=lambda machine: machine.name)
    ]


class _Running(NamedTuple):
    task: str
    progress: int | None


def _running_tasks(api: Api, machines: Sequence[Machine]) -> dict[str, _Running]:
    paths = {vim.Task: ("info.state", "info.descriptionId", "info.entity", "info.progress")}
    rows = read_related(api, "machines", [machine.ref for machine in machines], "recentTask", paths)
    return {
        ref_id(row.properties["info.entity"]): _Running(
            str(row.properties.get("info.descriptionId")), row.properties.get("info.progress")
        )
        for row in rows
        if str(row.properties.get("info.state")) in ("running", "queued")
        and row.properties.get("info.entity") is not None
    }
