"""The life of a machine: every step that the rules propose is an arrow of the table, and leads where it should."""

from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from libs.providers.base import MachineSeen, Mark, Power
from services.workload.domain.states import (
    LIVE,
    NEXT,
    PRESENT,
    ImpossibleTransition,
    MachineState,
    Wanted,
    advance,
)
from services.workload.domain.steps import Act, next_build_step, next_step


def a_machine_seen(
    power: Power = Power.ON, *, configured: bool = True, task: str | None = None
) -> MachineSeen:
    return MachineSeen("tides-x", Mark(uuid4(), uuid4()), "c1", "h1", power, configured, 400.0, task)


SEEN = st.one_of(
    st.none(),
    st.builds(
        a_machine_seen,
        st.sampled_from([Power.ON, Power.OFF, Power.SUSPENDED]),
        configured=st.booleans(),
        task=st.sampled_from([None, "task-1"]),
    ),
)


@given(st.sampled_from(sorted(LIVE)), st.sampled_from(list(Wanted)), SEEN, st.booleans())
@example(MachineState.REQUESTED, Wanted.SUSPENDED, a_machine_seen(), False)
def test_every_step_is_in_the_table(
    state: MachineState, wanted: Wanted, seen: MachineSeen | None, drained: bool
) -> None:
    step = next_step(state, wanted, seen, drained=drained)

    advance(state, step.state)


@given(st.sampled_from(sorted(LIVE)), st.sampled_from(list(Wanted)), SEEN, st.booleans())
def test_a_machine_with_a_running_task_is_not_asked_for_more(
    state: MachineState, wanted: Wanted, seen: MachineSeen | None, drained: bool
) -> None:
    step = next_step(state, wanted, seen, drained=drained)

    if seen is not None and seen.task is not None and step.act is not Act.DELETE:
        assert step.act in {None}


@given(st.sampled_from(sorted(LIVE)), SEEN)
def test_what_is_to_go_and_is_drained_reaches_destroying_in_one_step(
    state: MachineState, seen: MachineSeen | None
) -> None:
    step = next_step(state, Wanted.GONE, seen, drained=True)

    is_out_of_sight = seen is None and state in PRESENT | {MachineState.LOST}
    assert step.state is (state if is_out_of_sight else MachineState.DESTROYING)
    assert (step.act is Act.DELETE) == (seen is not None)


def test_a_working_machine_is_drained_before_it_is_destroyed() -> None:
    step = next_step(MachineState.RUNNING, Wanted.GONE, a_machine_seen(), drained=False)

    assert (step.state, step.act) == (MachineState.DRAINING, None)


def test_a_suspended_machine_is_resumed_when_wanted() -> None:
    step = next_step(MachineState.SUSPENDED, Wanted.RUNNING, a_machine_seen(Power.SUSPENDED), drained=False)

    assert (step.state, step.act) == (MachineState.STARTING, Act.POWER_ON)


def test_an_unfinished_clone_is_taken_up_again() -> None:
    step = next_step(
        MachineState.CREATING, Wanted.RUNNING, a_machine_seen(Power.OFF, configured=False), drained=False
    )

    assert step.act is Act.CREATE


def test_absent_is_never_destroyed_by_a_step() -> None:
    step = next_step(MachineState.RUNNING, Wanted.RUNNING, None, drained=False)

    assert (step.state, step.act) == (MachineState.RUNNING, None)


def test_the_dead_stay_dead() -> None:
    assert NEXT[MachineState.DESTROYED] == frozenset()
    with pytest.raises(ImpossibleTransition, match="destroyed -> running"):
        advance(MachineState.DESTROYED, MachineState.RUNNING)


@given(st.sampled_from(sorted(LIVE)))
def test_every_state_leads_to_destroyed(state: MachineState) -> None:
    reached, frontier = {state}, {state}
    while frontier:
        frontier = {to for known in frontier for to in NEXT[known]} - reached
        reached |= frontier

    assert MachineState.DESTROYED in reached


@given(st.sampled_from(sorted(LIVE)), st.sampled_from(list(Wanted)), SEEN, st.booleans())
def test_a_builder_is_kept_only_when_it_has_run_and_is_off_or_out_of_sight(
    state: MachineState, wanted: Wanted, seen: MachineSeen | None, has_run: bool
) -> None:
    step = next_build_step(state, wanted, seen, has_run=has_run)

    advance(state, step.state)
    if step.act is Act.KEEP:
        assert (has_run, wanted) == (True, Wanted.RUNNING)
        assert seen is None or (seen.power, seen.task) == (Power.OFF, None)
    elif has_run and wanted is Wanted.RUNNING and state is MachineState.RUNNING:
        assert seen is not None, "it may be a template already"
        assert step.act is None or seen.power is Power.SUSPENDED


def test_a_builder_that_counts_as_lost_may_be_a_template_all_the_same() -> None:
    """Its being made one was not answered, twice, and three looks did not show it."""
    step = next_build_step(MachineState.LOST, Wanted.RUNNING, None, has_run=True)

    assert (step.state, step.act) == (MachineState.LOST, Act.KEEP)
    found = next_build_step(MachineState.LOST, Wanted.RUNNING, a_machine_seen(), has_run=True)
    assert (found.state, found.act) == (MachineState.STARTING, None)
