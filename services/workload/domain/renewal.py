"""Which machines are replaced now: those that were made for what is no more, and those whose guests do not work."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from services.workload.domain.attached import Outdated, Urgency
from services.workload.domain.states import COUNTED, MachineState, Wanted

MOST_SHARE = 0.25
"""Of a cluster's machines so many at most are on their way out or in at once, for what need not be at once."""
LEAST_AGE_S = 3600.0
"""So long a machine works at least before it goes for what need not be at once: to make one costs its cloud a clone."""
MOST_FAILURES = 3
"""Machines in a row are replaced because their guests do not work; then it is the cluster, or the template."""
SILENT_FOR_S = 3600.0
"""Long enough for a guest that is alive to have started again and been heard of."""
NEVER_WORKED = {"broken": "its BOINC cannot be asked", "absent": "its agent was never heard of"}


@dataclass(frozen=True, slots=True)
class Tenant:
    """A machine as it is looked at for replacing."""

    id: UUID
    state: MachineState
    wanted: Wanted
    by_hand: bool
    """Whether it is given up for good already."""
    age_s: float
    outdated: Outdated | None = None
    health: str | None = None
    """What its guest's health is; None where none can be expected."""
    health_why: str | None = None
    health_for_s: float = 0.0
    """For how long, and the machine has run at least so long."""

    @property
    def stays(self) -> bool:
        """Whether it counts and nobody has given it up."""
        return self.state in COUNTED and self.wanted is not Wanted.GONE and not self.by_hand

    @property
    def is_settled(self) -> bool:
        """Whether it is neither on its way out nor in."""
        return self.stays and self.state in {MachineState.RUNNING, MachineState.SUSPENDED}


def lapsed(tenants: Sequence[Tenant]) -> list[tuple[UUID, str]]:
    """Those that must go at once, and why: a person ended their guests, or they work for nobody who is lent to."""
    stopped = [(each.id, each.health_why or "stopped") for each in tenants if each.health == "stopped"]
    lapsed_ = [
        (each.id, each.outdated.why)
        for each in tenants
        if each.outdated is not None and each.outdated.urgency is Urgency.AT_ONCE
    ]
    still = {each.id for each in tenants if not each.by_hand}
    return [
        (machine_id, why)
        for machine_id, why in {**dict(lapsed_), **dict(stopped)}.items()
        if machine_id in still
    ]


def due_for_renewal(tenants: Sequence[Tenant]) -> list[tuple[UUID, str]]:
    """Those of the others that may be replaced now, the oldest first: a share of all at most at a time."""
    living = [each for each in tenants if each.state is not MachineState.DESTROYED]
    most = max(1, int(MOST_SHARE * len(living)))
    room = most - sum(not each.is_settled for each in living)
    old = [
        (each.id, each.outdated.why)
        for each in tenants
        if each.outdated is not None and each.is_settled and each.age_s >= LEAST_AGE_S
    ]
    return old[: max(0, room)]


def ailing(tenants: Sequence[Tenant]) -> list[tuple[UUID, str]]:
    """Those whose guests have given up or were never heard of, and why.

    Silence counts after an hour, and only where most others are heard of: else it is our own door, or the network.
    """
    able = [each for each in tenants if each.stays and each.state is MachineState.RUNNING and each.health]
    silent = [each for each in able if each.health == "silent"]
    found = [(each.id, NEVER_WORKED[each.health]) for each in able if each.health in NEVER_WORKED]
    if 2 * len(silent) < len(able):
        found += [
            (each.id, "its agent has not been heard of for more than an hour")
            for each in silent
            if each.health_for_s >= SILENT_FOR_S
        ]
    return found


def why_starved(healths: Sequence[tuple[str | None, str | None]]) -> str | None:
    """Why a cluster shall not grow, given the health of each running guest and its reason; None: nothing speaks for it.

    Where as many have nothing to do as work, another would have nothing to do either.
    """
    starved = [why for health, why in healths if health == "starved"]
    working = sum(health == "working" for health, _ in healths)
    if not starved or len(starved) < working:
        return None
    why = next(filter(None, starved), "no work was given")
    return f"nothing new: {len(starved)} of {len(starved) + working} machines have nothing to do: {why}"
