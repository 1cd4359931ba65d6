"""Weekly stretches in the operator's time zone."""

from dataclasses import replace
from datetime import UTC, date, datetime, time

import pytest

from libs.harvest.types import Window
from libs.harvest.windows import is_open
from tests.unit.harvest.story import POLICY, START

NIGHTS = Window(frozenset(range(5)), time(18), time(6))
LUNCH = Window(frozenset({0, 2}), time(12), time(13))


@pytest.mark.parametrize(
    ("windows", "moment", "open_"),
    [
        ((), "2026-03-02T03:00", True),
        ((LUNCH,), "2026-03-02T12:00", True),  # Monday
        ((LUNCH,), "2026-03-02T12:59:59", True),
        ((LUNCH,), "2026-03-02T13:00", False),
        ((LUNCH,), "2026-03-03T12:30", False),
        ((LUNCH, NIGHTS), "2026-03-03T20:00", True),
        ((NIGHTS,), "2026-03-02T17:59", False),
        ((NIGHTS,), "2026-03-02T05:00", False),  # Sunday's night is not lent
        ((NIGHTS,), "2026-03-03T05:59", True),
        ((NIGHTS,), "2026-03-07T05:59", True),  # Friday's night ends on Saturday
        ((NIGHTS,), "2026-03-07T20:00", False),
        ((Window(frozenset({0}), time(0), time(0)),), "2026-03-02T23:59", True),
        ((Window(frozenset({0}), time(0), time(0)),), "2026-03-03T00:00", False),
    ],
)
def test_windows_in_utc(windows: tuple[Window, ...], moment: str, open_: bool) -> None:
    now = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    assert is_open(replace(POLICY, windows=windows), now) is open_


def test_windows_follow_the_wall_clock_of_the_zone_through_summer_time() -> None:
    policy = replace(POLICY, windows=(LUNCH,), time_zone="Europe/Zurich")
    assert is_open(policy, datetime(2026, 3, 23, 11, 30, tzinfo=UTC))
    assert not is_open(policy, datetime(2026, 3, 30, 11, 30, tzinfo=UTC))
    assert is_open(policy, datetime(2026, 3, 30, 10, 30, tzinfo=UTC))


def test_a_time_that_cannot_be_placed_is_closed() -> None:
    assert not is_open(replace(POLICY, windows=(LUNCH,), time_zone="Atlantis/Deep"), START)
    edge = datetime(9999, 12, 31, 23, tzinfo=UTC)
    assert not is_open(replace(POLICY, windows=(LUNCH,), time_zone="Pacific/Auckland"), edge)


def test_a_holiday_is_a_sunday_and_so_is_the_night_after_it() -> None:
    sundays = Window(frozenset({6}), time(8), time(20))
    nights = Window(frozenset({6}), time(22), time(6))
    policy = replace(POLICY, windows=(sundays, nights), holidays=frozenset({date(2026, 12, 25)}))
    friday = datetime(2026, 12, 25, 12, tzinfo=UTC)
    assert is_open(policy, friday)
    assert not is_open(replace(policy, holidays=frozenset()), friday)
    assert is_open(policy, friday.replace(day=26, hour=3)), "the night that began on the holiday"
    assert not is_open(policy, friday.replace(day=26, hour=12))
    mondays = replace(policy, windows=(Window(frozenset({4}), time(0), time(23, 59)),))
    assert not is_open(mondays, friday), "what is meant for Fridays is not for a holiday"
