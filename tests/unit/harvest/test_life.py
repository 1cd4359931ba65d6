"""The least life of a machine: a shrinking count waits for it, the owner does not; and who is given up first."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.harvest.decide import decide
from libs.harvest.life import age
from libs.harvest.quota import Quota
from libs.harvest.types import Decision, Facts, MachineFact, Policy, Rung, State
from libs.harvest.words import explain
from services.policy.domain.rehearsal import Given, rehearse
from tests.unit.harvest.story import POLICY, START, Story, machine, sample
from tests.unit.harvest.test_giving_up import MAINTAINED
from tests.unit.harvest.test_properties import every, good_samples, machine_sets, policies

LIFE_S = 3600.0
QUICK = replace(POLICY, sigma=0.0, rise_s=0.0, machines_per_host=4, minimum_life_s=LIFE_S)


def kept_of(decision: Decision, machines: tuple[MachineFact, ...]) -> set[str]:
    """Machines that stay when the decision is carried out."""
    there = [each.machine for each in machines if each.state != "draining"]
    gone = decision.victims[: max(0, len(there) - decision.wanted)]
    return set(there) - set(gone) if decision.rung < Rung.DRAIN else set()


@every
@given(policies(), machine_sets(), st.integers(0, 6), st.sampled_from([0.0, 2.5, 1e9]), st.data())
def test_a_mere_shrink_takes_no_young_machine(
    policy: Policy, machines: tuple[MachineFact, ...], granted: int, life_s: float, data: st.DataObject
) -> None:
    policy = replace(policy, minimum_life_s=life_s)
    rung = data.draw(st.sampled_from([Rung.LEND, Rung.FLOOR, Rung.NO_NEW, Rung.SUSPEND]))
    state = State(rung=rung, rung_since=START, wanted=data.draw(st.integers(0, 6)))
    heard = data.draw(good_samples(START + timedelta(seconds=20)))
    facts = Facts(START + timedelta(seconds=20), machines, granted)

    _, free = decide(policy, state, heard, replace(facts, granted_machines=None))
    _, decision = decide(policy, state, heard, facts)

    there = {each.machine: each for each in machines if each.state != "draining"}
    young = {name for name, each in there.items() if each.age_s < life_s}
    bound = min(granted, policy.max_machines)
    assert decision.wanted <= max(bound, len(young)), (
        "nothing new beyond the quota, and only the young outstay it"
    )
    if decision.rung < Rung.SUSPEND:
        # Those that a host carries no more go for the owner's sake: with or without a quota they are first.
        given_up_anyway = (
            set(free.victims[: max(0, len(there) - free.wanted)]) if free.wanted < len(there) else set()
        )
        assert young - given_up_anyway <= kept_of(decision, machines)


@every
@given(policies(), machine_sets(), st.integers(-3, 3), st.data())
def test_priorities_and_lives_change_nothing_of_what_is_lent(
    policy: Policy, machines: tuple[MachineFact, ...], priority: int, data: st.DataObject
) -> None:
    ranked = tuple(replace(each, priority=priority + number % 2) for number, each in enumerate(machines))
    heard = data.draw(good_samples(START + timedelta(seconds=20)))
    now = START + timedelta(seconds=20)

    _, plain = decide(policy, State(), heard, Facts(now, machines))
    _, decision = decide(policy, State(), heard, Facts(now, ranked))

    assert replace(decision, victims=()) == replace(plain, victims=())
    assert sorted(decision.victims) == sorted(plain.victims)


def lending(*machines: MachineFact, policy: Policy = QUICK) -> Story:
    story = Story(policy, machines=machines)
    story.hear_for(200, [0.1] * 3)
    assert story.decisions[-1].rung is Rung.LEND
    return story


def test_a_lowered_quota_takes_the_lowest_priority_first_and_of_it_who_loses_least() -> None:
    old: dict[str, Any] = {"age_s": 2 * LIFE_S}
    story = lending(
        machine("urgent", "a", priority=9, progress_s=1.0, **old),
        machine("far", "b", priority=0, progress_s=9000.0, **old),
        machine("near", "c", priority=0, progress_s=60.0, **old),
        machine("idle", "c", priority=-101, progress_s=9000.0, **old),
    )
    for quota, gone in ((3, {"idle"}), (2, {"idle", "near"}), (1, {"idle", "near", "far"})):
        story.facts["granted_machines"] = quota
        decision = story.hear([0.1] * 3)
        assert decision.wanted == quota
        assert {each.machine for each in story.machines} - kept_of(decision, story.machines) == gone


def test_a_quota_waits_for_young_machines_and_says_so() -> None:
    story = lending(
        machine("old", "a", age_s=2 * LIFE_S, progress_s=5000.0), machine("young", "b", age_s=60.0)
    )
    story.facts["granted_machines"] = 0
    decision = story.hear([0.1] * 3)
    assert kept_of(decision, story.machines) == {"young"}
    assert explain(decision, QUICK).startswith(
        "the quota of 0 machines is reached, and what is younger than 3600 s lives on until then"
    )
    story.machines = (replace(story.machines[1], age_s=LIFE_S),)
    assert story.hear([0.1] * 3).wanted == 0


@pytest.mark.parametrize("why", ["reclaim", "release", "maintenance"])
def test_the_owner_waits_for_no_life(why: str) -> None:
    policy = replace(QUICK, ladder=replace(QUICK.ladder, suspend=False))
    story = lending(machine("young", "a", age_s=1.0), machine("beside", "b", age_s=1.0), policy=policy)
    if why == "reclaim":
        story.hear_for(400, [0.95] * 3)
        assert story.decisions[-1].rung >= Rung.DRAIN
        assert kept_of(story.decisions[-1], story.machines) == set()
    elif why == "release":
        story.facts["draining"] = True
        assert story.hear([0.1] * 3).wanted == 0
    else:
        decision = story.hear([0.1] * 3, states=MAINTAINED)
        assert kept_of(decision, story.machines) == {"beside"}


def test_a_run_without_a_cloud_keeps_to_quota_and_life() -> None:
    policy = replace(QUICK, quota=Quota(vcpus=9), minimum_life_s=100.0, busy_dwell_s=0.0)
    samples = [sample([0.1] * 3, at=START + timedelta(seconds=20 * number)) for number in range(40)]
    wanted = [step.wanted for step in rehearse(policy, samples, Given())]
    assert max(wanted) == 2, "two machines of four vCPUs"

    machines = (machine("m", "a"),)
    born: dict[str, float] = {}
    ages = [age(policy, machines, born, now_s)[0].age_s for now_s in (50.0, 90.0, 150.0)]
    assert ages == [0.0, 40.0, 100.0]
    assert age(replace(policy, minimum_life_s=0.0), machines, born, 9e9) == machines
