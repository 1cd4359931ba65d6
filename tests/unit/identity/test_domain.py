"""Lock-out and passwords, without a database."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import personal_tokens
from services.identity.domain import (
    LOCKED_FOR,
    MAX_ATTEMPTS,
    WINDOW,
    Attempts,
    count_attempt,
    is_valid,
    why_not_password,
)

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def test_the_fifth_attempt_is_looked_at_and_the_sixth_is_not() -> None:
    attempts: Attempts | None = None
    for _ in range(MAX_ATTEMPTS):
        assert attempts is None or not attempts.is_locked(NOW)
        attempts = count_attempt(attempts, NOW)
    assert attempts is not None
    assert attempts.is_locked(NOW)
    assert not attempts.is_locked(NOW + LOCKED_FOR)
    assert count_attempt(attempts, NOW + LOCKED_FOR) == Attempts(1, NOW + LOCKED_FOR)


def test_attempts_of_another_window_do_not_count() -> None:
    assert count_attempt(Attempts(4, NOW), NOW + WINDOW) == Attempts(1, NOW + WINDOW)


@given(st.lists(st.integers(min_value=0, max_value=1200), max_size=60))
def test_no_pattern_of_guesses_gets_more_than_five_looks_in_any_lock_and_window(gaps_s: list[int]) -> None:
    attempts: Attempts | None = None
    now, looks = NOW, []
    for gap_s in gaps_s:
        now += timedelta(seconds=gap_s)
        if attempts is None or not attempts.is_locked(now):
            looks.append(now)
        attempts = count_attempt(attempts, now)
    for first, sixth in zip(looks, looks[2 * MAX_ATTEMPTS - 1 :], strict=False):
        assert sixth - first >= min(WINDOW, LOCKED_FOR)


@pytest.mark.parametrize(
    "password", ["", "short", "x" * 300, "abababababab", "Administrator", "administratoradministrator"]
)
def test_weak_passwords_have_a_reason(password: str) -> None:
    assert why_not_password(password, "administrator")


def test_a_long_password_is_good() -> None:
    assert why_not_password("correct horse battery", "admin") is None


def test_a_token_is_valid_until_it_ends_or_is_revoked() -> None:
    assert is_valid(NOW + timedelta(seconds=1), None, NOW)
    assert not is_valid(NOW, None, NOW)
    assert not is_valid(NOW + timedelta(days=1), NOW, NOW)


def test_personal_tokens_have_256_bits_and_one_form() -> None:
    text = personal_tokens.fresh()
    parsed = personal_tokens.parse(text)
    assert parsed is not None
    assert len(parsed[1]) == 43
    assert personal_tokens.matches(parsed[1], personal_tokens.digest(parsed[1]))
    assert not personal_tokens.matches(parsed[1][::-1], personal_tokens.digest(parsed[1]))
    for odd in ("", text[:-1], f"{text}x", f"{text}\n", text.upper(), text.replace("tides", "ebbs")):
        assert personal_tokens.parse(odd) is None
