"""The circuit breaker that back-off makes, as it is told."""

from datetime import UTC, datetime, timedelta

from libs.providers.health import Circuit, health, judge

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=30)


def test_a_circuit_is_open_until_the_next_try_and_half_open_then() -> None:
    assert judge(0, None, NOW) is Circuit.CLOSED
    assert judge(0, LATER, NOW) is Circuit.CLOSED
    assert judge(3, LATER, NOW) is Circuit.OPEN
    assert judge(3, LATER, LATER) is Circuit.HALF_OPEN
    assert judge(3, None, NOW) is Circuit.HALF_OPEN


def test_a_closed_circuit_says_nothing_of_the_past() -> None:
    told = health(failures=0, retry_at=LATER, since=NOW, cause="auth", detail="no", now=NOW)
    assert (told.state, told.cause, told.detail, told.since, told.next_try_at) == ("closed", *[None] * 4)
    told = health(failures=2, retry_at=LATER, since=NOW, cause="auth", detail="no", now=NOW)
    assert (told.state, told.cause, told.since, told.next_try_at) == ("open", "auth", NOW, LATER)
