"""What a machine was attached to, against what is lent now: how soon and why it goes."""

from uuid import UUID

import pytest

from services.workload.domain.attached import (
    MANAGER,
    Lent,
    Urgency,
    by_files,
    joined,
    key_id,
    why_outdated,
)

A, B = "https://a.example/", "https://b.example/"
KEY = "17_a2d3122f4a70a8a03d05fef689443657"
OLD, NEW = key_id(UUID(int=1), KEY), key_id(UUID(int=1), KEY[:-1] + "0")


def files(*lent: tuple[str, float, str | None]) -> dict[str, object]:
    return by_files([Lent(*each) for each in lent])


def test_a_key_stands_there_by_an_id_that_tells_nothing_of_it() -> None:
    assert KEY not in str(files((A, 1.0, OLD)))
    assert OLD != NEW
    assert key_id(UUID(int=2), KEY) != OLD


@pytest.mark.parametrize(
    "now",
    [
        files((A, 2.0, OLD), (B, 4.0, NEW)),
        files((B, 20.0, NEW), (A, 10.0, OLD)),
        files((A, 1.0, None), (B, 2.0, NEW)),
    ],
)
def test_order_scale_and_what_cannot_be_read_make_no_difference(now: dict[str, object]) -> None:
    assert why_outdated(files((A, 1.0, OLD), (B, 2.0, NEW)), now) is None


@pytest.mark.parametrize(
    ("was", "now", "urgency", "why"),
    [
        (files((A, 1, OLD), (B, 1, OLD)), files((A, 1, OLD)), Urgency.AT_ONCE, B),
        (files((A, 1, OLD)), files(), Urgency.AT_ONCE, A),
        (files((A, 1, OLD)), files((A, 1, NEW)), Urgency.GRADUALLY, "key"),
        (files((A, 1, OLD)), files((A, 1, OLD), (B, 1, OLD)), Urgency.GRADUALLY, B),
        (files((A, 1, OLD), (B, 1, OLD)), files((A, 1, OLD), (B, 3, OLD)), Urgency.GRADUALLY, "shares"),
        (None, files((A, 1, OLD)), Urgency.GRADUALLY, "not known"),
        (files((A, 1, OLD)), MANAGER, Urgency.GRADUALLY, "account manager"),
        (MANAGER, files((A, 1, OLD)), Urgency.GRADUALLY, "files"),
        (
            joined(files((A, 1, OLD)), files((A, 1, NEW))),
            files((A, 1, NEW)),
            Urgency.GRADUALLY,
            "while it was made",
        ),
        (joined(files((A, 1, OLD)), files((B, 1, NEW))), files((B, 1, NEW)), Urgency.AT_ONCE, A),
    ],
)
def test_what_differs_says_so(
    was: dict[str, object] | None, now: dict[str, object], urgency: Urgency, why: str
) -> None:
    found = why_outdated(was, now)
    assert found is not None
    assert found.urgency is urgency
    assert why in found.why


def test_what_a_cloud_that_is_back_had_lent_is_taken_away_in_turn_where_a_machine_works_for_others_too() -> (
    None
):
    for was, now, stood_in, urgency in (
        (files((A, 1, OLD), (B, 1, OLD)), files((A, 1, OLD)), {B}, Urgency.GRADUALLY),
        (files((A, 1, OLD), (B, 1, OLD)), files((A, 1, OLD)), {A}, Urgency.AT_ONCE),
        (files((B, 1, OLD)), files((A, 1, OLD)), {B}, Urgency.AT_ONCE),
        (files((B, 1, OLD)), files(), {B}, Urgency.AT_ONCE),
    ):
        found = why_outdated(was, now, stood_in)
        assert found is not None
        assert (found.urgency, B in found.why) == (urgency, True)


def test_the_account_managers_machines_follow_by_themselves() -> None:
    assert why_outdated(MANAGER, MANAGER) is None
    assert why_outdated(None, MANAGER) is None


def test_asked_for_again_with_the_same_it_stays_the_same() -> None:
    once = joined(None, files((A, 1, OLD)))
    assert joined(once, files((A, 3, OLD))) == once == files((A, 1, OLD))
