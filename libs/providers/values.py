"""The values that pass between Tides and a driver: pure data, known to rooms that may not know a driver."""

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID


class Capability(StrEnum):
    """What a target can do; data that the API shows, not a mixin."""

    LIMITS = "limits"
    POOLS = "pools"
    CLONE = "clone"
    SUSPEND = "suspend"
    GUEST_SHUTDOWN = "guest_shutdown"
    HOSTS_VISIBLE = "hosts_visible"
    PLACEMENT = "placement"
    BACKFILL = "backfill"
    DISK_COPY = "disk_copy"
    """Machines are made by copying a template's disks, where nothing can be cloned."""
    LINKED_CLONE = "linked_clone"
    DRS_OVERRIDE = "drs_override"
    """A machine can be kept on its host where the cloud would move it."""
    HA_OVERRIDE = "ha_override"
    """A machine can be left out of restarts after a host's failure."""
    ATTRIBUTE = "attribute"
    """A machine's id shows in the cloud's own inventory."""
    DISK_IOPS = "disk_iops"
    OVF_ENVIRONMENT = "ovf_environment"
    TEMPLATES = "templates"
    """A machine of ours can be made a template."""
    RECALL = "recall"
    """What an earlier process began is found again by the cloud's id of its task."""


class Power(StrEnum):
    """Power states to ask for and to see. SHUTDOWN asks the guest first and is seen as OFF."""

    ON = "on"
    OFF = "off"
    SHUTDOWN = "shutdown"
    SUSPENDED = "suspended"


class Cause(StrEnum):
    """Why a cloud said no, the same words for every driver."""

    AUTH = "auth"
    PERMISSION = "permission"
    TLS = "tls"
    UNREACHABLE = "unreachable"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    QUOTA = "quota"
    CAPACITY = "capacity"
    THROTTLED = "throttled"
    TIMEOUT = "timeout"
    INVALID = "invalid"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Mark:
    """Whose machine this is: an installation of Tides and a machine of it."""

    installation_id: UUID
    machine_id: UUID


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """Everything a driver needs to make one machine; no choice is left to execution time."""

    name: str
    """`tides-<machine id>`: the name is derived from the id, so a repeat finds what a crash left."""
    mark: Mark
    cluster: str
    host: str | None
    """The host to stay on; None: the cloud places it (and `machines()` tells where)."""
    template: str
    vcpus: int
    memory_mib: int
    disk_gib: float
    limit_mhz: float
    """CPU limit set before the first power-on. Never unlimited."""
    user_data: str = field(repr=False)
    """cloud-init document, rendered; at most 16 KiB. Holds keys: never shown."""
    network: str | None = None
    is_whole: bool = False
    """Its disks are its own, also where others share their template's: what it becomes may outlive that."""


@dataclass(frozen=True, slots=True)
class MachineSeen:
    """One of our machines as the cloud sees it now."""

    name: str
    mark: Mark
    cluster: str
    host: str | None
    power: Power
    configured: bool
    """False while the clone or its configuration is unfinished: call `create` again."""
    limit_mhz: float | None
    task: str | None = None
    """A task of the cloud that is still running on it, or that is making it."""
    progress: int | None = None
    """How far that task is, in percent, where the cloud says so."""
    error: str | None = None
    task_id: str | None = None
    """The cloud's id of the task that is making it: what another process needs to find it again."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A machine that was being made when somebody last looked."""

    name: str
    mark: Mark
    cluster: str
    host: str | None
    template: str
    task_id: str
    """As `MachineSeen.task_id` told it."""


@dataclass(frozen=True, slots=True)
class TemplateSeen:
    """A template in the cloud's inventory."""

    reference: str
    name: str
    disk_gib: float
    guest_os: str
    unfit: str | None = None
    """Why no machine of ours can be made from it; None where nothing speaks against it."""


@dataclass(frozen=True, slots=True)
class ClusterSeen:
    """A cluster in scope, for validation's facts."""

    cluster: str
    name: str
    hosts: int
    cores: int
    cpu_mhz: float
    memory_mib: float


@dataclass(frozen=True, slots=True)
class HostHardware:
    """What one host is made of; None: not told, or not readable by this account."""

    host: str
    """The cloud's reference."""
    cores: int | None = None
    threads: int | None = None
    numa_nodes: int | None = None
    gpus: int | None = None
    gpu_models: tuple[str, ...] = ()
    """Each once."""


@dataclass(frozen=True, slots=True)
class MissingPrivilege:
    """A privilege the account lacks, by the cloud's own name, and what Tides cannot do without it."""

    privilege: str
    disables: str


@dataclass(frozen=True, slots=True)
class Blocker:
    """Why nothing can be lent as things are, and what its owner can do; looking is possible all the same."""

    code: str
    """A word for programs, the same at every validation."""
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Validation:
    """What a target is and whether it will do; with empty `missing` and `blockers` everything works."""

    product: str
    api_version: str
    instance_id: str
    """The cloud's own unique id, by which the same cloud under two addresses is recognised."""
    clusters: tuple[ClusterSeen, ...]
    missing: tuple[MissingPrivilege, ...] = ()
    warnings: tuple[str, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    """What stands against lending; the warnings do not."""
