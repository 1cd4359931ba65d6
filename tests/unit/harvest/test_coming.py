"""Announced load: room is made before it is there."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.usage import Announced, Coming, Quality
from libs.harvest.decide import decide
from libs.harvest.types import (
    Facts,
    Missing,
    Observation,
    Policy,
    ReasonCode,
    State,
)
from libs.harvest.words import explain
from tests.unit.harvest.story import CAPACITY_MHZ, FLOOR_MHZ, POLICY, START, Story, budgets, machine
from tests.unit.harvest.test_properties import HOSTS, at_most, every, good_samples, histories

QUICK = replace(POLICY, sigma=0.0, rise_s=0.0)


def lending() -> Story:
    """Two hosts of which two thirds are lent."""
    story = Story(QUICK, machines=(machine("m", "a"), machine("n", "b")))
    story.hear_for(400, [0.2, 0.2])
    return story


def announce(story: Story, kind: Coming, in_s: float, **more: object) -> None:
    told = {"host": "a", **more}
    story.facts = {"coming": (Announced(kind, story.at + timedelta(seconds=in_s), **told),)}  # type: ignore[arg-type]


def test_room_is_made_before_it_begins_and_lent_again_once_it_shows() -> None:
    story = lending()
    before = budgets(story.decisions[-1])
    announce(story, Coming.POWER_ON, 200, share=0.3)
    assert budgets(story.hear([0.2, 0.2])) == before, "three minutes ahead is early"
    story.hear_for(60, [0.2, 0.2])
    ready = story.hear([0.2, 0.2])
    assert budgets(ready)["a"] <= (0.88 - 0.2 - 0.3) * CAPACITY_MHZ + 1
    assert budgets(ready)["b"] == before["b"]
    assert (ready.reason.code, ready.reason.host) == (ReasonCode.ANNOUNCED, "a")
    assert explain(ready, QUICK, {"a": "esx-1"}).startswith(
        "a machine's start is announced on esx-1, 30 % of a host are kept free for it"
    )
    story.hear_for(900, [0.2, 0.2])
    assert budgets(story.decisions[-1]) == before, "it never came"


def test_it_is_not_waited_for_between_two_samples() -> None:
    story = lending()
    announce(story, Coming.POWER_ON, 30, share=0.5)
    decision = story.miss(5)
    assert budgets(decision)["a"] <= (0.88 - 0.2 - 0.5) * CAPACITY_MHZ + 1
    assert budgets(decision)["b"] > 0.5 * CAPACITY_MHZ


def test_maintenance_leaves_the_floor_until_it_ends() -> None:
    story = lending()
    end = story.at + timedelta(seconds=3000)
    announce(story, Coming.MAINTENANCE, 60, ends_at=end)
    assert budgets(story.hear_for(2800, [0.2, 0.2]))["a"] == FLOOR_MHZ
    assert budgets(story.hear_for(1200, [0.2, 0.2]))["a"] > 0.5 * CAPACITY_MHZ


def test_a_calendar_entry_holds_for_all_hosts_and_nothing_new_is_wanted() -> None:
    story = Story(QUICK)
    announce(story, Coming.CALENDAR, 0, host=None, ends_at=story.at + timedelta(hours=1))
    decision = story.hear_for(1000, [0.2, 0.2])
    assert max(budgets(decision).values()) <= (0.88 - 0.2 - 0.3) * CAPACITY_MHZ + 1
    assert (decision.wanted, decision.reason.code) == (0, ReasonCode.ANNOUNCED)
    assert "for every host" in explain(decision, QUICK)


@pytest.mark.parametrize("kind", Coming)
def test_what_is_over_keeps_nothing_free(kind: Coming) -> None:
    story = lending()
    before = budgets(story.decisions[-1])
    announce(story, kind, -1000, ends_at=story.at - timedelta(seconds=400))
    assert budgets(story.hear([0.2, 0.2])) == before


MOMENTS = st.integers(-4000, 4000).map(lambda seconds: START + timedelta(seconds=seconds))
ANNOUNCEMENTS = st.lists(
    st.builds(
        Announced,
        st.sampled_from(Coming),
        MOMENTS,
        st.one_of(st.none(), MOMENTS, MOMENTS.map(lambda at: at.replace(tzinfo=None))),
        st.sampled_from([None, *HOSTS, "z"]),
        st.one_of(st.none(), st.floats()),
    ),
    max_size=4,
)


@every
@given(histories(), ANNOUNCEMENTS, st.data())
def test_what_is_announced_never_lends_more(
    history: tuple[Policy, State, Facts], coming: list[Announced], data: st.DataObject
) -> None:
    policy, state, facts = history
    good = data.draw(good_samples(facts.now))
    choices: list[Observation] = [good, replace(good, quality=Quality.BACKFILLED), Missing(facts.now)]
    heard = data.draw(st.sampled_from(choices))
    _, before = decide(policy, state, heard, facts)
    _, one = decide(policy, state, heard, replace(facts, coming=tuple(coming[:1])))
    _, all_of_them = decide(policy, state, heard, replace(facts, coming=tuple(coming)))
    mixed = tuple(data.draw(st.permutations(coming)))
    assert at_most(one, before)
    assert at_most(all_of_them, one)
    assert decide(policy, state, heard, replace(facts, coming=mixed))[1] == all_of_them
    assert explain(all_of_them, policy)
