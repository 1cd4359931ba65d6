"""What may be lent on one host."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from libs.common.contracts.usage import HostState, Quality
from libs.harvest.types import ReasonCode, Rung
from tests.unit.harvest.story import (
    CAPACITY_MHZ,
    FLOOR_MHZ,
    POLICY,
    Story,
    budgets,
    machine,
)

CALM = replace(POLICY, sigma=0.0, rise_s=0.0)
"""No spread and no slow rise: the arithmetic shows."""


@pytest.mark.parametrize(
    ("owner", "share"),
    [
        (0.0, 0.88),  # target 90 % less margin 2 %
        (0.3, 0.58),
        (0.6, 0.28),
        (0.79, 0.09),
        (0.81, 0.0),  # 7 % would be left: below the useful share
        (0.95, 0.0),
    ],
)
def test_a_budget_is_target_less_margin_less_owner(owner: float, share: float) -> None:
    story = Story(replace(CALM, cpu=replace(POLICY.cpu, reclaim=0.99)))
    decision = story.hear_for(100, [owner])
    assert budgets(decision)["a"] == pytest.approx(share * CAPACITY_MHZ, abs=CAPACITY_MHZ * 0.0101)
    assert budgets(decision)["a"] <= share * CAPACITY_MHZ


def test_spread_of_the_owner_is_kept_free() -> None:
    steady, nervous = Story(replace(POLICY, rise_s=0.0)), Story(replace(POLICY, rise_s=0.0))
    for _ in range(40):
        steady.hear([0.3])
        nervous.hear([0.2])
        nervous.hear([0.4])
    assert budgets(nervous.hear([0.3]))["a"] < budgets(steady.hear([0.3]))["a"]


def test_ours_is_not_the_owners_load() -> None:
    lent, alone = Story(CALM), Story(CALM)
    assert budgets(lent.hear_for(100, [0.2], ours=[0.6])) == budgets(alone.hear_for(100, [0.2]))


def test_turbo_above_capacity_counts_as_full() -> None:
    story = Story(CALM)
    story.hear_for(100, [0.1])
    decision = story.hear([1.2])
    assert budgets(decision) == {"a": 0.0}
    assert decision.budgets[0].owner_mhz == CAPACITY_MHZ


def test_max_share_bounds_a_budget_and_even_the_floor() -> None:
    story = Story(replace(CALM, max_share=0.1), machines=(machine("m", "a"),))
    assert budgets(story.hear_for(100, [0.0])) == {"a": 0.1 * CAPACITY_MHZ}
    nothing = Story(replace(CALM, max_share=0.0), machines=(machine("m", "a"),))
    decision = nothing.hear_for(100, [0.0])
    assert budgets(decision) == {"a": 0.0}
    assert decision.running == 0


def test_a_budget_falls_at_once_and_rests_before_it_rises() -> None:
    story = Story(replace(POLICY, sigma=0.0, rise_s=300.0))
    high = budgets(story.hear_for(400, [0.2]))["a"]
    low = budgets(story.hear([0.6]))["a"]
    assert low <= 0.28 * CAPACITY_MHZ < high
    rests = [budgets(story.hear([0.2]))["a"] for _ in range(14)]
    assert set(rests) == {low}, "280 s are not yet 300"
    assert budgets(story.hear([0.2]))["a"] > 0.5 * CAPACITY_MHZ


def test_a_resting_budget_still_falls_at_once() -> None:
    story = Story(replace(POLICY, sigma=0.0, rise_s=300.0))
    story.hear_for(400, [0.2])
    low = budgets(story.hear([0.5]))["a"]
    assert budgets(story.hear([0.7]))["a"] < low


def test_an_owner_who_comes_and_goes_costs_few_changes() -> None:
    story = Story(replace(POLICY, sigma=0.0, rise_s=300.0))
    story.hear_for(400, [0.2])
    hour = [budgets(story.hear([0.2 + 0.3 * (tick % 2)]))["a"] for tick in range(180)]
    assert sum(before != after for before, after in pairwise(hour)) <= 24


def test_a_small_rise_is_not_worth_a_task() -> None:
    story = Story(CALM)
    story.hear_for(6000, [0.30])
    held = budgets(story.hear([0.31]))["a"]
    assert budgets(story.hear_for(6000, [0.30]))["a"] == held
    assert budgets(story.hear_for(6000, [0.20]))["a"] > held


def test_the_more_changes_there_were_the_more_a_rise_must_bring() -> None:
    keen = replace(CALM, dead_band=0.01)
    rested, restless = Story(keen), Story(keen)
    for story in (rested, restless):
        story.hear_for(6000, [0.30])
    for _ in range(4):
        rested.hear([0.30])
        restless.hear([0.40])
        restless.hear_for(80, [0.30])
    rested.hear([0.40])
    low = budgets(rested.decisions[-1])["a"]
    assert budgets(rested.hear_for(600, [0.37]))["a"] > low
    owed = dict(restless.state.hosts)["a"]
    assert owed.owed_s > 900
    low = budgets(restless.decisions[-1])["a"]
    assert budgets(restless.hear([0.28]))["a"] == low


def test_a_fresh_look_amid_an_interval_takes_no_more_than_what_must_go() -> None:
    story = Story(replace(CALM, sigma=4.0))
    before = budgets(story.hear_for(600, [0.4]))["a"]
    assert budgets(story.hear([0.41], quality=Quality.BACKFILLED))["a"] == before
    cut = budgets(story.hear([0.6], quality=Quality.BACKFILLED))["a"]
    assert cut == math.floor((0.88 - 0.6) * CAPACITY_MHZ)
    assert budgets(story.hear([0.6]))["a"] < cut, "a whole interval keeps the owner's spread free as well"


def test_noise_within_a_percent_changes_no_budget() -> None:
    story = Story(CALM)
    story.hear_for(6000, [0.305])
    changes = {budgets(story.hear([owner]))["a"] for _ in range(20) for owner in (0.302, 0.309, 0.305)}
    assert len(changes) <= 2


@pytest.mark.parametrize(("reclaim", "owner"), [(0.8, 0.85), (0.66, 0.66)])
def test_a_host_in_reclaim_keeps_only_its_floor_at_once(reclaim: float, owner: float) -> None:
    policy = replace(CALM, cpu=replace(POLICY.cpu, reclaim=reclaim))
    story = Story(policy, machines=(machine("m", "a"), machine("n", "b")))
    story.hear_for(200, [0.1, 0.1])
    decision = story.hear([owner, 0.1])
    assert budgets(decision)["a"] == FLOOR_MHZ
    assert budgets(decision)["b"] > 10 * FLOOR_MHZ
    assert (decision.reason.code, decision.reason.host) == (ReasonCode.OWNER_CPU, "a")


def test_hosts_that_are_not_connected_get_nothing() -> None:
    story = Story(CALM, machines=(machine("n", "a"), machine("m", "b")))
    story.hear_for(200, [0.1, 0.1, 0.1])
    states = (HostState.MAINTENANCE, HostState.CONNECTED, HostState.FAILED)
    decision = story.hear([0.0, 0.1, 0.0], states=states)
    assert {host for host, budget in budgets(decision).items() if budget} == {"b"}
    assert decision.running == 1
    assert decision.victims == ("n", "m")


def test_no_host_connected_is_no_verdict() -> None:
    story = Story(CALM)
    story.hear_for(200, [0.1, 0.1])
    decision = story.hear([0.0, 0.0], states=(HostState.STANDBY, HostState.MAINTENANCE))
    assert decision.cap_mhz == 0
    assert decision.rung is Rung.NO_NEW
    assert decision.reason.code is ReasonCode.HOSTS


def test_the_cap_is_the_sum_of_the_budgets() -> None:
    decision = Story(CALM).hear_for(100, [0.1, 0.4, 0.9])
    assert decision.cap_mhz == sum(budgets(decision).values()) > 0
    assert math.isfinite(decision.cap_mhz)


def test_back_filled_history_lowers_and_never_raises() -> None:
    story = Story(replace(CALM, sigma=1.0))
    before = budgets(story.hear_for(400, [0.4]))["a"]
    assert budgets(story.hear([0.1], quality=Quality.BACKFILLED))["a"] == before
    assert budgets(story.hear([0.7], quality=Quality.BACKFILLED))["a"] < before


def test_a_machine_without_a_host_belongs_to_the_only_host() -> None:
    story = Story(CALM, machines=(machine("m", None),))
    assert budgets(story.hear([0.95])) == {"a": FLOOR_MHZ}


def test_a_cut_goes_deeper_than_it_must_so_that_a_slow_rise_is_few_tasks() -> None:
    story = Story(CALM)
    story.hear_for(400, [0.2])
    hour = [budgets(story.hear([0.2 + 0.2 * tick / 180]))["a"] for tick in range(180)]
    assert sum(before != after for before, after in pairwise(hour)) <= 12


RESTLESS = [0.1, 0.5, 0.3, 0.7] * 1080
"""A day."""


def test_a_restless_owner_gets_cuts_at_once_and_no_more_changes_than_are_allowed() -> None:
    story = Story(replace(CALM, dead_band=0.0, rise_s=20.0))
    story.hear_for(100, [0.1])
    told = [story.hear([owner]) for owner in RESTLESS]
    day = [budgets(decision)["a"] for decision in told]
    changes = sum(before != after for before, after in pairwise(day))
    assert 24 * 10 <= changes <= 24 * 12
    for decision, owner in zip(told, RESTLESS, strict=True):
        assert budgets(decision)["a"] <= (0.88 - owner) * CAPACITY_MHZ


def test_a_fall_to_the_floor_in_silence_counts_as_a_change() -> None:
    story = Story(CALM, machines=(machine("m", "a"),))
    story.hear_for(400, [0.2])
    before = dict(story.state.hosts)["a"].owed_s
    story.miss(100)
    assert dict(story.state.hosts)["a"].owed_s == before + 325
    story.miss(100)
    assert dict(story.state.hosts)["a"].owed_s == before + 325


def test_changes_are_made_up_for_in_gaps_too() -> None:
    story = Story(CALM, machines=(machine("m", "a"),))
    for _ in range(12):
        before = story.hear_for(300, [0.2])
        story.miss(3300)
    assert min(budgets(before).values()) > 0.5 * CAPACITY_MHZ
