"""What a decision means for the machines of a cluster: which to make, which to wake, which to give up.

The engine counts neither machines that are on their way out nor those given up by hand: they are outside `wanted`,
`running` and `victims`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs.harvest.types import Decision, HostBudget, Reason, ReasonCode, Rung, Verdict
from services.workload.domain.states import COUNTED, MachineState, Wanted

_MAY_COME_BACK = frozenset({MachineState.STARTING, MachineState.RUNNING, MachineState.DRAINING})
"""States in which a machine that was given up still works: cheaper to keep than to make another."""


@dataclass(frozen=True, slots=True)
class MachineNow:
    """A machine as its row stands."""

    id: UUID
    state: MachineState
    wanted: Wanted
    host: str | None
    vcpus: int
    ordinal: int
    by_hand: bool = False
    """A person gave it up; no decision brings it back."""
    is_made: bool = True
    """Whether the cloud has ever shown it."""

    @property
    def waits(self) -> bool:
        """Whether it is still to be cloned."""
        return self.state is MachineState.REQUESTED or (
            self.state is MachineState.CREATING and not self.is_made
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes of `wanted`, and the hosts of machines to make."""

    wanted: dict[UUID, Wanted]
    create_on: tuple[str, ...]


def give_everything_back(at: datetime, floor_mhz: float) -> Decision:
    """What is true where no policy is in force: machines at the floor, and on their way out."""
    return Decision(
        at=at,
        verdict=Verdict.UNKNOWN,
        rung=Rung.DRAIN,
        budgets=(),
        cap_mhz=floor_mhz,
        wanted=0,
        running=0,
        placements=(),
        victims=(),
        reason=Reason(ReasonCode.DRAINING),
    )


def hold_at_floor(
    at: datetime, budgets_mhz: Mapping[str, float], floors_mhz: Mapping[str, float]
) -> Decision:
    """What is true where nothing can be decided: no budget above its floor, nothing new, nothing given back."""
    budgets = tuple(
        HostBudget(host, min(budgets_mhz.get(host, mhz), mhz), 0.0, 0.0)
        for host, mhz in sorted({**dict.fromkeys(budgets_mhz, 0.0), **floors_mhz}.items())
    )
    return Decision(
        at=at,
        verdict=Verdict.UNKNOWN,
        rung=Rung.NO_NEW,
        budgets=budgets,
        cap_mhz=sum(budget.budget_mhz for budget in budgets),
        wanted=0,
        running=0,
        placements=(),
        victims=(),
        reason=Reason(ReasonCode.PAUSED),
    )


def plan_machines(decision: Decision, machines: Sequence[MachineNow]) -> Plan:
    """Bring the machines in line with the decision: keep `wanted`, run `running`, bring back before making new ones.

    Victims go in the decision's order. Where nothing new may be made, what still waits to be cloned is not; from the
    drain rung on everything goes.
    """
    ours = [m for m in machines if m.state in COUNTED and not m.by_hand]
    leaving = [m for m in ours if m.wanted is Wanted.GONE]
    most = decision.wanted if decision.rung < Rung.DRAIN else 0
    may_stay = [m for m in ours if m.wanted is not Wanted.GONE and not is_too_late(decision.rung, m)]
    kept = _in_order_of_keeping(decision, may_stay)[:most]
    missing = decision.wanted - len(kept) if decision.rung is Rung.LEND else 0
    back = [m for m in _in_order_of_keeping(decision, leaving) if m.state in _MAY_COME_BACK][:missing]
    wanted = {m.id: Wanted.GONE for m in ours}
    run, asleep = decision.running - len(decision.placements), set(decision.suspend)
    for index, machine in enumerate([*back, *_in_order_of_running(decision, kept)]):
        runs = machine in back or index - len(back) < run
        wanted[machine.id] = Wanted.RUNNING if runs and str(machine.id) not in asleep else Wanted.SUSPENDED
    changes = {m.id: wanted[m.id] for m in ours if wanted[m.id] is not m.wanted}
    return Plan(changes, decision.placements[: missing - len(back)])


def is_too_late(rung: Rung, machine: MachineNow) -> bool:
    """Whether a machine that waits to be cloned may not be any more."""
    return rung >= Rung.NO_NEW and machine.waits


def _in_order_of_keeping(decision: Decision, machines: Sequence[MachineNow]) -> list[MachineNow]:
    """The last victim first; what the decision does not name before all others, the oldest first."""
    rank = {name: position for position, name in enumerate(decision.victims)}
    return sorted(machines, key=lambda m: (-rank.get(str(m.id), len(rank)), m.ordinal))


def _in_order_of_running(decision: Decision, kept: Sequence[MachineNow]) -> list[MachineNow]:
    """Machines on hosts that can carry them first, and among those the ones that run already; at the end those that
    the decision suspends."""
    able = {budget.host for budget in decision.budgets if budget.budget_mhz > 0}
    asleep = set(decision.suspend)
    return sorted(
        kept,
        key=lambda m: (
            str(m.id) in asleep,
            m.host is not None and m.host not in able,
            m.wanted is Wanted.SUSPENDED,
        ),
    )
