"""The sweeper dares little: three strangers at most, and at most one in ten."""

import pytest

from services.workload.domain.sweep import is_too_many


@pytest.mark.parametrize(
    ("strangers", "known", "too_many"),
    [
        (0, 0, False),
        (1, 0, True),
        (1, 9, True),
        (1, 10, False),
        (3, 30, False),
        (3, 29, True),
        (4, 1000, True),
    ],
)
def test_more_than_three_or_more_than_one_in_ten_are_too_many(
    strangers: int, known: int, too_many: bool
) -> None:
    assert is_too_many(strangers, known) is too_many
