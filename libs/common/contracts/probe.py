"""What is said of a resource's probe: one machine that must reach its demander before the resource is lent."""

from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from libs.common.contracts.base import Event


class Step(StrEnum):
    """How far a probe has come; the furthest word counts, in whatever order they arrive."""

    WAITING = "waiting"
    """No machine could be asked for yet."""
    REQUESTED = "requested"
    RUNNING = "running"
    """The cloud shows it running."""
    ENROLLED = "enrolled"
    """Its agent has been heard of."""
    CONTACTED = "contacted"
    """Its BOINC client has asked its account manager."""
    ATTACHED = "attached"
    """A project has taken it: it passed."""
    ENDED = "ended"
    """The machine is gone, or can never be made: it failed."""
    CLOSED = "closed"
    """Registry has ended it: how it went is the reason."""


ORDER: dict[str, int] = {step.value: rank for rank, step in enumerate(Step)}
"""By word; a word that is not in it was added later and moves nothing."""


class ProbeFact(Event):
    """A probe has come further, or there is another reason why it does not."""

    probe_id: UUID
    resource_id: UUID
    machine_id: UUID | None = None
    """None: there is none yet."""
    step: str
    """One of Step; words may be added."""
    reason: str = ""
    """In words: what it waits for, or why it ended."""

    @property
    def subject(self) -> str:
        return str(self.resource_id)


class ProbeMoved(ProbeFact):
    """By workload: up to the machine that runs."""

    key: ClassVar[str] = "action.probe_moved.v1"


class ProbeReported(ProbeFact):
    """By contribution: what was heard of the machine itself."""

    key: ClassVar[str] = "contribution.probe_reported.v1"
