"""How far the engine goes, by what it measured."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.usage import Quality
from libs.harvest.state import from_json, to_json
from libs.harvest.steering import Look, Trial, begin, look_after, sigma_of, steer
from libs.harvest.types import Rung, Steering
from tests.unit.harvest.story import POLICY, Story, budgets, machine

DAY_S = 86_400.0
CALM = Trial(0.3, 0.5, 0.4, 0.5)
ABOVE = Trial(0.5, 0.45, 0.35, 0.45)
FAR_ABOVE = Trial(0.6, 0.45, 0.35, 0.45)
EVEN = replace(POLICY, contention_max=0.01, hard_max=0.005)
PROMPT = Look(300.0, reaction_s=30.0)
"""A sample of five minutes with a look half a minute into it."""


def steered(*days: list[Trial], steering: Steering | None = None) -> Steering:
    """After days of which each sample of five minutes showed these hosts, or one of these in turn."""
    for trials in days:
        for _ in range(288):
            steering = steer(EVEN, steering, trials, PROMPT)
    assert steering is not None
    return steering


def test_a_calm_week_dares_more_and_a_contended_one_less() -> None:
    calm = steered(*[[CALM] * 100] * 2)
    rough = steered(*[[CALM] * 97 + [ABOVE] * 3] * 2)
    assert calm.own.gain == pytest.approx(math.exp(-2 / 3), abs=0.001), "three days of calm are a factor of e"
    assert rough.own.gain == pytest.approx(3.0, abs=0.001), "of twice too much less than half of that"
    assert sigma_of(EVEN, calm)[0] == POLICY.sigma * calm.own.gain
    assert sigma_of(replace(EVEN, steered=False), calm)[0] == POLICY.sigma


def test_where_a_surprise_lasts_longer_as_much_more_of_it_is_allowed() -> None:
    begun, rough = begin(EVEN), [CALM] * 97 + [ABOVE] * 3
    gains = [
        steer(EVEN, begun, rough, look_after(elapsed_s, 300.0)).own.gain
        for elapsed_s in (270.0, 210.0, 300.0)
    ]
    assert gains[0] > gains[1] > 1.0, "looks half a minute, a minute and a half and five minutes apart"
    assert gains[2] < 1.0, "three times what is allowed, where surprises last four times as long"
    assert look_after(300.0, 300.0).reaction_s == look_after(300.0, 20.0).reaction_s == 300.0
    assert look_after(20.0, 20.0).reaction_s == look_after(20.0, 300.0).reaction_s == 20.0


def test_where_others_run_nothing_is_lent_on_a_host_on_which_none_does() -> None:
    story = Story(POLICY, machines=(machine("m", "a"), machine("n", "b", "suspended")))
    story.hear_for(400, [0.2, 0.2])
    before = story.state.steering
    story.hear([0.2, 0.7])
    after = story.state.steering
    assert before is not None
    assert after is not None
    assert budgets(story.decisions[-2])["b"] > 0.3 * 40_000.0, "offered, and taken by nobody"
    assert after.own.contended < before.own.contended


def test_as_much_contention_as_is_allowed_moves_nothing() -> None:
    even = steered(*[[CALM] * 99 + [ABOVE]] * 20)
    assert even.own.gain == pytest.approx(1.0, abs=0.001)
    assert even.own.contended == pytest.approx(0.01, abs=0.0001)


def test_what_stands_above_a_whole_host_counts_more() -> None:
    hard = steered(*[[CALM] * 99 + [FAR_ABOVE]] * 4)
    assert hard.own.hard == pytest.approx(0.0085, abs=0.001)
    assert hard.own.gain > 1.4, "the allowance of hard contention binds"


def test_a_gain_stays_within_bounds() -> None:
    assert steered(*[[CALM] * 9] * 30).own.gain == 0.5
    assert steered(*[[FAR_ABOVE] * 9] * 30).own.gain == 3.0
    once = steer(EVEN, None, [FAR_ABOVE] * 9, PROMPT)
    assert once.own.gain < 1.3, "no single sample moves it far"


def test_the_shadow_leads_where_it_lends_more_for_the_same_and_gives_the_lead_back() -> None:
    plain = Trial(0.3, 0.40, 0.50, 0.40)
    first = steered(*[[plain] * 99 + [ABOVE._replace(plain_lent=0.3)]] * 6)
    assert not first.plain_leads, "a week is watched first"
    second = steered(*[[plain] * 99 + [ABOVE._replace(plain_lent=0.3)]] * 2, steering=first)
    assert second.plain_leads
    third = steered(*[[CALM] * 199 + [ABOVE]] * 12, steering=second)
    assert not third.plain_leads


def test_a_shadow_that_contends_does_not_come_to_lead() -> None:
    wild = [Trial(0.3, 0.4, 0.69, 0.4)] * 97 + [Trial(0.5, 0.3, 0.45, 0.3)] * 3
    assert not steered(*[wild] * 14).plain_leads


def test_a_leading_shadow_sets_the_budgets() -> None:
    policy = replace(POLICY, rise_s=0.0)
    own, plain = Story(policy), Story(policy)
    for story in (own, plain):
        for tick in range(60):
            story.hear([0.2 + 0.2 * (tick % 2)])
    assert plain.state.steering is not None
    plain.state = plain.state._replace(steering=replace(plain.state.steering, plain_leads=True))
    known = dict(plain.state.hosts)["a"]
    decision = plain.hear_for(2000, [0.2])
    own_decision = own.hear_for(2000, [0.2])
    assert known.plain_wish != known.wish
    assert decision.steering is not None
    assert decision.steering.plain_leads
    assert budgets(decision) != budgets(own_decision)
    assert budgets(decision)["a"] == pytest.approx(
        dict(plain.state.hosts)["a"].plain_wish * 40_000.0, rel=policy.dead_band
    )


def test_only_lending_teaches() -> None:
    story = Story(POLICY, machines=(machine("m", "a"),))
    story.hear_for(400, [0.2])
    before = story.state.steering
    assert before is not None
    story.facts = {"paused": "a person"}
    story.hear_for(400, [0.2])
    assert story.state.steering == before
    story.facts = {}
    story.hear_for(600, [0.2])
    before = story.state.steering
    assert before is not None
    story.hear([0.9])
    assert story.state.rung >= Rung.FLOOR
    after = story.state.steering
    assert after is not None
    assert after.own.contended > before.own.contended, "what ended the lending counts"
    story.hear_for(100, [0.9])
    assert story.state.steering == after


def test_a_look_amid_an_interval_counts_for_the_time_it_stands_for() -> None:
    story = Story(POLICY)
    story.hear_for(400, [0.2])
    before = story.state.steering
    story.hear([0.2], quality=Quality.BACKFILLED)
    after = story.state.steering
    assert before is not None
    assert after is not None
    assert after.observed_s == before.observed_s + 20.0


@given(
    st.lists(st.tuples(*[st.floats(0.0, 1.0)] * 4).map(lambda four: Trial(*four)), min_size=1, max_size=5),
    st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5),
    st.floats(1.0, 300.0).map(lambda elapsed_s: look_after(elapsed_s, 300.0)),
    st.floats(0.7, 3.0),
)
def test_more_load_never_lowers_a_gain(
    trials: list[Trial], more: list[float], look: Look, gain: float
) -> None:
    begun = begin(EVEN)
    begun = replace(begun, own=replace(begun.own, soft_gain=gain))
    heavy = [
        trial._replace(owner=trial.owner + extra * (1.0 - trial.owner))
        for trial, extra in zip(trials, more, strict=False)
    ]
    light_after, heavy_after = (steer(EVEN, begun, found, look) for found in (trials, heavy))
    assert heavy_after.own.gain >= light_after.own.gain
    assert heavy_after.plain.gain >= light_after.plain.gain
    assert heavy_after.plain_leads == begun.plain_leads


def test_a_steering_is_read_back_as_it_was() -> None:
    story = Story(POLICY)
    story.hear_for(400, [0.2, 0.4])
    assert story.state.steering is not None
    assert from_json(json.loads(json.dumps(to_json(story.state)))) == story.state
    assert story.decisions[-1].steering == story.state.steering
