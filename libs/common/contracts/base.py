"""The shape of every event: an immutable fact with a key, an identity and a time."""

from typing import ClassVar, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from libs.common.ids import new_id


class Event(BaseModel):
    """A published fact. Additive-only: a new field has a default, a break is a new version beside the old.

    Floats pass NaN and infinity through the wire unchanged: judging an impossible measurement is the engine's task,
    losing it silently is nobody's.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    key: ClassVar[str]
    """`<noun>.<past_tense>.v<N>`, the routing key on the bus."""

    id: UUID = Field(default_factory=new_id)
    """Unique per fact; for a state event derived from subject and revision, so that a repeat is the same message."""
    at: AwareDatetime

    @property
    def subject(self) -> str:
        """What the fact is about; orders state events and names the row for a reader of the log."""
        raise NotImplementedError(self.key)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read the wire form. Raises pydantic.ValidationError on anything that is not this event."""
        return cls.model_validate_json(body)

    def encode(self) -> bytes:
        """Write the wire form (UTF-8 JSON)."""
        return self.model_dump_json().encode()


class StateEvent(Event):
    """Carries the whole of a thing; the highest revision wins, an older one is a no-op."""

    revision: int
    gone: bool = False
    """True in the last state of a thing: it no longer exists."""


def is_newer(event: StateEvent, known_revision: int | None) -> bool:
    """Whether a projection that knows `known_revision` should take this state."""
    return known_revision is None or event.revision > known_revision
