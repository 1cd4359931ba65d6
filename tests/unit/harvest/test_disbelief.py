"""Silence and figures that cannot be true: never taken for an idle owner."""

import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from libs.common.contracts.usage import HostState, Quality
from libs.harvest.budgets import UNKNOWN
from libs.harvest.decide import decide
from libs.harvest.types import Facts, HostMemory, Missing, ReasonCode, Rung, State, Verdict
from tests.unit.harvest.story import (
    CAPACITY_MHZ,
    FLOOR_MHZ,
    POLICY,
    START,
    Story,
    budgets,
    machine,
    sample,
)

CALM = replace(POLICY, sigma=0.0, rise_s=0.0)
FULL = CAPACITY_MHZ


def lending(**changes: Any) -> Story:
    """A cluster of two hosts that has lent for a while, a machine on each."""
    story = Story(replace(CALM, **changes), machines=(machine("m", "a"), machine("n", "b")))
    story.hear_for(400, [0.2, 0.2])
    assert min(budgets(story.decisions[-1]).values()) > 20 * FLOOR_MHZ
    return story


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"cpu_used_mhz": (-1.0, 8000.0)}, "negative"),
        ({"cpu_ours_mhz": (-1.0, 0.0)}, "negative"),
        ({"cpu_used_mhz": (math.nan, 8000.0)}, "not_a_number"),
        ({"cpu_used_mhz": (math.inf, 8000.0)}, "not_a_number"),
        ({"cpu_used_mhz": (None, 8000.0)}, "not_a_number"),
        ({"cpu_ours_mhz": (math.nan, 0.0)}, "not_a_number"),
        ({"cpu_capacity_mhz": (0.0, FULL)}, "capacity"),
        ({"cpu_capacity_mhz": (math.nan, FULL)}, "capacity"),
        ({"cpu_capacity_mhz": (-FULL, FULL)}, "capacity"),
        ({"cpu_capacity_mhz": (1e30, FULL)}, "capacity"),
        ({"cpu_ours_mhz": (8000.0 + 0.03 * FULL, 0.0)}, "ours_above_total"),
        ({"cpu_used_mhz": (5 * FULL, 0.0), "cpu_ours_mhz": (4.9 * FULL, 0.0)}, "above_capacity"),
    ],
)
def test_an_impossible_host_lends_its_floor_and_the_others_go_on(columns: dict[str, Any], what: str) -> None:
    story = lending()
    decision = story.hear([0.2, 0.2], **columns)
    assert budgets(decision)["a"] == FLOOR_MHZ
    assert budgets(decision)["b"] > 20 * FLOOR_MHZ
    assert (decision.reason.code, decision.reason.signal, decision.reason.host) == (
        ReasonCode.IMPOSSIBLE,
        what,
        "a",
    )
    assert budgets(story.hear_for(60, [0.2, 0.2]))["a"] > 20 * FLOOR_MHZ


def test_ours_a_little_above_the_total_is_rounding() -> None:
    story = lending()
    decision = story.hear([0.0, 0.2], cpu_ours_mhz=(0.01 * FULL, 0.0))
    assert decision.budgets[0].owner_mhz == 0
    assert decision.budgets[0].budget_mhz > 20 * FLOOR_MHZ


def test_an_impossible_host_counts_as_full_in_the_verdict() -> None:
    story = lending()
    assert story.hear([0.7, 0.2]).verdict is not Verdict.STOP_NEW
    decision = story.hear([0.7, 0.4], cpu_used_mhz=(math.nan, 0.4 * FULL))
    assert decision.verdict is Verdict.STOP_NEW


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"cpu_used_mhz": (1.0,)}, ReasonCode.IMPOSSIBLE),
        ({"machines": ()}, ReasonCode.IMPOSSIBLE),
        ({"interval_s": math.nan}, ReasonCode.IMPOSSIBLE),
        ({"interval_s": 0.0}, ReasonCode.IMPOSSIBLE),
        ({"hosts": ("a", "a")}, ReasonCode.IMPOSSIBLE),
        ({"at": START + timedelta(seconds=481)}, ReasonCode.IMPOSSIBLE),
        (
            {
                name: ()
                for name in (
                    "hosts", "host_names", "states", "cpu_capacity_mhz", "cpu_used_mhz", "cpu_ours_mhz",
                    "cpu_limit_mhz", "memory_capacity_mib", "memory_used_mib", "memory_ours_mib",
                    "contention_percent", "machines",
                )
            },
            ReasonCode.HOSTS,
        ),
    ],
)  # fmt: skip
def test_an_impossible_sample_brings_every_budget_to_the_floor(
    columns: dict[str, Any], code: ReasonCode
) -> None:
    story = lending()
    decision = story.observe(replace(sample([0.2, 0.2], at=story.at + timedelta(seconds=20)), **columns))
    assert budgets(decision) == {"a": FLOOR_MHZ, "b": FLOOR_MHZ}
    assert (decision.verdict, decision.rung) == (Verdict.UNKNOWN, Rung.NO_NEW)
    assert decision.placements == ()
    assert decision.reason.code is code


