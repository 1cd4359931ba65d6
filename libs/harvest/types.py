"""The types of `decide`: frozen, JSON-serialisable where they are stored, with units in their names.

`decide(policy, state, sample, facts) -> (state, Decision)`. Constants are in seconds, never in samples.
"""

from dataclasses import dataclass
from datetime import date, datetime, time
from enum import IntEnum, StrEnum
from typing import NamedTuple

from libs.common.contracts.usage import Announced, Sample
from libs.harvest.quota import Quota


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Fractions of capacity the owner uses: idle < stop_new < reclaim. Idle needs all signals, busy any."""

    idle: float
    stop_new: float
    reclaim: float


@dataclass(frozen=True, slots=True)
class Window:
    """A weekly stretch in which lending is allowed; `end` <= `start` runs past midnight."""

    days: frozenset[int]
    """Monday is 0."""
    start: time
    end: time


@dataclass(frozen=True, slots=True)
class MachineSize:
    """What one machine is made of, and from which template."""

    template: str
    vcpus: int
    memory_mib: int
    disk_gib: float


@dataclass(frozen=True, slots=True)
class Ladder:
    """Dwell per rung in seconds while the owner stays busy: how long until the next, harder step."""

    stop_new_after_s: float
    suspend_after_s: float
    drain_after_s: float
    drain_grace_s: float
    suspend: bool
    """False: skip the suspend rung (datastore short, or the operator's choice)."""


@dataclass(frozen=True, slots=True)
class Policy:
    """An operator's rules for one cluster. Immutable; a change is a new revision."""

    name: str
    cpu: Thresholds
    memory: Thresholds | None
    machine: MachineSize
    ladder: Ladder
    target: float = 0.90
    """Fraction of a host that owner and ours together may reach."""
    margin: float = 0.01
    sigma: float = 6.0
    """Standard deviations of owner load kept free on top of the level, before the gain that is steered."""
    steered: bool = True
    """Whether a gain on `sigma` follows what is measured on the cluster; False: it stays 1."""
    contention_max: float = 0.001
    """Share of host time in which owner and ours may stand above the target; where it takes more than 75 s until a
    surprise is seen, as much more (`libs.harvest.steering`)."""
    hard_max: float = 0.0005
    """The same above all of a host."""
    idle_dwell_s: float = 300.0
    busy_dwell_s: float = 60.0
    cooldown_s: float = 600.0
    """Rest between two growth steps of the count, and after a retreat."""
    max_share: float = 1.0
    """Fraction of a host's capacity that may ever be lent."""
    max_machines: int = 64
    machines_per_host: int = 1
    step_machines: int = 2
    """Machines added per growth step."""
    floor_mhz_per_vcpu: float = 200.0
    """Below this a guest stalls; the floor keeps a machine alive, not working."""
    useful_share: float = 0.11
    """A budget below this fraction of a host is not worth a machine: it counts as the floor."""
    dead_band: float = 0.01
    """Fraction of the budget below which a rise is never worth a task in someone's vCenter."""
    rise_s: float = 120.0
    """Least time between a change of a host's budget and a rise; it falls at once."""
    stale_after_s: float = 60.0
    """Silence or age beyond which budgets go to the floor; never less than three intervals of the cluster."""
    windows: tuple[Window, ...] = ()
    """Empty: always."""
    holidays: frozenset[date] = frozenset()
    """Days of the time zone that count as Sundays for the windows."""
    time_zone: str = "UTC"
    datastore_free_min: float = 0.20
    release: str = "suspend"
    """`suspend` or `destroy`: the harder end of the ladder that this operator prefers."""
    minimum_life_s: float = 0.0
    """A machine lives so long before a quota, a cap or a count may take it; the owner never waits for that."""
    quota: Quota | None = None
    """What all machines of the organisation may be together, on all of its clusters: workload grants of it."""


class Verdict(StrEnum):
    """What the owner's load says."""

    IDLE = "idle"
    NORMAL = "normal"
    STOP_NEW = "stop_new"
    BUSY = "busy"
    UNKNOWN = "unknown"


class Rung(IntEnum):
    """How far up the ladder of giving back; each rung includes those below."""

    LEND = 0
    FLOOR = 1
    NO_NEW = 2
    SUSPEND = 3
    DRAIN = 4
    DESTROY = 5


@dataclass(frozen=True, slots=True)
class Missing:
    """Stands where a sample should be: the cluster has not been heard of at `now`."""

    now: datetime


@dataclass(frozen=True, slots=True)
class MachineFact:
    """One of our machines as workload knows it when it asks for a decision."""

    machine: str
    host: str | None
    state: str
    """`running`, `suspended`, `starting` or `draining`."""
    vcpus: int
    age_s: float
    progress_s: float = 0.0
    """Work that would be lost if it were destroyed now."""
    memory_mib: int | None = None
    """Its own size, which an older policy may have chosen; None: the policy's."""
    disk_gib: float | None = None
    """The full size of its disk; None: the policy's."""
    priority: int = 0
    """Of whom it works for: the lowest is given up first."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the decision must know besides the sample."""

    now: datetime
    """Sample time: dwell, windows and cooldown use it, never the machine's clock."""
    machines: tuple[MachineFact, ...] = ()
    granted_machines: int | None = None
    """Quota granted beforehand for all machines of this cluster, existing ones included; None: no quota."""
    paused: str | None = None
    """Why a person or the resource's mode forbids lending; None: allowed."""
    draining: bool = False
    """Everything of ours is to leave this cluster."""
    interval_s: float | None = None
    """How often the cluster is asked for a sample; None: not known."""
    coming: tuple[Announced, ...] = ()
    """What the owner is about to do; what is over or far ahead may stand here too."""


class ReasonCode(StrEnum):
    """The rule that bound a decision."""

    LENDING = "lending"
    DWELLING = "dwelling"
    COOLING_DOWN = "cooling_down"
    OWNER_CPU = "owner_cpu"
    OWNER_MEMORY = "owner_memory"
    NO_HEADROOM = "no_headroom"
    CAP = "cap"
    QUOTA = "quota"
    DATASTORE = "datastore"
    WINDOW = "window"
    PAUSED = "paused"
    DRAINING = "draining"
    MISSING = "missing"
    IMPOSSIBLE = "impossible"
    STALE = "stale"
    HOSTS = "hosts"
    EXPOSED = "exposed"
    ANNOUNCED = "announced"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why, as data: `libs.harvest.words.explain` renders it on demand."""

    code: ReasonCode
    signal: str = ""
    """What was measured: `cpu`, `memory`, `idle` ... or what was wrong with it."""
    value: float | None = None
    bound: float | None = None
    host: str | None = None
    """The cloud's reference; None: the whole cluster."""


class Trend(NamedTuple):
    """How the owner load of a host has gone: fractions of capacity, the two spreads as variances."""

    level: float
    """Exponentially weighted mean."""
    fast: float
    """Of what stood above and below the level, with a memory of minutes."""
    slow: float
    """The same with a memory of a third of an hour."""
    peak: float
    """The highest load of late; it sinks to the level within minutes."""
    last: float
    plain_level: float = 1.0
    plain_variance: float = 0.0
    """Mean and variance of the plain bound, which runs beside the engine's own."""
    high: float = 1.0
    high_before: float = 1.0
    """The highest load of this hour of the clock, and of the hour before it in which there was a sample."""


class HostMemory(NamedTuple):
    """What the engine remembers of one host; like `Trend` a tuple, since every sample makes one for every host."""

    trend: Trend
    budget_mhz: float
    capacity_mhz: float = 0.0
    """0: never measured, the trend means nothing yet."""
    spare_mib: int | None = 0
    """Memory that all of ours together may hold there, at full size; 0 while it is not connected, None: no limit."""
    rest_s: float = 0.0
    """How long the budget must still rest before it may rise."""
    owed_s: float = 0.0
    """How long until the allowance has made up for all changes of the budget; a rise waits while this is much."""
    wish: float = 0.0
    plain_wish: float = 0.0
    """What the engine's own and the plain bound would have lent since the newest sample, fractions of capacity."""
    full_s: float = 0.0
    """How long its owner has left nothing there that would be worth lending."""


@dataclass(frozen=True, slots=True)
class Track:
    """One bound of the owner's load and how it did: means over a week of lending, all hosts alike."""

    soft_gain: float
    hard_gain: float
    """What contention and hard contention each ask for; the higher one multiplies the policy's `sigma`."""
    contended: float
    """Share of host time in which owner and lent stood above the target."""
    hard: float
    """The same above all of a host."""
    lent: float
    """Fraction of the hosts that it offered and the owner left."""

    @property
    def gain(self) -> float:
        """What multiplies the policy's `sigma`."""
        return max(self.soft_gain, self.hard_gain)


@dataclass(frozen=True, slots=True)
class Steering:
    """How far the engine goes on this cluster, by what was measured there (`libs.harvest.steering`)."""

    own: Track
    plain: Track
    """The shadow: a moving mean and its deviation."""
    observed_s: float = 86_400.0
    plain_leads: bool = False
    led_s: float = 0.0
    """How long there was no change of which one leads."""


class State(NamedTuple):
    """What the engine remembers of one cluster; `libs.harvest.state` writes it in about 60 bytes a host.

    A tuple, since every sample makes several: `replace` of a data class of twenty fields costs four times as much.
    """

    sampled_at: datetime | None = None
    """End of the newest sample that was believed."""
    hosts: tuple[tuple[str, HostMemory], ...] = ()
    """Ordered by the host's reference."""
    verdict: Verdict = Verdict.UNKNOWN
    verdict_since: datetime | None = None
    idle_since: datetime | None = None
    busy_since: datetime | None = None
    pressed_since: datetime | None = None
    """Since when the ladder has been climbed without a break: verdict busy, or outside every window. What is not
    known breaks nothing."""
    grown_at: datetime | None = None
    """The last growth step or retreat of the count: the cooldown runs from here."""
    rung: Rung = Rung.FLOOR
    rung_since: datetime | None = None
    """None: never judged."""
    wanted: int = 0
    disk_room: int | None = None
    """Further machines that the datastore can hold; None: not measured."""
    room_mib: int | None = None
    """Memory that all of ours together may hold beside the owner's and what HA keeps free; None: HA keeps nothing."""
    datastore_short: bool = False
    short_since: datetime | None = None
    exposed: str | None = None
    """Why ours do not give way by themselves, as the newest sample had it; None: they do."""
    stuck_since: datetime | None = None
    """Since when the cluster has been idle and a suspended machine had no room to wake up."""
    interval_s: float | None = None
    """What the newest believed sample covered."""
    reason: Reason | None = None
    steering: Steering | None = None
    """None: nothing was ever lent."""


TIMES = tuple(name for name, kind in State.__annotations__.items() if "datetime" in str(kind))
"""The moments that a state remembers."""


@dataclass(frozen=True, slots=True)
class HostBudget:
    """What may be lent on one host now."""

    host: str
    budget_mhz: float
    owner_mhz: float
    capacity_mhz: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be true now; nothing is left to choose when it is carried out."""

    at: datetime
    verdict: Verdict
    rung: Rung
    budgets: tuple[HostBudget, ...]
    cap_mhz: float
    wanted: int
    """Machines that should exist (running or suspended) on the cluster."""
    running: int
    """Of those, how many should be powered on."""
    placements: tuple[str, ...]
    """Hosts for machines that are wanted and do not exist yet, best first; a host may stand here twice."""
    victims: tuple[str, ...]
    """Machines to give up first, in order, when fewer are wanted or may run; not those that drain already."""
    reason: Reason
    steering: Steering | None = None
    """How far the engine went, and what of."""
    suspend: tuple[str, ...] = ()
    """Machines that are to be suspended, whichever others run: the owner of their host needs what keeps them alive.
    They count in `wanted`, not in `running`."""


Observation = Sample | Missing
