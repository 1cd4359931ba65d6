"""Whom machines work for: priorities first, never above a project's quota, and nobody is moved without need."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from libs.harvest.allotment import NOBODY, Allotment, Asking, Given, Share, allot, is_trivial

BOUND = st.one_of(st.none(), st.integers(0, 6))
ASKING = st.lists(
    st.tuples(st.integers(-3, 3), BOUND, BOUND, st.sampled_from([None, frozenset("a"), frozenset("ab")])),
    max_size=5,
).map(lambda rows: [Asking(f"p{number}", *row) for number, row in enumerate(rows)])
MACHINES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), max_size=12).map(
    lambda rows: [Given(number, resource, vcpus) for number, (resource, vcpus) in enumerate(rows)]
)


def machines(count: int, vcpus: int = 2) -> list[Given[int]]:
    return [Given(number, "a", vcpus) for number in range(count)]


@given(ASKING, MACHINES, st.booleans())
def test_no_project_ever_gets_more_than_its_quota(
    asking: list[Asking[str]], there: list[Given[int]], apart: bool
) -> None:
    shares = allot(asking, there, apart=apart)

    for one in asking:
        mine = [each for each in there if one.project in shares[each.machine].projects]
        by_standing = [each for each in there if one.project in shares[each.machine].standing_by]
        assert one.most_machines is None or len(mine) <= one.most_machines
        assert one.most_vcpus is None or sum(each.vcpus for each in mine) <= one.most_vcpus
        assert one.resources is None or all(each.resource in one.resources for each in mine + by_standing)
        assert not (by_standing and one.is_bounded)


@given(ASKING, MACHINES)
def test_no_machine_works_for_a_lower_priority_while_a_higher_one_has_room(
    asking: list[Asking[str]], there: list[Given[int]]
) -> None:
    allotment: Allotment[str, int] = Allotment(asking)
    left = {one.project: [one.most_machines, one.most_vcpus] for one in asking}
    priorities = {one.project: one.priority for one in asking}
    for machine in there:
        with_room = [one for one in asking if _has_room(left, one, machine)]
        share = allotment.give(machine)
        highest = max((one.priority for one in with_room), default=NOBODY)
        assert share.priority == highest
        assert {priorities[project] for project in share.projects} <= {highest}
        for project in share.projects:
            taken = zip(left[project], (1, machine.vcpus), strict=True)
            left[project] = [None if most is None else most - took for most, took in taken]


def _has_room(left: dict[str, list[int | None]], one: Asking[str], machine: Given[int]) -> bool:
    if one.resources is not None and machine.resource not in one.resources:
        return False
    most_machines, most_vcpus = left[one.project]
    return (most_machines is None or most_machines >= 1) and (
        most_vcpus is None or most_vcpus >= machine.vcpus
    )


@given(ASKING, MACHINES)
def test_a_machine_that_comes_last_moves_nobody(asking: list[Asking[str]], there: list[Given[int]]) -> None:
    before = allot(asking, there)
    after = allot(asking, [*there, Given(99, "a", 2)])

    assert {machine: after[machine] for machine in before} == before


@given(ASKING, MACHINES, st.integers(1, 4), st.integers(0, 30), st.booleans())
def test_many_alike_find_work_as_they_would_one_by_one(
    asking: list[Asking[str]], there: list[Given[int]], vcpus: int, most: int, apart: bool
) -> None:
    at_once, one_by_one = Allotment[str, int](asking, apart=apart), Allotment[str, int](asking, apart=apart)
    for machine in there:
        at_once.give(machine)
        one_by_one.give(machine)
    further = Given(99, "a", vcpus)

    found = at_once.give_more(further, most)

    assert found == sum(one_by_one.give(further).priority > NOBODY for _ in range(most))
    assert at_once.look(further) == one_by_one.look(further)


def test_how_many_find_work_is_no_question_of_how_many_there_might_be() -> None:
    asking = [Asking("urgent", 1, most_vcpus=10**9), Asking("usual")]

    assert Allotment[str, int](asking).give_more(Given(1, "a", 2), 10**12) == 10**12


def test_quotas_fill_from_the_highest_priority_down_and_the_lowest_stands_by() -> None:
    urgent = Asking("urgent", 10, most_machines=2)
    shares = allot([Asking("usual"), urgent, Asking("beside")], machines(4))

    work = [shares[number].projects for number in range(4)]
    assert work == [("urgent",), ("urgent",), ("usual", "beside"), ("usual", "beside")]
    assert shares[0] == Share(("urgent",), ("usual", "beside"), 10)
    assert shares[2].standing_by == ()


def test_who_is_left_works_for_nobody_once_every_quota_is_used_up() -> None:
    shares = allot([Asking("one", most_vcpus=5)], machines(4))

    assert Counter(share.priority for share in shares.values()) == {0: 2, NOBODY: 2}


def test_machines_that_hold_every_project_count_for_each_of_them() -> None:
    shares = allot([Asking("wide"), Asking("narrow", -5, most_machines=1)], machines(2), apart=False)

    assert shares[0].projects == ("wide", "narrow")
    assert shares[1].projects == (), "it would hold the narrow one's key too"


def test_without_priorities_and_quotas_everybody_works_for_everybody() -> None:
    asking = [Asking("one"), Asking("two")]

    assert is_trivial(asking)
    assert {share.projects for share in allot(asking, machines(3)).values()} == {("one", "two")}
    assert not is_trivial([Asking("one"), Asking("two", 1)])
    assert not is_trivial([Asking("one", most_machines=9)])