def test_a_sample_from_the_future_does_not_shut_out_those_after_it() -> None:
    story = lending()
    story.observe(sample([0.2, 0.2], at=story.at + timedelta(days=400)))
    assert budgets(story.hear_for(100, [0.2, 0.2]))["a"] > 20 * FLOOR_MHZ


def test_a_stale_sample_is_silence() -> None:
    story = lending()
    story.at += timedelta(seconds=120)
    decision = story.observe(sample([0.0, 0.0], at=story.at - timedelta(seconds=61)))
    assert budgets(decision) == {"a": FLOOR_MHZ, "b": FLOOR_MHZ}
    assert decision.reason.code is ReasonCode.STALE


def test_a_short_gap_keeps_the_budgets_and_a_long_one_brings_the_floor() -> None:
    story = lending()
    before = budgets(story.decisions[-1])
    assert budgets(story.miss(60)) == before
    decision = story.miss(1)
    assert budgets(decision) == {"a": FLOOR_MHZ, "b": FLOOR_MHZ}
    assert (decision.verdict, decision.rung) == (Verdict.UNKNOWN, Rung.NO_NEW)
    assert (decision.reason.code, decision.reason.value) == (ReasonCode.MISSING, 61.0)
    assert (decision.wanted, decision.running) == (2, 2)


def test_silence_alone_never_suspends() -> None:
    story = lending()
    for _ in range(50):
        decision = story.miss(600)
    assert decision.rung is Rung.NO_NEW
    assert decision.running == 2


def test_a_gap_without_a_beat_in_it_is_silence_all_the_same() -> None:
    story = lending(rise_s=120.0)
    story.at += timedelta(hours=2)
    decision = story.hear([0.2, 0.2])
    assert budgets(decision) == {"a": FLOOR_MHZ, "b": FLOOR_MHZ}
    assert decision.verdict is not Verdict.IDLE


def test_a_gap_is_not_taken_for_hours_of_calm() -> None:
    story = lending()
    story.hear([0.7, 0.2])
    before = dict(story.state.hosts)["a"].trend
    story.at += timedelta(hours=2)
    story.hear([0.0, 0.2])
    after = dict(story.state.hosts)["a"].trend
    assert after.fast > 0.7 * before.fast
    assert after.slow > 0.9 * before.slow
    assert after.level > 0.75 * before.level


def test_after_silence_lending_begins_again_rung_by_rung() -> None:
    story = lending()
    story.miss(90)
    rungs = [story.hear([0.2, 0.2]).rung for _ in range(3)]
    assert rungs == [Rung.FLOOR, Rung.LEND, Rung.LEND]


def test_a_cluster_never_heard_of_keeps_its_machines_alive() -> None:
    story = Story(CALM, machines=(machine("m", "a"), machine("n", "b", "suspended")))
    decision = story.miss(10)
    assert budgets(decision) == {"a": FLOOR_MHZ}
    assert (decision.wanted, decision.running) == (2, 1)


@pytest.mark.parametrize("age_s", [0, 20, 3600])
def test_a_sample_that_is_not_newer_changes_nothing(age_s: int) -> None:
    story = lending()
    state, current = story.state, story.decisions[-1]
    decision = story.observe(sample([0.9, 0.0], at=story.at - timedelta(seconds=age_s)))
    assert story.state is state
    assert decision == current


def test_history_does_not_grow_the_count() -> None:
    story = Story(CALM)
    decision = story.hear_for(600, [0.1, 0.1], quality=Quality.BACKFILLED)
    assert decision.wanted == 0


