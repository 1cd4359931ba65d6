"""What HA keeps free of the hosts' memory bounds what is new and what wakes, not what runs."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.usage import HostState
from libs.harvest.decide import decide
from libs.harvest.types import Facts, MachineFact, Policy, ReasonCode, State
from libs.harvest.words import explain
from tests.unit.harvest.story import MEMORY_MIB, POLICY, Story, machine
from tests.unit.harvest.test_properties import at_most, every, good_samples, histories

GREEDY = replace(POLICY, sigma=0.0, rise_s=0.0, cooldown_s=0.0, step_machines=16, machines_per_host=8)
BIG = replace(GREEDY, machine=replace(GREEDY.machine, memory_mib=32768))
"""Machines of an eighth of a host: 0.6 of four hosts' memory (0.9 less the owner's 0.3) holds 19 of them."""


def grown(**columns: Any) -> Story:
    story = Story(BIG)
    for _ in range(8):
        story.hear([0.1] * 4, **columns)
        story.obey()
    return story


@pytest.mark.parametrize(
    ("kept_hosts", "most"),
    [(None, 16), (0.0, 16), (0.25, 16), (1.0, 11), (2.0, 3), (2.3, 0), (float("nan"), 16), (-1.0, 16)],
)
def test_so_much_memory_is_never_lent(kept_hosts: float | None, most: int) -> None:
    story = grown(ha_reserve_memory_mib=None if kept_hosts is None else kept_hosts * MEMORY_MIB)
    assert len(story.machines) == most


def test_the_reason_names_what_is_left() -> None:
    story = grown(ha_reserve_memory_mib=MEMORY_MIB)
    reason = story.decisions[-1].reason
    assert (reason.code, reason.signal, reason.bound) == (ReasonCode.NO_HEADROOM, "ha_reserve", 32768.0)
    assert explain(story.decisions[-1], story.policy).startswith(
        "beside the owner and what HA keeps free the hosts' memory leaves 6 GiB for a machine of 32; "
    )


def test_an_owner_above_the_target_on_one_host_takes_from_all() -> None:
    used = (MEMORY_MIB, *(0.5 * MEMORY_MIB,) * 3)
    story = grown(ha_reserve_memory_mib=0.4 * MEMORY_MIB, memory_used_mib=used)
    assert len(story.machines) == 5  # (3 * 0.4 - 0.1 - 0.4) hosts' memory by an eighth


def test_a_host_in_maintenance_holds_nothing_of_it() -> None:
    states = (HostState.MAINTENANCE, *(HostState.CONNECTED,) * 3)
    assert len(grown(ha_reserve_memory_mib=MEMORY_MIB, states=states).machines) == 6


@pytest.mark.parametrize("column", ["memory_capacity_mib", "memory_used_mib"])
def test_where_one_host_is_not_measured_what_is_kept_is_not_risked(column: str) -> None:
    honest = MEMORY_MIB if column == "memory_capacity_mib" else 0.3 * MEMORY_MIB
    story = grown(ha_reserve_memory_mib=1.9 * MEMORY_MIB, **{column: (float("nan"), *(honest,) * 3)})
    assert story.machines == ()


def sleepers() -> tuple[MachineFact, ...]:
    return (
        machine("big", "a", "suspended", memory_mib=65536),
        machine("small", "b", "suspended", memory_mib=8192),
        machine("runs", "c", memory_mib=65536),
    )


@pytest.mark.parametrize(("kept_hosts", "running"), [(0.0, 3), (1.0, 3), (1.88, 2), (2.0, 1), (4.0, 1)])
def test_what_sleeps_wakes_beside_it_and_what_runs_runs_on(kept_hosts: float, running: int) -> None:
    story = Story(replace(GREEDY, max_machines=3), machines=sleepers())
    decision = story.hear_for(100, [0.1] * 4, ha_reserve_memory_mib=kept_hosts * MEMORY_MIB)
    assert (decision.wanted, decision.running, decision.placements) == (3, running, ())


def test_nothing_new_comes_in_the_place_of_what_has_no_room_to_wake() -> None:
    story = Story(GREEDY, machines=sleepers())
    decision = story.hear_for(100, [0.1] * 4, ha_reserve_memory_mib=1.88 * MEMORY_MIB)
    assert (decision.wanted, decision.running, decision.placements) == (3, 2, ())


SHARES = st.lists(st.floats(0.0, 0.6), min_size=4, max_size=4)
STATES = st.lists(st.sampled_from(["running", "running", "suspended", "draining"]), max_size=6)


@settings(max_examples=40, deadline=None)
@given(SHARES, STATES, st.lists(st.floats(0.0, 2.5), min_size=2, max_size=2), st.sampled_from([8192, 65536]))
def test_an_idle_cluster_lends_what_the_owner_and_ha_leave_and_never_more(
    owner: list[float], states: list[str], kept: list[float], size_mib: int
) -> None:
    wanted, used = [], [share * MEMORY_MIB for share in owner]
    for share in sorted(kept):
        machines = tuple(
            machine(f"m{n}", "abcd"[n % 4], each, memory_mib=size_mib) for n, each in enumerate(states)
        )
        story = Story(BIG, machines=machines)
        columns = {"memory_used_mib": tuple(used), "ha_reserve_memory_mib": share * MEMORY_MIB}
        decision = story.hear_for(80, [0.1] * 4, **columns)
        new = decision.running - states.count("running")
        if new > 0:
            ours = sum(size_mib for each in states if each != "suspended")
            ours += sum([32768 for _ in decision.placements] or [size_mib for _ in range(new)])
            assert sum(used) + share * MEMORY_MIB + ours <= 4 * POLICY.target * MEMORY_MIB + 1
        wanted.append((decision.wanted, decision.running))
    assert wanted[0] >= wanted[1]
    assert wanted[0][1] >= wanted[1][1]


def test_a_reserve_that_could_not_be_read_for_once_is_not_lent() -> None:
    story = grown(ha_reserve_memory_mib=MEMORY_MIB)
    for kept in (None, float("nan"), None, None):
        story.hear([0.1] * 4, ha_reserve_memory_mib=kept)
        story.obey()
    assert len(story.machines) == 11
    for _ in range(4):
        story.hear([0.1] * 4, ha_reserve_memory_mib=0.0)
        story.obey()
    assert len(story.machines) == 16, "and one that is given up is"


@every
@given(histories(), st.data(), st.floats(0.0, 4.0 * MEMORY_MIB), st.floats(0.0, 4.0 * MEMORY_MIB))
def test_more_that_ha_keeps_free_never_allows_more_machines(
    history: tuple[Policy, State, Facts], data: st.DataObject, one: float, other: float
) -> None:
    policy, state, facts = history
    heard = data.draw(good_samples(facts.now))
    reserves = [0.0, *sorted([one, other])]
    kept = [decide(policy, state, replace(heard, ha_reserve_memory_mib=each), facts)[1] for each in reserves]
    for less, more in itertools.pairwise(reversed(kept)):
        assert at_most(less, more)
        assert less.running <= more.running
        assert (less.budgets, less.verdict, less.rung) == (more.budgets, more.verdict, more.rung)
