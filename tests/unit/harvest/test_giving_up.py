"""Where nothing can be suspended, what may not run is given up, and nothing else."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.usage import HostState
from libs.harvest.decide import decide
from libs.harvest.types import Decision, Facts, MachineFact, Policy, Rung, State
from services.workload.domain.plan import MachineNow, plan_machines
from services.workload.domain.states import MachineState, Wanted
from tests.unit.harvest.story import POLICY, START, Story, machine, sample

QUICK = replace(POLICY, sigma=0.0, rise_s=0.0, max_machines=3)
NO_SUSPEND = replace(QUICK, ladder=replace(QUICK.ladder, suspend=False))
SHORT: dict[str, Any] = {"datastore_capacity_gib": 1000.0, "datastore_free_gib": 50.0}
FULL_ENOUGH: dict[str, Any] = {"datastore_capacity_gib": 1000.0, "datastore_free_gib": 250.0}
MAINTAINED = (HostState.MAINTENANCE, HostState.CONNECTED, HostState.CONNECTED)


def lending(policy: Policy, *machines: MachineFact, **columns: Any) -> Story:
    story = Story(policy, machines=machines or (machine("m", "a"), machine("n", "b")))
    story.hear_for(200, [0.1] * 3, **columns)
    return story


@pytest.mark.parametrize(
    ("policy", "store"), [(NO_SUSPEND, SHORT), (NO_SUSPEND, FULL_ENOUGH), (QUICK, SHORT), (NO_SUSPEND, {})]
)
def test_maintenance_gives_up_what_cannot_be_suspended(policy: Policy, store: dict[str, Any]) -> None:
    story = lending(policy, **store)
    decision = story.hear([0.1] * 3, states=MAINTAINED, **store)
    assert (decision.wanted, decision.running, decision.victims[0]) == (1, 1, "m")
    assert given_up_and_suspended(decision, story.machines) == ({"m"}, set())
    story.machines = story.machines[1:]
    assert story.hear([0.1] * 3, states=MAINTAINED, **store).wanted >= 2, "another may be made elsewhere"


def test_maintenance_suspends_where_that_is_possible() -> None:
    story = lending(QUICK)
    decision = story.hear([0.1] * 3, states=MAINTAINED)
    assert given_up_and_suspended(decision, story.machines) == (set(), {"m"})


def test_what_sleeps_elsewhere_is_not_given_up_for_it() -> None:
    story = lending(
        NO_SUSPEND, machine("m", "a"), machine("n", "b"), machine("s", "c", "suspended"), **FULL_ENOUGH
    )
    decision = story.hear([0.1] * 3, states=MAINTAINED, **FULL_ENOUGH)
    assert given_up_and_suspended(decision, story.machines) == ({"m"}, set())


def test_a_datastore_that_runs_short_while_machines_are_suspended_suspends_no_more() -> None:
    story = lending(QUICK)
    story.hear_for(240, [0.9] * 3)
    assert story.decisions[-1].rung is Rung.SUSPEND
    story.machines = (machine("m", "a", "suspended"), machine("n", "b"))
    decision = story.hear([0.9] * 3, **SHORT)
    assert given_up_and_suspended(decision, story.machines) == ({"n"}, set())


HOSTS = ("a", "b", "c")
FLEETS = st.lists(
    st.tuples(
        st.sampled_from([*HOSTS, "z", None]),
        st.sampled_from(["running", "starting", "suspended"]),
        st.integers(1, 200),
        st.sampled_from([None, 1024, 200_000]),
    ),
    max_size=8,
).map(
    lambda rows: tuple(
        MachineFact(str(UUID(int=number)), host, state, vcpus, 1.0, memory_mib=memory_mib)
        for number, (host, state, vcpus, memory_mib) in enumerate(rows, start=1)
    )
)


@settings(max_examples=100, deadline=None)
@given(
    FLEETS,
    st.sampled_from(
        [NO_SUSPEND, QUICK, replace(QUICK, release="destroy"), replace(NO_SUSPEND, max_share=0.1)]
    ),
    st.sampled_from(list(Rung)),
    st.lists(st.sampled_from(list(HostState)), min_size=3, max_size=3),
    st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3),
    st.integers(0, 8),
)
def test_nothing_is_ordered_to_sleep_where_that_is_impossible(
    fleet: tuple[MachineFact, ...],
    policy: Policy,
    rung: Rung,
    states: list[HostState],
    owner: list[float],
    granted: int,
) -> None:
    state = State(rung=rung, rung_since=START - timedelta(hours=1), wanted=len(fleet))
    heard = sample(owner, states=tuple(states), **SHORT)
    _, decision = decide(policy, state, heard, Facts(START, fleet, granted))
    given_up, put_to_sleep = given_up_and_suspended(decision, fleet)
    assert put_to_sleep == set()
    awake = {each.machine for each in fleet if each.state != "suspended"}
    if decision.rung < Rung.SUSPEND:
        resumed = {each.machine for each in fleet} - awake - given_up
        least = min(decision.running, len(awake)) - len(decision.placements) - len(resumed)
        assert len(awake - given_up) >= least


def given_up_and_suspended(decision: Decision, fleet: tuple[MachineFact, ...]) -> tuple[set[str], set[str]]:
    """What the plan makes of the decision: names of machines that go, and of those that are to be suspended."""
    names = {
        UUID(int=ord(each.machine)) if len(each.machine) == 1 else UUID(each.machine): each for each in fleet
    }
    victims = {each.machine: str(identity) for identity, each in names.items()}
    renamed = replace(decision, victims=tuple(victims[name] for name in decision.victims))
    rows = [_row(identity, each) for identity, each in names.items()]
    wanted = plan_machines(renamed, rows).wanted
    going = {names[identity].machine for identity, want in wanted.items() if want is Wanted.GONE}
    return going, {names[identity].machine for identity, want in wanted.items() if want is Wanted.SUSPENDED}


def _row(identity: UUID, fact: MachineFact) -> MachineNow:
    sleeps = fact.state == "suspended"
    state = MachineState.SUSPENDED if sleeps else MachineState.RUNNING
    wanted = Wanted.SUSPENDED if sleeps else Wanted.RUNNING
    return MachineNow(identity, state, wanted, fact.host, fact.vcpus, identity.int % 2**31)
