"""Quotas: nobody stays above one, and nothing fits that would break it."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from libs.harvest.quota import KINDS, Quota, keep_within, left_for, tightest, used_by


@dataclass(frozen=True)
class Size:
    vcpus: int
    memory_mib: int
    disk_gib: float


QUOTAS = st.builds(
    Quota,
    machines=st.one_of(st.none(), st.integers(0, 10)),
    vcpus=st.one_of(st.none(), st.integers(0, 40)),
    memory_mib=st.one_of(st.none(), st.integers(0, 40_000)),
    disk_gib=st.one_of(st.none(), st.floats(0, 500)),
)
SIZES = st.builds(Size, st.integers(1, 8), st.integers(128, 8192), st.floats(0.5, 100))


def is_within(quota: Quota, sizes: list[Size]) -> bool:
    return all(used_by(sizes, kind) <= most + 1e-6 for kind, most in quota.bounds())


@given(QUOTAS, st.lists(SIZES, max_size=12))
def test_who_stays_is_within_the_quota_in_the_order_given(quota: Quota, sizes: list[Size]) -> None:
    kept = keep_within(quota, sizes)

    assert is_within(quota, kept)
    places = iter(sizes)
    assert all(any(one is place for place in places) for one in kept), "in order, and nobody twice"
    if is_within(quota, sizes):
        assert kept == sizes


@given(QUOTAS, SIZES, st.integers(0, 12))
def test_of_equal_machines_the_first_stay(quota: Quota, size: Size, count: int) -> None:
    kept = keep_within(quota, [size] * count)

    assert len(kept) == count or not is_within(quota, [size] * (len(kept) + 1))


@given(QUOTAS, st.lists(SIZES, max_size=12), SIZES)
def test_as_many_more_fit_as_are_told_and_not_one_more(quota: Quota, there: list[Size], size: Size) -> None:
    left = left_for(quota, there, size)

    if left is None:
        assert list(quota.bounds()) == []
    elif is_within(quota, there):
        assert is_within(quota, [*there, *[size] * left.machines])
        assert left.kind in KINDS
    else:
        assert left.machines == 0
        assert left.used > left.most


@given(st.lists(QUOTAS, max_size=4), st.lists(SIZES, max_size=8))
def test_the_tightest_quota_holds_exactly_where_all_do(quotas: list[Quota], sizes: list[Size]) -> None:
    whole = tightest(quotas)

    assert all(is_within(quota, sizes) for quota in quotas) == (whole is None or is_within(whole, sizes))
