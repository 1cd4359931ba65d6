"""What is said of an image that is being made from another: one machine installs, turns off and becomes a template."""

from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from pydantic import AwareDatetime

from libs.common.contracts.base import Event, StateEvent


class Step(StrEnum):
    """How far a derivation has come."""

    WAITING = "waiting"
    """No machine could be asked for yet."""
    REQUESTED = "requested"
    RUNNING = "running"
    """The cloud shows it running: it installs."""
    MADE = "made"
    """It is a template."""
    ENDED = "ended"
    """The machine is gone, or can never be made: it failed."""


class DerivationChanged(StateEvent):
    """A version that is to be made from another, whole: what goes into it, until when, and how it ended."""

    key: ClassVar[str] = "template.derivation_changed.v1"

    derivation_id: UUID
    """The version that comes of it has the same id."""
    organisation_id: UUID
    resource_id: UUID
    version_id: UUID
    """What it is made from."""
    name: str
    version: int
    """Of that."""
    components: tuple[str, ...]
    """What is put in: boinc, agent, ca; words may be added."""
    ca_pem: str | None = None
    proxy: str | None = None
    """HOST:PORT, the way out while it is made."""
    until: AwareDatetime
    """When it has failed if it is not done."""
    over: bool = False
    kept: bool = False
    """Over, and its template is a version: it stays until that is revoked. Else nothing of it may be left."""
    outcome: str = ""
    """In words, when it is over."""

    @property
    def subject(self) -> str:
        return str(self.derivation_id)


class DerivationMoved(Event):
    """A derivation has come further, or there is another reason why it does not. Said by workload."""

    key: ClassVar[str] = "action.derivation_moved.v1"

    derivation_id: UUID
    resource_id: UUID
    machine_id: UUID | None = None
    """None: there is none yet."""
    step: str
    """One of Step; words may be added."""
    reason: str = ""
    """In words: what it waits for, or why it ended."""
    reference: str | None = None
    """What the driver finds the template by, when it is made."""
    disk_gib: float | None = None
    guest_os: str = ""

    @property
    def subject(self) -> str:
        return str(self.resource_id)
