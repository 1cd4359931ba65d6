"""Giving back, rung by rung, and lending again."""

from dataclasses import replace
from datetime import time, timedelta
from typing import Any

import pytest

from libs.common.contracts.usage import Exposure, Quality
from libs.harvest.types import Policy, ReasonCode, Rung, Verdict, Window
from tests.unit.harvest.story import FLOOR_MHZ, POLICY, START, Story, budgets, machine

QUICK = replace(POLICY, sigma=0.0, rise_s=0.0)
BUSY, CALM, MIDDLING = [0.9, 0.9], [0.1, 0.1], [0.55, 0.55]
SHORT: dict[str, Any] = {"datastore_capacity_gib": 1000.0, "datastore_free_gib": 50.0}


def lending(policy: Policy = QUICK) -> Story:
    story = Story(policy, machines=(machine("m", "a"), machine("n", "b")))
    story.hear_for(200, CALM)
    assert story.decisions[-1].rung is Rung.LEND
    return story


def climb(story: Story, seconds: float) -> list[tuple[float, Rung]]:
    """When each rung was reached, in seconds from the first busy sample."""
    reached: list[tuple[float, Rung]] = []
    for second in range(0, int(seconds), 20):
        rung = story.hear(BUSY).rung
        if not reached or reached[-1][1] is not rung:
            reached.append((second, rung))
    return reached


def test_the_ladder_is_climbed_with_dwell() -> None:
    assert climb(lending(), 1000) == [
        (0, Rung.FLOOR),
        (100, Rung.NO_NEW),  # busy dwell 40, then 60
        (220, Rung.SUSPEND),
        (520, Rung.DRAIN),
        (700, Rung.DESTROY),
    ]


@pytest.mark.parametrize(
    "policy",
    [
        replace(QUICK, release="destroy"),
        replace(QUICK, ladder=replace(QUICK.ladder, suspend=False)),
    ],
)
def test_without_the_suspend_rung_draining_comes_in_its_place(policy: Policy) -> None:
    assert climb(lending(policy), 500) == [
        (0, Rung.FLOOR),
        (100, Rung.NO_NEW),
        (220, Rung.DRAIN),
        (400, Rung.DESTROY),
    ]


def test_machines_that_do_not_give_way_are_an_emergency() -> None:
    story = lending()
    lent = sum(budgets(story.decisions[-1]).values())
    decision = story.hear(CALM, exposed=Exposure.NO_POOLS)
    assert (decision.rung, decision.reason.code) == (Rung.FLOOR, ReasonCode.EXPOSED), "at once"
    assert set(budgets(decision).values()) == {FLOOR_MHZ}
    assert decision.wanted == 2, "nothing is given back yet"
    assert story.miss(30).rung is Rung.FLOOR, "what is not heard changes nothing"
    story.hear(CALM, exposed=None, quality=Quality.BACKFILLED)
    assert story.decisions[-1].rung is Rung.FLOOR, "history does not tell what is now"
    decision = story.hear(CALM)
    assert decision.rung is Rung.LEND
    assert sum(budgets(decision).values()) == lent


def test_machines_that_never_give_way_again_are_given_back() -> None:
    story = lending()
    rungs = [story.hear(CALM, exposed=Exposure.OUTSIDE_POOL).rung for _ in range(40)]
    assert [rungs.index(rung) * 20 for rung in sorted(set(rungs))] == [0, 60, 180, 480, 660]
    assert story.decisions[-1].wanted == 0


def test_a_short_datastore_holds_no_suspend_files() -> None:
    story = lending()
    for _ in range(20):
        decision = story.hear(BUSY, datastore_capacity_gib=1000.0, datastore_free_gib=50.0)
    assert Rung.SUSPEND not in {each.rung for each in story.decisions}
    assert decision.rung is Rung.DRAIN


def test_what_each_rung_means_for_the_machines() -> None:
    story = lending()
    climb(story, 1000)
    meant = {each.rung: (each.cap_mhz, each.wanted, each.running) for each in story.decisions[10:]}
    assert meant == {
        Rung.FLOOR: (1600.0, 2, 2),
        Rung.NO_NEW: (1600.0, 2, 2),
        Rung.SUSPEND: (1600.0, 2, 0),
        Rung.DRAIN: (1600.0, 2, 2),
        Rung.DESTROY: (1600.0, 0, 0),
    }


def test_after_suspension_machines_resume_before_new_ones_and_rung_by_rung() -> None:
    story = lending()
    climb(story, 300)
    story.obey()
    assert [each.state for each in story.machines] == ["suspended"] * 2
    story.hear_for(60, CALM)
    rungs = []
    for _ in range(4):
        decision = story.hear(CALM)
        rungs.append((decision.rung, decision.running))
        story.obey()
    assert rungs == [(Rung.NO_NEW, 0), (Rung.FLOOR, 0), (Rung.LEND, 2), (Rung.LEND, 2)]


def test_without_the_suspend_rung_the_way_down_passes_it_by() -> None:
    story = lending(replace(QUICK, release="destroy"))
    climb(story, 300)
    story.hear_for(60, CALM)
    assert [story.hear(CALM).rung for _ in range(3)] == [Rung.NO_NEW, Rung.FLOOR, Rung.LEND]


def test_a_middling_owner_gets_no_machine_resumed() -> None:
    story = lending()
    climb(story, 300)
    assert story.hear_for(1000, MIDDLING).rung is Rung.SUSPEND


def test_a_middling_owner_is_lent_to_again_below_the_suspend_rung() -> None:
    story = lending()
    climb(story, 120)
    decision = story.hear_for(60, MIDDLING)
    assert decision.rung is Rung.LEND
    assert decision.cap_mhz > 1600


