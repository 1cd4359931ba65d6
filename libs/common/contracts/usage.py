"""Usage of a cluster over one interval, as columns per host: measured, carried and judged in this one form."""

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import ClassVar, get_origin
from uuid import UUID

from libs.common.contracts.base import Event


class HostState(StrEnum):
    """Whether a host can carry our machines."""

    CONNECTED = "connected"
    MAINTENANCE = "maintenance"
    """In maintenance, or entering it: ours must leave within 60 s."""
    STANDBY = "standby"
    FAILED = "failed"


class Quality(StrEnum):
    """How a sample came about. A back-filled one is history: it never raises a limit."""

    MEASURED = "measured"
    BACKFILLED = "backfilled"
    PARTIAL = "partial"


class Exposure(StrEnum):
    """Why a machine of ours that runs would compete with the owner's as an equal, were it not for its limit."""

    NO_POOLS = "no_pools"
    """The cluster has no pools any more (DRS was switched off), and the machine's own shares are not the least yet."""
    POOL_GONE = "pool_gone"
    """Our pool was deleted, renamed or moved."""
    POOL_ALTERED = "pool_altered"
    """Our pool was edited: its shares are no longer custom, it reserves something, or its limit was taken away."""
    OUTSIDE_POOL = "outside_pool"
    """A machine was moved out of our pool."""


class Drs(StrEnum):
    """Whether a cluster moves machines by itself."""

    OFF = "off"
    ON = "on"
    """On, and how far is not told."""
    MANUAL = "manual"
    """It only recommends."""
    PARTIAL = "partial"
    """It places machines that are started, and recommends the rest."""
    FULL = "full"


class Coming(StrEnum):
    """What an owner may announce."""

    POWER_ON = "power_on"
    MIGRATION = "migration"
    BACKUP = "backup"
    SNAPSHOT = "snapshot"
    MAINTENANCE = "maintenance"
    CALENDAR = "calendar"


@dataclass(frozen=True, slots=True)
class Announced:
    """Load that the cloud or a calendar says is about to come: budgets step back for it before it is there."""

    kind: Coming
    begins_at: datetime
    ends_at: datetime | None = None
    """None: for as long as such a thing takes (`libs.harvest.coming`)."""
    host: str | None = None
    """The cloud's reference; None: every host of the cluster."""
    share: float | None = None
    """Of a host's capacity that it is expected to take; None: what such a thing takes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One interval of one cluster; `hosts` names the columns and every tuple but `coming` has its length.

    The last columns may also be empty: nothing of the kind is measured there.

    Ours and total are read at the same timestamps, so owner load is their difference. Values may be impossible
    (negative, NaN, ours above total): whoever judges decides what that means, and it never means "idle".
    """

    cluster: str
    """The cloud's own stable reference (a managed object id), not the display name."""
    name: str
    at: datetime
    """End of the interval on the cloud's clock."""
    interval_s: float
    hosts: tuple[str, ...]
    host_names: tuple[str, ...]
    states: tuple[HostState, ...]
    cpu_capacity_mhz: tuple[float, ...]
    cpu_used_mhz: tuple[float, ...]
    cpu_ours_mhz: tuple[float, ...]
    cpu_limit_mhz: tuple[float, ...]
    """Sum of the CPU limits really set on our running machines of the host; 0 without machines."""
    memory_capacity_mib: tuple[float, ...]
    memory_used_mib: tuple[float, ...]
    memory_ours_mib: tuple[float, ...]
    contention_percent: tuple[float | None, ...]
    """Time that owner machines waited for a CPU where we run (ready, co-stop), None where it is not measured."""
    machines: tuple[int, ...]
    """Our powered-on machines per host."""
    cap_mhz: float | None = None
    """The limit really set on our pool; None without a pool."""
    datastore_capacity_gib: float | None = None
    datastore_free_gib: float | None = None
    datastore_uncommitted_gib: float | None = None
    """What the thin disks of our machines may still take of the free space; None: not measured."""
    quality: Quality = Quality.MEASURED
    exposed: Exposure | None = None
    """Why ours do not give way by themselves just now; None: they do, or it is not measured."""
    coming: tuple[Announced, ...] = ()
    """What the cloud shows of load that is about to come, on the clock of `at`; history tells none."""
    memory_active_mib: tuple[float | None, ...] = ()
    """What of the memory in use was touched of late; measured slowly and where we run, else None."""
    owner_balloon_mib: tuple[float | None, ...] = ()
    """Taken from owner machines by ballooning, where we run."""
    owner_swapped_mib: tuple[float | None, ...] = ()
    """Of owner machines' memory swapped out by the host, where we run."""
    drs: Drs | None = None
    """None: not a cluster, or not told."""
    ha_reserve_cpu_mhz: float | None = None
    ha_reserve_memory_mib: float | None = None
    """Kept free by HA's admission control in all of the cluster, 0 where it keeps nothing; None: not known."""

    def is_whole(self) -> bool:
        """Whether every column has one value per host; what is not so is judged, but cannot be shown."""
        later = set(map(len, _later_columns(self)))
        return {*map(len, _columns(self))} == {len(self.hosts)} and later <= {0, len(self.hosts)}


LATER_COLUMNS = ("memory_active_mib", "owner_balloon_mib", "owner_swapped_mib")
"""The columns of a sample that may be empty."""
_OTHERS = {*LATER_COLUMNS, "coming"}
_later_columns = attrgetter(*LATER_COLUMNS)
_columns = attrgetter(
    *[
        column.name
        for column in fields(Sample)
        if get_origin(column.type) is tuple and column.name not in _OTHERS
    ]
)


class UsageSampled(Event):
    """One round over one resource: the newest sample of every cluster, or back-filled older ones."""

    key: ClassVar[str] = "usage.sampled.v1"

    resource_id: UUID
    samples: tuple[Sample, ...]
    received_at: datetime
    """When the monitor had the answer, on the monitor's clock: staleness is judged by it."""
    clock_offset_s: float = 0.0
    """The cloud's clock minus the monitor's."""

    @property
    def subject(self) -> str:
        return str(self.resource_id)
