"""Weekly stretches, in the operator's time zone, in which lending is allowed."""

from datetime import datetime
from zoneinfo import ZoneInfo

from libs.harvest.types import Policy, Window


def is_open(policy: Policy, now: datetime) -> bool:
    """Whether lending is allowed at `now` (aware). No windows: always; a time that cannot be placed: not."""
    if not policy.windows:
        return True
    try:
        local = now.astimezone(ZoneInfo(policy.time_zone))
    except (KeyError, ValueError, OSError, OverflowError):
        return False
    return any(_covers(window, local) for window in policy.windows)


def _covers(window: Window, local: datetime) -> bool:
    """By the wall clock: a window belongs to the day on which it begins."""
    today, yesterday = local.weekday(), (local.weekday() - 1) % 7
    clock = local.time()
    if window.start < window.end:
        return today in window.days and window.start <= clock < window.end
    return (today in window.days and clock >= window.start) or (
        yesterday in window.days and clock < window.end
    )