def test_the_dwell_of_a_rung_begins_again_after_a_pause_in_the_pressure() -> None:
    story = lending()
    climb(story, 300)
    story.hear_for(1000, MIDDLING)
    assert climb(story, 400)[:2] == [(0, Rung.SUSPEND), (340, Rung.DRAIN)]


def test_growth_rests_after_a_retreat() -> None:
    story = Story(replace(QUICK, cooldown_s=600.0))
    story.hear_for(40, CALM)
    story.hear_for(120, BUSY)
    retreated_at = story.at
    while story.hear(CALM).wanted == 0:
        assert (story.at - retreated_at).total_seconds() < 700
    assert (story.at - retreated_at).total_seconds() >= 600


def test_draining_gives_grace_then_destroys() -> None:
    story = lending()
    story.facts["draining"] = True
    decisions = [story.miss(20) for _ in range(12)]
    assert [each.rung for each in decisions] == [Rung.DRAIN] * 9 + [Rung.DESTROY] * 3
    assert {each.wanted for each in decisions} == {0}
    assert {each.reason.code for each in decisions} == {ReasonCode.DRAINING}


def test_a_closing_window_climbs_the_ladder_and_an_opening_one_descends_it() -> None:
    window = Window(frozenset({0}), time(11), time(12, 10))
    story = Story(
        replace(QUICK, windows=(window,)), at=START, machines=(machine("m", "a"), machine("n", "b"))
    )
    assert story.hear_for(580, CALM).rung is Rung.LEND
    decision = story.hear(CALM)
    assert (decision.rung, decision.reason.code) == (Rung.FLOOR, ReasonCode.WINDOW)
    assert story.hear_for(60, CALM).rung is Rung.NO_NEW
    assert story.hear_for(120, CALM).rung is Rung.SUSPEND
    story.policy = QUICK
    assert story.hear_for(60, CALM).rung is Rung.LEND


def test_a_window_closes_on_a_silent_cluster_too() -> None:
    window = Window(frozenset({0}), time(11), time(12, 3, 30))
    story = Story(replace(QUICK, windows=(window,)), machines=(machine("m", "a"),))
    story.hear_for(200, CALM)
    decision = story.miss(10)
    assert (decision.rung, decision.cap_mhz, decision.reason.code) == (Rung.FLOOR, 800.0, ReasonCode.WINDOW)


def suspended(policy: Policy = QUICK) -> Story:
    """A cluster whose owner was busy until both machines were suspended."""
    story = lending(policy)
    climb(story, 300)
    story.obey()
    assert [each.state for each in story.machines] == ["suspended"] * 2
    return story


def test_our_own_suspend_files_do_not_keep_us_suspended() -> None:
    story = suspended()
    for _ in range(8):
        decision = story.hear(CALM, **SHORT)
        story.obey()
    assert (decision.rung, decision.wanted, decision.running) == (Rung.LEND, 2, 2)


def test_what_is_suspended_on_a_short_datastore_goes_after_the_dwell() -> None:
    story = suspended()
    assert story.hear_for(2000, MIDDLING).rung is Rung.SUSPEND
    rungs = [story.hear(MIDDLING, **SHORT).rung for _ in range(17)]
    assert rungs == [Rung.SUSPEND] * 15 + [Rung.DRAIN] * 2  # 300 s after it became short


def test_one_sample_of_a_short_datastore_drains_nothing() -> None:
    story = suspended()
    story.hear_for(2000, MIDDLING)
    story.hear(MIDDLING, **SHORT)
    assert story.hear_for(1000, MIDDLING).rung is Rung.SUSPEND


def test_what_a_new_policy_does_not_suspend_goes_after_the_dwell() -> None:
    story = suspended()
    story.hear_for(200, MIDDLING)
    story.policy = replace(QUICK, ladder=replace(QUICK.ladder, suspend=False))
    assert story.hear_for(200, MIDDLING).rung is Rung.DRAIN


def test_a_monitor_with_gaps_does_not_keep_us_on_a_busy_cluster() -> None:
    story = lending()
    for _ in range(5):
        climb(story, 100)
        story.miss(61)
        story.at += timedelta(seconds=19)
    assert story.decisions[-1].rung is Rung.DESTROY  # 15 minutes, with or without gaps


def test_gaps_shorter_than_the_dwell_of_busy_do_not_hide_a_busy_owner() -> None:
    story = lending(replace(QUICK, busy_dwell_s=60.0))
    for _ in range(8):
        story.hear(BUSY)
        story.hear(BUSY)
        story.miss(70)
    assert story.decisions[-1].rung >= Rung.SUSPEND


def test_a_busy_owner_whose_monitor_falls_silent_is_still_given_way() -> None:
    story = lending()
    climb(story, 100)
    rungs = [story.miss(100).rung for _ in range(8)]
    assert rungs == sorted(rungs)
    assert rungs[-1] is Rung.DESTROY


@pytest.mark.parametrize(("after", "rung"), [([0.6, 0.6], Rung.NO_NEW), ([0.7, 0.7], Rung.DESTROY)])
def test_only_load_below_stop_new_ends_the_climb_after_a_gap(after: list[float], rung: Rung) -> None:
    story = lending()
    climb(story, 120)
    story.miss(90)
    decision = story.hear(after)
    assert (decision.verdict is Verdict.BUSY) == (rung is Rung.DESTROY)
    for _ in range(3):
        story.miss(300)
        decision = story.observe(story.told[-1][0])
    assert decision.rung is rung
