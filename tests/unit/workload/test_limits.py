"""Sharing a host's budget: the sum never exceeds it, and nobody is ever unlimited."""

from hypothesis import given
from hypothesis import strategies as st

from services.workload.domain.limits import (
    FASTEST_CORE_MHZ,
    LOWEST_MHZ,
    Limited,
    differs,
    must_be_told,
    share_budgets,
    throttle_percent,
)

HOSTS = st.sampled_from(["h1", "h2", "h3"])
MACHINES = st.lists(
    st.builds(Limited, st.uuids().map(str), st.one_of(st.none(), HOSTS), st.integers(1, 64), st.booleans()),
    max_size=12,
)
BUDGETS = st.dictionaries(HOSTS, st.floats(0, 200_000), max_size=3)


@given(BUDGETS, MACHINES)
def test_the_limits_of_a_host_never_exceed_its_budget(
    budgets: dict[str, float], machines: list[Limited]
) -> None:
    limits = share_budgets(budgets, machines, 200.0)

    for host, budget in budgets.items():
        there = [machine for machine in machines if machine.host == host]
        assert sum(limits[machine.name] for machine in there) <= max(budget, LOWEST_MHZ * len(there)) + 1e-6


@given(BUDGETS, MACHINES)
def test_every_machine_has_a_limit_of_at_least_one_mhz(
    budgets: dict[str, float], machines: list[Limited]
) -> None:
    limits = share_budgets(budgets, machines, 200.0)

    assert set(limits) == {machine.name for machine in machines}
    assert all(limit >= LOWEST_MHZ and limit == int(limit) for limit in limits.values())


@given(BUDGETS, MACHINES)
def test_what_should_not_be_there_any_more_never_gets_above_the_floor(
    budgets: dict[str, float], machines: list[Limited]
) -> None:
    limits = share_budgets(budgets, machines, 200.0)

    assert all(limits[machine.name] <= 200.0 * machine.vcpus for machine in machines if not machine.lends)


def test_what_should_not_be_there_any_more_takes_its_floor_from_what_the_others_share() -> None:
    machines = [Limited("stays", "h1", 4), Limited("goes", "h1", 4, lends=False)]

    assert share_budgets({"h1": 9000.0}, machines, 200.0) == {"stays": 8200.0, "goes": 800.0}


def test_what_falls_asleep_keeps_the_floor_until_it_sleeps() -> None:
    dozing = Limited("dozing", "h1", 4, dozes=True)
    assert share_budgets({"h1": 0.0}, [dozing, Limited("asleep", "h1", 4)], 200.0) == {
        "dozing": 800.0,
        "asleep": LOWEST_MHZ,
    }


@given(st.sampled_from([float("nan"), float("inf")]))
def test_a_budget_that_is_no_number_limits_to_the_least(budget: float) -> None:
    assert share_budgets({"h1": budget}, [Limited("m", "h1", 2)], 200.0) == {"m": LOWEST_MHZ}


def test_a_wider_machine_gets_more() -> None:
    limits = share_budgets({"h1": 9000.0}, [Limited("narrow", "h1", 1), Limited("wide", "h1", 2)], 200.0)

    assert limits == {"narrow": 3000.0, "wide": 6000.0}


def test_a_machine_on_an_unknown_host_gets_the_floor() -> None:
    assert share_budgets({"h1": 9000.0}, [Limited("m", None, 4)], 200.0) == {"m": 800.0}


def test_no_limit_at_all_always_differs() -> None:
    assert differs(400.0, None)
    assert not differs(400.0, 400.4)
    assert differs(400.0, 500.0)


@given(st.floats(allow_nan=True, allow_infinity=True), st.integers(0, 256), st.none() | st.floats(0, 1e5))
def test_a_guest_never_uses_more_than_its_limit(mhz: float, vcpus: int, core_mhz: float | None) -> None:
    percent = throttle_percent(mhz, vcpus, core_mhz)
    assert 0 <= percent <= 100
    whole_mhz = max(1, vcpus) * (core_mhz or FASTEST_CORE_MHZ)
    assert percent == 0 or percent / 100 * whole_mhz <= mhz * (1 + 1e-9)


def test_a_guest_is_told_of_every_cut_and_of_a_rise_that_is_worth_it() -> None:
    assert must_be_told(40, None)
    assert must_be_told(39, 40)
    assert not must_be_told(40, 40)
    assert not must_be_told(41, 40)
    assert must_be_told(42, 40)
    assert must_be_told(100, 99)
