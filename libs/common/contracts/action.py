"""Action events: what workload did to a cloud, why, and what came of it."""

from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

from pydantic import AwareDatetime

from libs.common.contracts.base import Event
from libs.common.contracts.resource import LoginFact


class MachineFact(Event):
    """Something happened to one of our machines."""

    machine_id: UUID
    name: str
    workload_id: UUID
    organisation_id: UUID
    resource_id: UUID
    cluster_id: UUID
    host: str | None = None
    vcpus: int = 0
    reason: str
    """In words, with the numbers that bound it: what an administrator reads at 3 a.m."""

    @property
    def subject(self) -> str:
        return str(self.machine_id)


class MachineRequested(MachineFact):
    """A machine was decided on and is about to be created."""

    key: ClassVar[str] = "action.machine_requested.v1"
    guest_token_sha256: str = ""
    """Hash of the one-time token in the machine's user-data, by which the guest enrols."""
    probe_id: UUID | None = None
    """The probe of its resource that it is made for; None: it is lent."""


class MachineDeployed(MachineFact):
    """The machine exists, is configured, and runs."""

    key: ClassVar[str] = "action.machine_deployed.v1"


class MachineSuspended(MachineFact):
    """The machine is suspended: no CPU, its work kept."""

    key: ClassVar[str] = "action.machine_suspended.v1"


class MachineResumed(MachineFact):
    """A suspended machine runs again."""

    key: ClassVar[str] = "action.machine_resumed.v1"


class MachineDraining(MachineFact):
    """The machine takes no new work and will be destroyed."""

    key: ClassVar[str] = "action.machine_draining.v1"
    grace_s: float = 0.0
    """How long it has at most; 0: it is not said."""


class MachineDestroyed(MachineFact):
    """The cloud said twice that the machine is absent."""

    key: ClassVar[str] = "action.machine_destroyed.v1"


class MachineFailed(MachineFact):
    """A stage failed for good or ran out of its deadline."""

    key: ClassVar[str] = "action.machine_failed.v1"
    stage: str = ""


class MachineLost(MachineFact):
    """A machine that should exist was not in the inventory three times."""

    key: ClassVar[str] = "action.machine_lost.v1"


class MachineAbandoned(MachineFact):
    """The machine was written off with its cloud, which was not asked: it may run there still."""

    key: ClassVar[str] = "action.machine_abandoned.v1"


class GuestsThrottled(Event):
    """What the guests of a cluster may use of their processors, where their cloud cannot limit machines.

    Holds until the next one: without Tides nobody would bring it down again. Agents that hear of nobody suspend BOINC.
    """

    key: ClassVar[str] = "action.guests_throttled.v1"
    resource_id: UUID
    cluster_id: UUID
    percent: dict[UUID, float]
    """By machine: 0 to 100 of what its virtual processors could do; 0: nothing is computed."""
    reason: str

    @property
    def subject(self) -> str:
        return str(self.cluster_id)


class LimitFact(Event):
    """A change of limits on a cluster; one id from request to outcome."""

    action_id: UUID
    resource_id: UUID
    cluster_id: UUID
    cap_mhz: float
    budgets_mhz: dict[str, float]
    """MHz lent per host (the cloud's reference)."""
    sampled_at: AwareDatetime
    """End of the sample that led here, on the cloud's clock: the latency from sample to limit starts here."""
    reason: str

    @property
    def subject(self) -> str:
        return str(self.cluster_id)


class LimitsRequested(LimitFact):
    """A decision asks for these limits."""

    key: ClassVar[str] = "action.limits_requested.v1"


class LimitsApplied(LimitFact):
    """The cloud took the limits."""

    key: ClassVar[str] = "action.limits_applied.v1"
    changes: int = 0
    """Machines and pools really reconfigured: each is a task in someone's vCenter."""


