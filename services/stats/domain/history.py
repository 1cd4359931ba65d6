"""How a cluster's history is replayed, and what is said of it: pure, and without numpy."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

STEP_S = 300.0
STEPS_A_DAY = 288
MOST_DAYS = 92
MOST_HOST_DAYS = 20_000
"""As many hosts x days fit into one replay's memory and time."""
WHOLE = 10_000
"""Shares of a host travel as whole numbers out of this many."""
_ALMOST_ALL = 99.5


class State(StrEnum):
    """Where a backtest stands; the first two are open."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Actuator(StrEnum):
    """What a limit stands on; of libs.harvest.backtest, which is loaded only where a replay runs."""

    HOST = "host"
    CLUSTER = "cluster"


def stretch_of(now: datetime, days: int) -> tuple[datetime, datetime]:
    """The last so many days up to now, in whole steps."""
    until = now.astimezone(UTC)
    until -= timedelta(minutes=until.minute % 5, seconds=until.second, microseconds=until.microsecond)
    return until - timedelta(days=days), until


def tell(figures: Mapping[str, Any], days: int, covered_percent: float) -> str:
    """The figures as one sentence for whoever decides about the policy."""
    within = "day" if days == 1 else f"{days} days"
    hosts, minutes = _count(figures["hosts"], "host"), math.ceil(figures["above_90_minutes"])
    told = (
        f"With this policy you would have lent {figures['core_hours']:,.0f} core-hours in the last {within} on "
        f"{hosts}, with {_count(minutes, 'host-minute')} above 90 %"
    )
    if covered_percent >= _ALMOST_ALL:
        return f"{told}."
    return f"{told}; {covered_percent:.1f} % of that time was measured, the rest counts as nothing."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
