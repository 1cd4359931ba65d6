"""A host whose owner needs all of it: what runs there is suspended, and nothing else."""

from dataclasses import replace
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from libs.harvest.crowded import dwell_s
from libs.harvest.decide import decide
from libs.harvest.types import Facts, Policy, Rung, State
from libs.harvest.words import explain
from services.workload.domain.plan import MachineNow, plan_machines
from services.workload.domain.states import MachineState, Wanted
from tests.unit.harvest.story import FLOOR_MHZ, POLICY, Story, budgets, machine
from tests.unit.harvest.test_properties import good_samples, histories

QUICK = replace(POLICY, sigma=0.0, rise_s=0.0)
FULL, FREE = [0.87, 0.1, 0.1], [0.1, 0.1, 0.1]
AFTER_S, KEPT_S = dwell_s(QUICK) + 20, QUICK.ladder.drain_after_s


def lending(policy: Policy = QUICK) -> Story:
    """Machines run on three hosts; that of the first has done the most work."""
    machines = (machine("m", "a", progress_s=900.0), machine("n", "b"), machine("o", "c"))
    story = Story(replace(policy, max_machines=3), machines=machines)
    assert story.hear_for(200, FREE).running == 3
    return story


def asleep() -> Story:
    story = lending()
    story.hear_for(AFTER_S, FULL)
    story.obey()
    return story


def states(story: Story) -> list[str]:
    return [each.state for each in story.machines]


def test_a_machine_on_a_full_host_is_suspended_after_the_dwell_and_the_others_work_on() -> None:
    story = lending()
    decision = story.hear_for(AFTER_S - 20, FULL)
    assert (decision.suspend, decision.running, budgets(decision)["a"]) == ((), 3, FLOOR_MHZ)
    decision = story.hear(FULL)
    assert (decision.suspend, decision.running, decision.wanted) == (("m",), 2, 3)
    assert decision.rung is Rung.LEND
    assert budgets(decision)["b"] > FLOOR_MHZ
    assert explain(decision, QUICK).endswith(
        "3 machines wanted, 1 of them to be suspended on a host that is full"
    )
    story.obey()
    assert states(story) == ["suspended", "running", "running"], "the one there, though it has done the most"
    decision = story.hear(FULL)
    assert (decision.suspend, decision.running, budgets(decision)["a"]) == ((), 2, 0.0)


def test_where_the_floor_fits_beside_the_owner_nothing_is_suspended() -> None:
    story = lending()
    assert story.hear_for(3 * AFTER_S, [0.85, 0.1, 0.1]).suspend == ()  # 2 % is the floor, 88 % is aimed at


def test_a_short_jump_suspends_nothing() -> None:
    story = lending()
    for _ in range(4):
        story.hear_for(AFTER_S - 20, FULL)
        story.hear_for(400, FREE)
    assert not any(decision.suspend for decision in story.decisions)


def test_what_cannot_be_suspended_stays_at_its_floor() -> None:
    story = lending(replace(QUICK, release="destroy"))
    decision = story.hear_for(3 * AFTER_S, FULL)
    assert (decision.suspend, decision.wanted, decision.running) == ((), 3, 3)


def test_it_wakes_as_soon_as_its_host_has_something_to_lend() -> None:
    story = asleep()
    assert story.hear([0.85, 0.1, 0.1]).running == 2, "its floor would fit, nothing more"
    decision = story.hear(FREE)
    assert (decision.running, decision.placements) == (3, ())
    story.obey()
    assert states(story) == ["running"] * 3


def test_it_is_kept_for_as_long_as_the_ladder_keeps_what_it_suspended() -> None:
    story = asleep()
    assert story.hear_for(KEPT_S - 20, FULL).wanted == 3
    decision = story.hear_for(QUICK.cooldown_s + 40, FULL)
    assert (decision.wanted, decision.victims[0]) == (2, "m")


def test_a_pause_does_not_keep_it_on_a_full_host() -> None:
    story = lending()
    story.facts["paused"] = "a person"
    decision = story.hear_for(AFTER_S, FULL)
    assert (decision.suspend, decision.running) == (("m",), 2)


def test_what_is_to_go_for_good_may_finish_its_work() -> None:
    story = lending()
    story.facts["draining"] = True
    assert story.hear_for(AFTER_S + 20, FULL).suspend == ()


@settings(max_examples=60, deadline=None)
@given(histories(), st.data())
def test_only_what_runs_is_suspended_and_it_counts_as_kept_and_not_as_running(
    history: tuple[Policy, State, Facts], data: st.DataObject
) -> None:
    policy, state, facts = history
    full = tuple((host, memory._replace(full_s=1e5)) for host, memory in state.hosts)
    heard = data.draw(good_samples(facts.now))
    _, decision = decide(policy, state._replace(hosts=full), heard, facts)
    running = {each.machine for each in facts.machines if each.state == "running"}
    assert set(decision.suspend) <= running
    assert len(decision.suspend) == len(set(decision.suspend))
    kept = sum(each.state != "draining" for each in facts.machines)
    assert 0 <= decision.running <= kept - len(decision.suspend) + len(decision.placements)
    if decision.suspend:
        assert policy.ladder.suspend
        assert policy.release == "suspend"
        assert decision.rung < Rung.SUSPEND
    owner = {
        host: (used - ours) / capacity
        for host, used, ours, capacity in zip(
            heard.hosts, heard.cpu_used_mhz, heard.cpu_ours_mhz, heard.cpu_capacity_mhz, strict=True
        )
    }
    for each in facts.machines:
        if each.machine in decision.suspend and each.host is not None:
            # A host that is not heard of counts as full.
            assert owner.get(each.host, 1.0) + 8 * 8 * 200.0 / 40_000.0 > policy.target - policy.margin


def rows(story: Story) -> list[MachineNow]:
    return [
        MachineNow(
            UUID(int=ord(each.machine)), MachineState.RUNNING, Wanted.RUNNING, each.host, each.vcpus, number
        )
        for number, each in enumerate(story.machines)
    ]


def test_the_plan_suspends_the_machine_that_is_named() -> None:
    story = lending()
    decision = story.hear_for(AFTER_S, FULL)
    names = {each.machine: str(UUID(int=ord(each.machine))) for each in story.machines}
    renamed = replace(
        decision,
        victims=tuple(names[name] for name in decision.victims),
        suspend=tuple(names[name] for name in decision.suspend),
    )
    assert plan_machines(renamed, rows(story)).wanted == {UUID(int=ord("m")): Wanted.SUSPENDED}
