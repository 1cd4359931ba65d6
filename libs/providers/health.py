"""How well a cloud answers a service: the circuit breaker that back-off makes, for people, programs and alarms.

Closed: it answers. Open: it failed, and is left alone until the next try. Half open: the next try is due or under way;
it closes the circuit or opens it again for longer.
"""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel

from libs.common.figures import Gauge


class Circuit(StrEnum):
    """States of a circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Health(BaseModel):
    """How well a cloud answers."""

    state: Circuit
    failures: int
    """In a row."""
    cause: str | None
    """Of the newest failure, in a driver's words; null while the circuit is closed."""
    detail: str | None
    """What the cloud said."""
    since: datetime | None
    """When the first of these failures was."""
    next_try_at: datetime | None


CIRCUIT = Gauge(
    "tides_provider_circuit",
    "1 for the state in which a service's circuit breaker to a cloud is, with the cause of the newest failure.",
    ("resource", "state", "cause"),
)


def judge(failures: int, retry_at: datetime | None, now: datetime) -> Circuit:
    """The state after so many failures in a row, where the next try is not before `retry_at`."""
    if failures == 0:
        return Circuit.CLOSED
    return Circuit.OPEN if retry_at is not None and retry_at > now else Circuit.HALF_OPEN


def health(
    *,
    failures: int,
    retry_at: datetime | None,
    since: datetime | None,
    cause: str | None,
    detail: str | None,
    now: datetime,
) -> Health:
    """What is told of a cloud; a closed circuit says nothing of the past."""
    state = judge(failures, retry_at, now)
    if state is Circuit.CLOSED:
        return Health(state=state, failures=0, cause=None, detail=None, since=None, next_try_at=None)
    return Health(
        state=state, failures=failures, cause=cause, detail=detail, since=since, next_try_at=retry_at
    )
