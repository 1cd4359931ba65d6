"""Who is replaced: a share at a time, nobody young, and not the third of a cluster whose guests do not work."""

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.workload.domain.attached import Outdated, Urgency
from services.workload.domain.renewal import (
    LEAST_AGE_S,
    MOST_SHARE,
    SILENT_FOR_S,
    Tenant,
    ailing,
    due_for_renewal,
    lapsed,
    why_starved,
)
from services.workload.domain.slots import free_slots
from services.workload.domain.states import MachineState, Wanted

LATER = Outdated(Urgency.GRADUALLY, "changed")
NOW = Outdated(Urgency.AT_ONCE, "ended")


def tenant(number: int, **more: object) -> Tenant:
    usual = Tenant(UUID(int=number), MachineState.RUNNING, Wanted.RUNNING, False, LEAST_AGE_S, LATER)
    return replace(usual, **more)  # type: ignore[arg-type]


def ids(found: list[tuple[UUID, str]]) -> list[int]:
    return [each.int for each, _ in found]


def test_a_quarter_at_a_time_the_oldest_first_and_at_least_one() -> None:
    eight = [tenant(number) for number in range(8)]
    assert ids(due_for_renewal(eight)) == [0, 1]
    assert ids(due_for_renewal(eight[:2])) == [0]
    on_its_way = tenant(8, state=MachineState.STARTING, outdated=None)
    assert ids(due_for_renewal([*eight, on_its_way])) == [0]
    leaving = tenant(9, wanted=Wanted.GONE, by_hand=True)
    assert ids(due_for_renewal([*eight, on_its_way, leaving])) == []
    assert ids(due_for_renewal([tenant(1, age_s=LEAST_AGE_S - 1), tenant(2), tenant(3)])) == [2]
    assert ids(due_for_renewal([tenant(1, outdated=None)])) == []


def test_what_works_for_nobody_goes_at_once_however_young_and_many() -> None:
    four = [tenant(number, outdated=NOW, age_s=0.0) for number in range(4)]
    assert ids(lapsed(four)) == [0, 1, 2, 3]
    assert ids(lapsed([tenant(1), tenant(2, outdated=NOW, by_hand=True)])) == []


@given(
    st.lists(
        st.builds(
            tenant,
            st.integers(0, 2**64),
            state=st.sampled_from(MachineState),
            wanted=st.sampled_from(Wanted),
            by_hand=st.booleans(),
            age_s=st.floats(0, 1e5),
            outdated=st.sampled_from([None, LATER]),
        ),
        max_size=40,
    )
)
def test_never_more_than_the_share_is_under_way(tenants: list[Tenant]) -> None:
    chosen = due_for_renewal(tenants)
    living = [each for each in tenants if each.state is not MachineState.DESTROYED]
    moving = [each for each in living if not each.is_settled]
    assert len(chosen) <= max(0, max(1, int(MOST_SHARE * len(living))) - len(moving))


@pytest.mark.parametrize("health", ["broken", "absent"])
def test_a_guest_that_does_not_work_is_named_with_what_ails_it(health: str) -> None:
    sick = tenant(1, health=health)
    assert ids(ailing([sick, tenant(2, health="working")])) == [1]
    assert ids(ailing([replace(sick, state=MachineState.SUSPENDED)])) == []
    assert ids(ailing([replace(sick, by_hand=True)])) == []
    assert ids(ailing([replace(sick, health=None), tenant(3, health="starved")])) == []


def test_silence_counts_after_an_hour_and_not_where_all_are_silent() -> None:
    silent = tenant(1, health="silent", health_for_s=SILENT_FOR_S)
    heard = [tenant(2, health="working"), tenant(3, health="starved")]
    assert ids(ailing([silent, *heard])) == [1]
    assert ids(ailing([replace(silent, health_for_s=SILENT_FOR_S - 1), *heard])) == []
    assert ids(ailing([silent, tenant(2, health="silent", health_for_s=SILENT_FOR_S), heard[0]])) == []
    assert ids(ailing([silent])) == []


def test_a_cluster_of_which_half_has_nothing_to_do_does_not_grow() -> None:
    work, none = ("working", None), ("starved", "its projects gave it no work")
    assert why_starved([work, work, none]) is None
    assert why_starved([]) is None
    assert why_starved([("silent", None), (None, None)]) is None
    said = why_starved([work, none, ("broken", None)])
    assert said == "nothing new: 1 of 2 machines have nothing to do: its projects gave it no work"


@given(st.sets(st.integers(1, 60)), st.integers(0, 40))
def test_slots_are_the_lowest_that_no_living_machine_has(taken: set[int], wanted: int) -> None:
    found = free_slots(taken, wanted)
    assert len(found) == wanted
    assert taken.isdisjoint(found)
    assert found == sorted(set(found))
    assert all(slot in taken or slot in found for slot in range(1, max(found, default=0) + 1))
