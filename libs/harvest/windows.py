"""Weekly stretches, in the operator's time zone, in which lending is allowed."""

from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from libs.harvest.types import Policy, Window

_SUNDAY = 6


def is_open(policy: Policy, now: datetime) -> bool:
    """Whether lending is allowed at `now` (aware). No windows: always; a time that cannot be placed: not."""
    if not policy.windows:
        return True
    try:
        local = now.astimezone(ZoneInfo(policy.time_zone))
    except (KeyError, ValueError, OSError, OverflowError):
        return False
    today, yesterday = _day(policy, local.date()), _day(policy, _before(local.date()))
    return any(_covers(window, local.time(), today, yesterday) for window in policy.windows)


def _day(policy: Policy, day: date) -> int:
    """The day of the week that a date counts as: a holiday is a Sunday."""
    return _SUNDAY if day in policy.holidays else day.weekday()


def _before(today: date) -> date:
    return today if today == date.min else today - timedelta(days=1)


def _covers(window: Window, clock: time, today: int, yesterday: int) -> bool:
    """By the wall clock: a window belongs to the day on which it begins."""
    if window.start < window.end:
        return today in window.days and window.start <= clock < window.end
    return (today in window.days and clock >= window.start) or (
        yesterday in window.days and clock < window.end
    )