def test_a_host_that_drops_out_keeps_the_floor_while_ours_run_there() -> None:
    story = lending()
    decision = story.hear([0.2])
    assert budgets(decision)["b"] == FLOOR_MHZ
    story.machines = story.machines[:1]
    assert "b" not in budgets(story.hear([0.2]))


def test_hosts_missing_from_a_partial_sample_count_as_full() -> None:
    story = lending()
    story.machines = ()
    decision = story.hear([0.4], quality=Quality.PARTIAL)
    assert decision.verdict is Verdict.STOP_NEW
    assert budgets(decision)["b"] == 0


def test_a_clock_set_back_does_not_keep_budgets_alive() -> None:
    story = lending()
    story.at -= timedelta(days=1)
    decision = story.observe(Missing(story.at))
    assert budgets(decision) == {"a": FLOOR_MHZ, "b": FLOOR_MHZ}
    assert budgets(story.hear_for(100, [0.2, 0.2]))["a"] > 20 * FLOOR_MHZ


def test_a_naive_time_is_utc() -> None:
    naive = START.replace(tzinfo=None)
    _, decision = decide(CALM, State(), sample([0.2], at=naive), Facts(now=naive))
    assert decision.at == START


def test_a_host_unknown_before_and_impossible_now_lends_only_the_floor() -> None:
    story = Story(CALM, machines=(machine("m", "a"),))
    story.hear([0.1], cpu_capacity_mhz=(0.0,))
    assert budgets(story.decisions[-1]) == {"a": FLOOR_MHZ}
    assert dict(story.state.hosts)["a"] == HostMemory(
        UNKNOWN, FLOOR_MHZ, 0.0, 157286, owed_s=325.0, full_s=20.0
    )


def test_a_maintained_host_is_not_taken_for_idle() -> None:
    story = lending()
    states = (HostState.MAINTENANCE, HostState.CONNECTED)
    decision = story.hear([0.0, 0.7], states=states)
    assert decision.verdict is Verdict.STOP_NEW


def listening(interval_s: float, facts: dict[str, Any]) -> Story:
    """A cluster that lends and is heard of every 300 s, by samples that each cover `interval_s`."""
    story = Story(CALM, machines=(machine("m", "a"),), facts=facts)
    for _ in range(4):
        story.at += timedelta(seconds=300)
        story.observe(sample([0.2], at=story.at, interval_s=interval_s))
    return story


@pytest.mark.parametrize(("interval_s", "facts"), [(300.0, {}), (20.0, {"interval_s": 300.0})])
def test_a_long_interval_is_not_silence(interval_s: float, facts: dict[str, Any]) -> None:
    story = listening(interval_s, facts)
    before = budgets(story.decisions[-1])
    assert (story.decisions[-1].verdict, story.decisions[-1].rung) == (Verdict.IDLE, Rung.LEND)
    assert before["a"] > 20 * FLOOR_MHZ
    assert budgets(story.miss(900)) == before
    decision = story.miss(1)
    assert (budgets(decision), decision.reason.code) == ({"a": FLOOR_MHZ}, ReasonCode.MISSING)


def test_the_ladder_is_climbed_at_a_long_interval() -> None:
    story = listening(300.0, {})
    rungs = []
    for _ in range(6):
        story.at += timedelta(seconds=300)
        rungs.append(story.observe(sample([0.9], at=story.at, interval_s=300.0)).rung)
    assert rungs == [Rung.FLOOR, Rung.FLOOR, Rung.NO_NEW, Rung.SUSPEND, Rung.DRAIN, Rung.DESTROY]


@pytest.mark.parametrize(("interval_s", "oldest_s"), [(20.0, 60), (100.0, 300), (1e6, 900)])
def test_a_sample_is_stale_after_three_of_its_intervals_but_no_later(
    interval_s: float, oldest_s: int
) -> None:
    story = lending()
    story.at += timedelta(seconds=oldest_s + 1)
    old = sample([0.2, 0.2], at=story.at - timedelta(seconds=oldest_s + 1) + timedelta(seconds=0.5))
    decision = story.observe(replace(old, interval_s=interval_s))
    assert (decision.reason.code, budgets(decision)["a"]) == (ReasonCode.STALE, FLOOR_MHZ)
    young = replace(old, interval_s=interval_s, at=story.at - timedelta(seconds=oldest_s))
    assert story.observe(young).reason.code is not ReasonCode.STALE
