"""When a cloud counts as away, when it is back, and what stands in for it meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

AWAY_AFTER = timedelta(minutes=10)
"""So long it must have given no good answer."""
BACK_AFTER = timedelta(minutes=5)
"""So long it must have answered again, without a failure in between."""
TRIED_WITHIN = timedelta(minutes=1)
"""A failure whose next try is longer overdue than this says nothing of now: nobody has asked since."""
UNTRIED_FOR = timedelta(minutes=5)
"""A failure whose next try was overdue for so long is no part of what fails now: nobody was there to ask."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a cloud counts as away."""

    away_since: datetime | None = None
    well_since: datetime | None = None
    """Since when one that is away answers again."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of how a cloud answers."""

    failing_since: datetime | None
    """None: its last answer was good."""
    retry_at: datetime | None


def judge(known: Standing, seen: Seen, now: datetime) -> Standing:
    """Whether it is away now. Either way takes its time, so that nothing goes to and fro."""
    if known.away_since is None:
        asked = seen.retry_at is not None and seen.retry_at >= now - TRIED_WITHIN
        is_gone = seen.failing_since is not None and now - seen.failing_since >= AWAY_AFTER
        return Standing(away_since=now) if asked and is_gone else known
    if seen.failing_since is not None:
        return replace(known, well_since=None)
    if known.well_since is None:
        return replace(known, well_since=now)
    return Standing() if now - known.well_since >= BACK_AFTER else known


def is_past(seen: Seen, now: datetime) -> bool:
    """Whether what failed is over where nobody asks any more; whoever has just stopped asking sees it for a while."""
    return seen.failing_since is not None and now - seen.failing_since >= AWAY_AFTER


@dataclass(frozen=True, slots=True)
class Able:
    """A resource that may stand in, or be stood in for."""

    organisation_id: UUID
    is_away: bool
    lends: bool
    stand_in_id: UUID | None


def choose(resource_id: UUID, known: Mapping[UUID, Able]) -> UUID | None:
    """What stands in for a lent resource now: the one that it names, where that one lends, is no other's and not away.

    A stand-in is never stood in for by a third: its owner named it for the first one alone.
    """
    one = known.get(resource_id)
    if one is None or one.stand_in_id is None or not (one.is_away and one.lends):
        return None
    other = known.get(one.stand_in_id)
    if other is None or other.is_away or not other.lends or other.organisation_id != one.organisation_id:
        return None
    return one.stand_in_id
