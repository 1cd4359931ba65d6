"""How long a cloud is left alone that refuses or does not answer."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from libs.providers.base import Cause, ProviderError, Rejected, Unavailable
from services.workload.models import Resource
from services.workload.usecases.leasing import back_off

START = datetime(2026, 11, 27, 12, tzinfo=UTC)


def tries(error: ProviderError, count: int = 12) -> list[datetime]:
    """When a resource is tried that always fails in this way."""
    resource, at = Resource(failures=0), [START]
    for _ in range(count):
        back_off(resource, error, at[-1])
        assert resource.retry_at is not None
        at.append(resource.retry_at)
    return at


def test_a_refused_password_is_tried_too_seldom_to_lock_the_account() -> None:
    """Two services try; five failures in three minutes are what a vCenter locks for."""
    at = tries(Rejected(Cause.AUTH, "wrong password"))
    assert max(sum(one <= other < one + timedelta(seconds=180) for other in at) for one in at) <= 2
    assert at[-1] - at[-2] == timedelta(seconds=900)


def test_what_failed_before_nobody_tried_for_an_hour_is_no_part_of_what_fails_now() -> None:
    """Else the first failure after workload was away itself would make a cloud count as away for an hour already."""
    resource, locked = Resource(failures=0), Rejected(Cause.AUTH, "wrong password")
    for _ in range(4):
        back_off(resource, locked, resource.retry_at or START)
        assert resource.failing_since == START, "however long it was left alone on purpose"
    assert resource.retry_at is not None
    later = resource.retry_at + timedelta(hours=1)
    back_off(resource, locked, later)
    assert resource.failing_since == later


def test_a_cloud_is_left_alone_for_as_long_as_it_asks_but_not_for_a_day() -> None:
    for told_s, paused_s in ((1.0, 2.0), (90.0, 90.0), (86_400.0, 300.0)):
        first, second = tries(Unavailable(Cause.UNREACHABLE, "503", told_s), count=1)
        assert (second - first).total_seconds() == paused_s


def test_an_outage_is_asked_after_ever_more_rarely_and_never_left_alone_for_long() -> None:
    for cause in (Cause.UNREACHABLE, Cause.AUTH):
        pauses = [
            (after - before).total_seconds() for before, after in pairwise(tries(Unavailable(cause, "")))
        ]
        assert pauses[:5] == [2, 4, 8, 16, 30]
        assert set(pauses[5:]) == {30}
