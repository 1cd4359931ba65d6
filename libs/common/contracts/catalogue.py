"""The event catalogue: every event, who says it, who hears it, and how a repeat is known.

Additive-only; `tests/architecture` freezes the schemas and checks publishers and consumers against the services.
"""

from dataclasses import dataclass
from enum import StrEnum

from libs.common.contracts import action, demand, derivation, probe, replay, resource, supply, usage
from libs.common.contracts.base import Event


class Kind(StrEnum):
    """How a consumer treats repeats and age."""

    STATE = "state"
    """The whole of a thing; the highest revision wins."""
    FACT = "fact"
    """Counts once by id and is never dropped for being old."""
    SAMPLE = "sample"
    """A measurement: id = (resource, tick); workload's copy expires, stats' copy is kept."""


ANY = "any"
"""The publisher of what every service may say, because the runner says it for them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the catalogue."""

    event: type[Event]
    publisher: str
    """A service, or ANY."""
    consumers: frozenset[str]
    kind: Kind
    public: bool
    """Whether outside subscribers may see it on the public exchange."""
    identity: str

    @property
    def public_address(self) -> str:
        """Its routing key on the public exchange; one project's begin alike, so that its subscriber is let to those."""
        is_a_projects = issubclass(self.event, demand.ProjectFact)
        return f"project.{{project_id}}.{self.event.key}" if is_a_projects else self.event.key


def _entry(event: type[Event], publisher: str, consumers: str, kind: Kind, identity: str) -> Entry:
    public = kind is not Kind.STATE and publisher in {"workload", "monitor"}
    public |= issubclass(event, demand.ProjectFact)
    return Entry(event, publisher, frozenset(consumers.split()), kind, public, identity)


_BY_REVISION = "subject and revision"
_BY_ID = "event id"

CATALOGUE: tuple[Entry, ...] = (
    _entry(usage.UsageSampled, "monitor", "workload stats", Kind.SAMPLE, "resource and tick"),
    _entry(
        resource.ResourceChanged,
        "registry",
        "monitor workload templates policy stats",
        Kind.STATE,
        _BY_REVISION,
    ),
    _entry(resource.InventoryChanged, "monitor", "registry policy workload stats", Kind.STATE, _BY_REVISION),
    _entry(resource.ResourceDegraded, "monitor", "registry", Kind.FACT, _BY_ID),
    _entry(resource.ResourceRecovered, "monitor", "registry", Kind.FACT, _BY_ID),
    _entry(resource.LoginRefused, "monitor", "registry", Kind.FACT, _BY_ID),
    _entry(supply.PolicyAssigned, "policy", "workload", Kind.STATE, _BY_REVISION),
    _entry(supply.TemplateChanged, "templates", "workload", Kind.STATE, _BY_REVISION),
    _entry(derivation.DerivationChanged, "templates", "workload", Kind.STATE, _BY_REVISION),
    _entry(derivation.DerivationMoved, "workload", "templates", Kind.FACT, _BY_ID),
    _entry(supply.ContributionChanged, "contribution", "workload", Kind.STATE, _BY_REVISION),
    _entry(supply.MachineDrained, "contribution", "workload", Kind.FACT, _BY_ID),
    _entry(supply.GuestHealthChanged, "contribution", "workload", Kind.FACT, _BY_ID),
    _entry(probe.ProbeMoved, "workload", "registry", Kind.FACT, _BY_ID),
    _entry(probe.ProbeReported, "contribution", "registry", Kind.FACT, _BY_ID),
    _entry(demand.HostAttached, "contribution", "", Kind.FACT, _BY_ID),
    _entry(demand.HostDraining, "contribution", "", Kind.FACT, _BY_ID),
    _entry(demand.HostDetached, "contribution", "", Kind.FACT, _BY_ID),
    _entry(demand.HoursExpected, "contribution", "", Kind.FACT, _BY_ID),
    _entry(
        supply.TokenRevoked,
        "identity",
        "registry monitor policy workload templates stats contribution identity",
        Kind.FACT,
        _BY_ID,
    ),
    _entry(replay.StatesAsked, ANY, "registry monitor policy templates contribution", Kind.FACT, _BY_ID),
    _entry(action.MachineRequested, "workload", "contribution stats", Kind.FACT, _BY_ID),
    _entry(action.MachineDeployed, "workload", "contribution stats", Kind.FACT, _BY_ID),
    _entry(action.MachineSuspended, "workload", "stats", Kind.FACT, _BY_ID),
    _entry(action.MachineResumed, "workload", "contribution stats", Kind.FACT, _BY_ID),
    _entry(action.MachineDraining, "workload", "contribution stats", Kind.FACT, _BY_ID),
    _entry(action.MachineDestroyed, "workload", "contribution stats", Kind.FACT, _BY_ID),
    _entry(action.MachineFailed, "workload", "stats", Kind.FACT, _BY_ID),
    _entry(action.MachineLost, "workload", "stats", Kind.FACT, _BY_ID),
    _entry(action.MachineAbandoned, "workload", "contribution stats", Kind.FACT, _BY_ID),
    _entry(action.LimitsRequested, "workload", "", Kind.FACT, _BY_ID),
    _entry(action.LimitsApplied, "workload", "stats", Kind.FACT, _BY_ID),
    _entry(action.LimitsSuperseded, "workload", "", Kind.FACT, _BY_ID),
    _entry(action.LimitsFailed, "workload", "stats", Kind.FACT, _BY_ID),
    _entry(action.GuestsThrottled, "workload", "contribution", Kind.FACT, _BY_ID),
    _entry(action.ClusterPaused, "workload", "stats", Kind.FACT, _BY_ID),
    _entry(action.ClusterResumed, "workload", "stats", Kind.FACT, _BY_ID),
    _entry(action.ClusterDrainRequested, "workload", "stats", Kind.FACT, _BY_ID),
    _entry(action.ClusterScaled, "workload", "stats", Kind.FACT, _BY_ID),
    _entry(action.SweepAllowed, "workload", "stats", Kind.FACT, _BY_ID),
    _entry(action.SweepStopped, "workload", "registry", Kind.FACT, _BY_ID),
    _entry(action.ActionLoginRefused, "workload", "registry", Kind.FACT, _BY_ID),
    _entry(action.ResourceDeparted, "workload", "contribution", Kind.FACT, _BY_ID),
    _entry(action.ResourceReturned, "workload", "contribution", Kind.FACT, _BY_ID),
    _entry(action.ResourceReleased, "workload", "registry stats", Kind.FACT, _BY_ID),
    _entry(action.ResourceAbandoned, "workload", "registry stats", Kind.FACT, _BY_ID),
)

BY_KEY: dict[str, Entry] = {entry.event.key: entry for entry in CATALOGUE}


def entry_of(event: type[Event]) -> Entry:
    """The catalogue's row of an event class. Raises KeyError for an event that is not in the catalogue."""
    return BY_KEY[event.key]
