"""What a decision means for the machines of a cluster: which to make, which to wake, which to give up."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from libs.harvest.types import Decision, Rung
from services.workload.domain.states import COUNTED, MachineState, Wanted


@dataclass(frozen=True, slots=True)
class MachineNow:
    """A machine as its row stands."""

    id: UUID
    state: MachineState
    wanted: Wanted
    host: str | None
    vcpus: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes of `wanted`, and the hosts of machines to make."""

    wanted: dict[UUID, Wanted]
    create_on: tuple[str, ...]


def plan_machines(decision: Decision, machines: Sequence[MachineNow]) -> Plan:
    """Bring the machines in line with the decision: keep `wanted`, run `running`, wake before making new ones.

    Victims go in the decision's order; machines it does not name go last, newest first.
    """
    counted = [m for m in machines if m.state in COUNTED]
    keep = _keepable(decision, counted)
    wanted = {m.id: Wanted.GONE for m in counted}
    kept = keep[: decision.wanted]
    for index, machine in enumerate(kept):
        wanted[machine.id] = Wanted.RUNNING if index < decision.running else Wanted.SUSPENDED
    missing = decision.wanted - len(kept)
    may_grow = decision.rung <= Rung.LEND and missing > 0 and decision.running >= decision.wanted
    create_on = decision.placements[:missing] if may_grow else ()
    return Plan({m.id: wanted[m.id] for m in counted if wanted[m.id] is not m.wanted}, create_on)


def _keepable(decision: Decision, counted: Sequence[MachineNow]) -> list[MachineNow]:
    """Machines in the order in which they are kept: the last victim first, running before sleeping ones."""
    rank = {name: position for position, name in enumerate(decision.victims)}
    last = len(rank)

    def order(machine: MachineNow) -> tuple[bool, int, int]:
        condemned = machine.wanted is Wanted.GONE and machine.state is not MachineState.DRAINING
        return (condemned, -rank.get(str(machine.id), last), machine.ordinal)

    return [m for m in sorted(counted, key=order) if not _is_doomed(m)]


def _is_doomed(machine: MachineNow) -> bool:
    """Given up before anything was made: cheaper to make another than to keep track."""
    return machine.wanted is Wanted.GONE and machine.state in {MachineState.REQUESTED, MachineState.CREATING}
