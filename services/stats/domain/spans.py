"""When a machine ran, from facts that may have come in any order."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

_RUNS = {
    "action.machine_requested.v1": False,
    "action.machine_deployed.v1": True,
    "action.machine_suspended.v1": False,
    "action.machine_resumed.v1": True,
    "action.machine_draining.v1": None,
    "action.machine_failed.v1": None,
    "action.machine_lost.v1": False,
    "action.machine_destroyed.v1": False,
    "action.machine_abandoned.v1": False,
}
"""Whether a machine runs after a fact; None: as before."""
_ENDS = ("action.machine_destroyed.v1", "action.machine_abandoned.v1")
_ORDER = {key: place for place, key in enumerate(_RUNS)}


@dataclass(frozen=True, slots=True)
class Told:
    """A fact about a machine."""

    key: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Span:
    """The machine ran from then until then; None: it still does."""

    running_from: datetime
    running_to: datetime | None


def spans_of(told: Iterable[Told]) -> list[Span]:
    """The stretches in which the machine ran, oldest first. What has ended runs no more, whatever follows."""
    spans: list[Span] = []
    since: datetime | None = None
    for fact in sorted(told, key=lambda fact: (fact.at, _ORDER.get(fact.key, 0))):
        runs = _RUNS.get(fact.key)
        if runs and since is None:
            since = fact.at
        elif runs is False and since is not None:
            spans += [Span(since, fact.at)] if fact.at > since else []
            since = None
        if fact.key in _ENDS:
            return spans
    return spans if since is None else [*spans, Span(since, None)]
