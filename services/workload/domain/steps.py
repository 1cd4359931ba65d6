"""The next step of one machine: from what is wanted, where it is in its life, and what the cloud shows."""

from dataclasses import dataclass
from enum import StrEnum

from libs.providers.values import MachineSeen, Power
from services.workload.domain.states import PRESENT, MachineState, Wanted

_S = MachineState
_MAY_BE_KEPT = frozenset({_S.STARTING, _S.RUNNING, _S.LOST})


class Act(StrEnum):
    """What to ask of the cloud."""

    CREATE = "create"
    POWER_ON = "power_on"
    SUSPEND = "suspend"
    DELETE = "delete"
    KEEP = "keep"
    """As a template."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where the machine is now, and what to ask of the cloud next, if anything."""

    state: MachineState
    act: Act | None = None


def next_step(state: MachineState, wanted: Wanted, seen: MachineSeen | None, *, drained: bool) -> Step:
    """The step for one machine.

    `seen` is the cloud's word, None when the inventory does not show it; `drained`: its grace is over.
    """
    if state is _S.DESTROYING:
        return Step(state, Act.DELETE if seen else None)
    if state is _S.LOST:
        return _found(wanted, seen)
    if wanted is Wanted.GONE:
        return _give_back(state, seen, drained=drained)
    if seen is None:
        return _ask(state, wanted)
    if not seen.configured and state in {_S.REQUESTED, _S.CREATING}:
        return Step(_S.CREATING, Act.CREATE if seen.task is None else None)
    return _run(state, seen) if wanted is Wanted.RUNNING else _sleep(state, seen)


def next_build_step(state: MachineState, wanted: Wanted, seen: MachineSeen | None, *, has_run: bool) -> Step:
    """The step for a machine that becomes an image: it turns itself off when it is done, and has no work to end.

    One that has run and is not shown may be a template already, also where it counts as lost by now: keeping it once
    more says so, or that it is gone.
    """
    if has_run and wanted is Wanted.RUNNING:
        is_off = seen is not None and seen.power is Power.OFF and seen.task is None
        if (state in {_S.STARTING, _S.RUNNING} and is_off) or (state in _MAY_BE_KEPT and seen is None):
            return Step(state, Act.KEEP)
    return next_step(state, wanted, seen, drained=True)


def _found(wanted: Wanted, seen: MachineSeen | None) -> Step:
    if seen is None:
        return Step(_S.LOST)
    return Step(_S.STARTING) if wanted is not Wanted.GONE else Step(_S.DESTROYING, Act.DELETE)


def _give_back(state: MachineState, seen: MachineSeen | None, *, drained: bool) -> Step:
    """One that was there and is out of sight has to be lost before it can be gone: nobody asked for its end."""
    if seen is None:
        return Step(state if state in PRESENT else _S.DESTROYING)
    works = seen.configured and seen.power is Power.ON
    if works and not drained and state in {_S.STARTING, _S.RUNNING, _S.DRAINING}:
        return Step(_S.DRAINING)
    return Step(_S.DESTROYING, Act.DELETE)


def _ask(state: MachineState, wanted: Wanted) -> Step:
    if state in {_S.REQUESTED, _S.CREATING}:
        return Step(_S.CREATING, Act.CREATE) if wanted is Wanted.RUNNING else Step(state)
    return Step(state)


def _run(state: MachineState, seen: MachineSeen) -> Step:
    if seen.power is Power.ON:
        return Step(_S.RUNNING if state in {_S.STARTING, _S.RUNNING, _S.DRAINING} else _S.STARTING)
    if seen.task is not None:
        return Step(state)
    return Step(_S.STARTING, Act.POWER_ON)


def _sleep(state: MachineState, seen: MachineSeen) -> Step:
    if seen.power is not Power.ON:
        return Step(state if state is _S.SUSPENDED else _asleep(state))
    if seen.task is not None:
        return Step(state)
    return Step(_S.STARTING if state in {_S.REQUESTED, _S.CREATING} else _S.SUSPENDING, Act.SUSPEND)


def _asleep(state: MachineState) -> MachineState:
    """A machine that is off or suspended counts as suspended, whichever way it came there."""
    passing = {_S.STARTING: _S.SUSPENDING, _S.RUNNING: _S.SUSPENDING, _S.DRAINING: _S.SUSPENDING}
    return passing.get(state, _S.SUSPENDED)
