"""The state of a simulated cloud: what it is made of, and what happened lately as tracks of (time, value).

Clones, boots and shut-downs need no ticking: they are consequences of times in the tracks. All times are
seconds since the epoch on the caller's clock; the cloud's own offset is added only where a time is shown.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from pydantic import TypeAdapter

from libs.common.contracts.usage import Announced, HostState
from libs.common.ids import new_id
from libs.providers.simulated.settings import (
    ClusterDefinition,
    Faults,
    OwnerProfile,
    SimulatedSettings,
    clusters_of,
)

HISTORY_S = 3_600.0
_KEPT_S = HISTORY_S + 3_600.0
_TOLD_S = 600.0

Value = TypeVar("Value")
Track = list[tuple[float, Value]]
"""What was true from when on, oldest first. An entry may lie ahead: a shut-down that is under way."""


def value_at(track: Track[Value], at_s: float) -> Value | None:
    """What was true at this time; None before the first entry."""
    if not track or track[0][0] > at_s:
        return None
    if track[-1][0] <= at_s:
        return track[-1][1]
    return track[bisect_right(track, at_s, key=_time) - 1][1]


def record(track: Track[Value], at_s: float, value: Value) -> bool:
    """Make it true from now on, whatever was planned for later; False when it was true already."""
    while track and track[-1][0] > at_s:
        track.pop()
    if track and track[-1][1] == value:
        return False
    if track and track[-1][0] == at_s:
        track.pop()
    track.append((at_s, value))
    return True


def forget(track: Track[Value], before_s: float) -> None:
    """Drop what ended before this time."""
    keep = bisect_right(track, before_s, key=_time) - 1
    if keep > 0:
        del track[:keep]


def _time(entry: tuple[float, object]) -> float:
    return entry[0]


@dataclass(slots=True)
class HostRecord:
    """A physical host. `load` overrides the owner's profile where somebody set it."""

    host: str
    name: str
    states: Track[HostState] = field(default_factory=list)
    load: Track[float | None] = field(default_factory=list)
    clones: int = 0
    """Machines of ours ever made on it: how long the next takes depends on this, not on names or on a race."""


@dataclass(slots=True)
class ClusterRecord:
    """A cluster with its hosts; `gone` while it has vanished from the inventory."""

    cluster: str
    name: str
    owner: OwnerProfile
    cores: int
    core_mhz: float
    memory_mib: float
    datastore_gib: float
    hosts: list[HostRecord]
    cap: Track[float | None] = field(default_factory=list)
    """The pool's limit in MHz; None: there is no pool."""
    gone: bool = False
    gpus: int = 0
    numa_nodes: int = 1

    @property
    def capacity_mhz(self) -> float:
        """Of one host."""
        return self.cores * self.core_mhz


@dataclass(slots=True)
class MachineRecord:
    """A machine of ours. `power` holds "off", "boot" (on, from off), "resume" (on, from memory) or
    "suspended"."""

    name: str
    installation_id: UUID
    machine_id: UUID
    ordinal: int
    """Order of creation: names are random ids and must not influence anything."""
    nth: int
    """Order of creation on its host."""
    cluster: str
    host: str
    template: str
    vcpus: int
    memory_mib: int
    disk_gib: float
    user_data: str = field(repr=False)
    created_at_s: float
    cloned_at_s: float
    booting_s: float
    half: bool = False
    """The clone ended without configuration; `create` again mends it."""
    power: Track[str] = field(default_factory=list)
    limit: Track[float] = field(default_factory=list)
    error: str | None = None
    deleted_at_s: float | None = None
    """Kept for back-fill for an hour; the inventory does not know it any more."""

    def is_configured(self, at_s: float) -> bool:
        return not self.half and at_s >= self.cloned_at_s


@dataclass(slots=True)
class CloudState:
    """Everything that survives a restart."""

    instance_id: str
    salt: str
    password_hash: str = field(repr=False)
    settings: SimulatedSettings
    clusters: list[ClusterRecord]
    templates: dict[str, str]
    """Reference by name."""
    machines: list[MachineRecord] = field(default_factory=list)
    foreign: dict[str, str] = field(default_factory=dict)
    """Cluster by name of machines that somebody else made."""
    next_ordinal: int = 1
    faults: Faults = field(default_factory=Faults)
    announced: list[Announced] = field(default_factory=list)
    """What owners are about to do, on the caller's clock."""

    def find_machine(self, name: str) -> MachineRecord | None:
        """A machine of ours that exists."""
        for machine in self.machines:
            if machine.name == name and machine.deleted_at_s is None:
                return machine
        return None

    def find_cluster(self, cluster: str) -> ClusterRecord | None:
        """A cluster that is in the inventory."""
        for found in self.clusters:
            if found.cluster == cluster and not found.gone:
                return found
        return None

    def prune(self, now_s: float) -> None:
        """Forget what back-fill will not ask for any more."""
        before_s = now_s - _KEPT_S
        told_s = now_s - _TOLD_S
        self.announced = [told for told in self.announced if told.begins_at.timestamp() > told_s]
        self.machines = [m for m in self.machines if m.deleted_at_s is None or m.deleted_at_s > before_s]
        for machine in self.machines:
            forget(machine.power, before_s)
            forget(machine.limit, before_s)
        for cluster in self.clusters:
            forget(cluster.cap, before_s)
            for host in cluster.hosts:
                forget(host.states, before_s)
                forget(host.load, before_s)


CODEC = TypeAdapter(CloudState)


def build_state(settings: SimulatedSettings, salt: str, password_hash: str) -> CloudState:
    """A fresh cloud as the settings describe it."""
    clusters = [_build_cluster(number, one) for number, one in enumerate(clusters_of(settings), start=1)]
    templates = {name: f"vm-{9000 + number}" for number, name in enumerate(settings.templates, start=1)}
    return CloudState(
        instance_id=str(new_id()),
        salt=salt,
        password_hash=password_hash,
        settings=settings,
        clusters=clusters,
        templates=templates,
        faults=settings.faults,
    )


def _build_cluster(number: int, definition: ClusterDefinition) -> ClusterRecord:
    hosts = [
        HostRecord(host=f"host-{number * 1000 + index}", name=f"{definition.name}-esx{index:02d}.example.org")
        for index in range(1, definition.hosts + 1)
    ]
    return ClusterRecord(
        cluster=f"domain-c{number}",
        name=definition.name,
        owner=definition.owner,
        cores=definition.cores,
        core_mhz=definition.core_mhz,
        memory_mib=definition.memory_gib * 1024.0,
        datastore_gib=definition.datastore_gib,
        hosts=hosts,
        gpus=definition.gpus,
        numa_nodes=definition.numa_nodes,
    )
