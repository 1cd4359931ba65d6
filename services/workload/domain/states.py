"""The life of a machine as data: `wanted` is what should be, `state` what is; only loops move `state`."""

from enum import StrEnum


class Wanted(StrEnum):
    """What should become of a machine."""

    RUNNING = "running"
    SUSPENDED = "suspended"
    GONE = "gone"


class MachineState(StrEnum):
    """Where a machine is in its life."""

    REQUESTED = "requested"
    """Decided; the cloud has not been asked, or it is not known whether it heard."""
    CREATING = "creating"
    STARTING = "starting"
    RUNNING = "running"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    DRAINING = "draining"
    """Runs at its limit, takes no new work, and goes when its grace is over."""
    DESTROYING = "destroying"
    DESTROYED = "destroyed"
    """The cloud said absent twice."""
    LOST = "lost"
    """Should exist and was not in the inventory three times."""
    ABANDONED = "abandoned"
    """Written off with its cloud, which was not asked: it may run there still."""


_S = MachineState

_ARROWS: dict[MachineState, frozenset[MachineState]] = {
    _S.REQUESTED: frozenset({_S.CREATING, _S.STARTING, _S.SUSPENDED, _S.DESTROYING}),
    _S.CREATING: frozenset({_S.STARTING, _S.SUSPENDED, _S.DESTROYING, _S.LOST}),
    _S.STARTING: frozenset({_S.RUNNING, _S.SUSPENDING, _S.DRAINING, _S.DESTROYING, _S.LOST}),
    _S.RUNNING: frozenset({_S.STARTING, _S.SUSPENDING, _S.DRAINING, _S.DESTROYING, _S.LOST}),
    _S.SUSPENDING: frozenset({_S.SUSPENDED, _S.STARTING, _S.DRAINING, _S.DESTROYING, _S.LOST}),
    _S.SUSPENDED: frozenset({_S.STARTING, _S.SUSPENDING, _S.DRAINING, _S.DESTROYING, _S.LOST}),
    _S.DRAINING: frozenset({_S.RUNNING, _S.STARTING, _S.SUSPENDING, _S.DESTROYING, _S.LOST}),
    _S.DESTROYING: frozenset({_S.DESTROYED}),
    _S.LOST: frozenset({_S.STARTING, _S.DESTROYING}),
    _S.DESTROYED: frozenset(),
    _S.ABANDONED: frozenset(),
}

ENDED = frozenset({_S.DESTROYED, _S.ABANDONED})
"""States that nothing follows."""

LIVE = frozenset(_S) - ENDED
"""States of machines that are looked after."""

NEXT: dict[MachineState, frozenset[MachineState]] = {
    state: to | {_S.ABANDONED} if state in LIVE else to for state, to in _ARROWS.items()
}
"""The transition table. A machine that is being destroyed never comes back; with its cloud any can be abandoned."""

COUNTED = frozenset(
    {_S.REQUESTED, _S.CREATING, _S.STARTING, _S.RUNNING, _S.SUSPENDING, _S.SUSPENDED, _S.DRAINING}
)
"""States of machines that a decision counts as there."""

PRESENT = frozenset({_S.STARTING, _S.RUNNING, _S.SUSPENDING, _S.SUSPENDED, _S.DRAINING})
"""States of machines that the inventory must show."""

STAGE_DEADLINE_S: dict[MachineState, float] = {
    _S.CREATING: 900.0,
    _S.STARTING: 600.0,
    _S.SUSPENDING: 300.0,
    _S.DESTROYING: 1800.0,
}
"""How long a machine may stay in a passing state before it has failed (creating, starting) or a person is told."""

ENGINE_STATE: dict[MachineState, str] = {
    _S.REQUESTED: "starting",
    _S.CREATING: "starting",
    _S.STARTING: "starting",
    _S.RUNNING: "running",
    _S.SUSPENDING: "suspended",
    _S.SUSPENDED: "suspended",
    _S.DRAINING: "draining",
    _S.DESTROYING: "draining",
}
"""A machine's state in the engine's words."""


def takes_limit(state: MachineState, *, is_on: bool) -> bool:
    """Whether a machine that was seen has to have a limit: also one that runs on because its deletion is refused."""
    return state in PRESENT or (is_on and state in LIVE)


class ImpossibleTransition(Exception):
    """A transition that is not in the table: a bug, never the cloud's doing."""


def advance(state: MachineState, to: MachineState) -> MachineState:
    """The new state. Raises ImpossibleTransition unless the table has the arrow; staying is always allowed."""
    if to != state and to not in NEXT[state]:
        raise ImpossibleTransition(f"{state} -> {to}")
    return to