class LimitsSuperseded(LimitFact):
    """A newer decision replaced these limits before they were applied."""

    key: ClassVar[str] = "action.limits_superseded.v1"


class LimitsFailed(LimitFact):
    """The cloud refused or did not answer; the next beat tries again with whatever is desired then."""

    key: ClassVar[str] = "action.limits_failed.v1"
    cause: str = ""


class ClusterPaused(Event):
    """A person pressed the red button: budgets to the floor, nothing new, until resumed by a person."""

    key: ClassVar[str] = "action.cluster_paused.v1"
    resource_id: UUID
    cluster_id: UUID
    actor: str
    reason: str

    @property
    def subject(self) -> str:
        return str(self.cluster_id)


class ClusterResumed(ClusterPaused):
    """A person released the red button."""

    key: ClassVar[str] = "action.cluster_resumed.v1"


class ClusterDrainRequested(ClusterPaused):
    """A person asked for everything on the cluster back, with grace, until it is resumed."""

    key: ClassVar[str] = "action.cluster_drain_requested.v1"
    was_draining: bool = False
    """Whether somebody had asked for it before."""


class ClusterScaled(ClusterPaused):
    """A person said how many machines may be on the cluster at most, or took that bound away."""

    key: ClassVar[str] = "action.cluster_scaled.v1"
    most_before: int | None = None
    most_machines: int | None = None
    """None: as many as the policy allows."""


class SweepAllowed(Event):
    """A person allowed that strangers be destroyed, each by its name."""

    key: ClassVar[str] = "action.sweep_allowed.v1"
    resource_id: UUID
    actor: str
    reason: str
    machines: tuple[str, ...]

    @property
    def subject(self) -> str:
        return str(self.resource_id)


class SweepStopped(Event):
    """The sweeper found more strangers than it dares to remove, and waits for a person."""

    key: ClassVar[str] = "action.sweep_stopped.v1"
    resource_id: UUID
    orphans: int
    machines: int
    reason: str

    @property
    def subject(self) -> str:
        return str(self.resource_id)


class ActionLoginRefused(LoginFact):
    """A cloud refused the credential with which workload wanted to act on it."""

    key: ClassVar[str] = "action.login_refused.v1"


@dataclass(frozen=True, slots=True)
class MachineLeft:
    """A machine that was written off, as it was last known."""

    machine_id: UUID
    name: str
    cluster_id: UUID
    cluster: str
    """The cluster's name."""
    host: str | None
    """The cloud's reference."""
    state: str
    power: str | None
    """None: the cloud has never shown it."""


class ResourceAbandoned(Event):
    """A cloud was given up without being asked: which machines of ours may be left there. Said once."""

    key: ClassVar[str] = "action.resource_abandoned.v1"
    resource_id: UUID
    reason: str
    machines: tuple[MachineLeft, ...]

    @property
    def subject(self) -> str:
        return str(self.resource_id)


class AwayFact(Event):
    """Whether a cloud counts as away: its machines then hold no quota, unless their guests are heard of."""

    resource_id: UUID
    organisation_id: UUID
    stand_in_id: UUID | None = None
    """What takes over what is lent to it alone; None: nothing does."""
    reason: str

    @property
    def subject(self) -> str:
        return str(self.resource_id)


class ResourceDeparted(AwayFact):
    """It is away, or while it is something else stands in for it."""

    key: ClassVar[str] = "action.resource_departed.v1"


class ResourceReturned(AwayFact):
    """It has answered for long enough: nothing stands in for it any more."""

    key: ClassVar[str] = "action.resource_returned.v1"


class ResourceReleased(Event):
    """Nothing of ours is left on the resource: no machine, no pool, no folder."""

    key: ClassVar[str] = "action.resource_released.v1"
    resource_id: UUID
    revision: int | None = None
    """Of the draining ResourceChanged that this answers; an answer to an older one must not end a newer wish."""

    @property
    def subject(self) -> str:
        return str(self.resource_id)
