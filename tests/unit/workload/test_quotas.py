"""What quotas leave a cluster: never above, the lowest priority first, and every cluster by the same choice."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from libs.harvest.allotment import NOBODY, Allotment, Asking, Given
from libs.harvest.quota import MOST, Quota, keep_within, left_for, tightest, used_by
from services.workload.domain import quotas as domain
from services.workload.domain.quotas import (
    Bound,
    Demand,
    Held,
    Place,
    Size,
    count,
    share_out,
)

EAST, WEST, RESOURCE = UUID(int=1), UUID(int=2), UUID(int=3)
SIZE = Size(4, 4096, 10.0)


def held(
    number: int, cluster: UUID = EAST, *, stays: bool = True, age_s: float = 1e6, progress_s: float = 0.0
) -> Held:
    return Held(UUID(int=100 + number), cluster, RESOURCE, 4, 4096, 10.0, stays, age_s, progress_s)


def place(cluster: UUID = EAST, most: int = 64) -> Place:
    return Place(cluster, RESOURCE, SIZE, most)


def demand(name: str, number: int, priority: int = 0, most: int | None = None) -> Demand:
    return Demand(name, Asking(UUID(int=number), priority, most))


def bound_by_organisation(
    quotas: Sequence[tuple[str, Quota]],
    fleet: list[Held],
    priorities: dict[UUID, int],
    life_s: float,
    where: Place,
) -> Bound | None:
    counted = count(quotas, fleet, priorities, life_s)
    return domain.bound_by_organisation(quotas, counted, where) if counted else None


def bound_by_projects(demands: list[Demand], fleet: list[Held], where: Place, *, apart: bool) -> Bound | None:
    return domain.bound_by_projects(demands, share_out(demands, fleet, apart=apart), where, apart=apart)


FLEETS = st.lists(
    st.tuples(st.sampled_from([EAST, WEST]), st.booleans(), st.floats(0, 1e4), st.floats(0, 1e4)), max_size=10
).map(
    lambda rows: [
        held(number, cluster, stays=stays, age_s=age_s, progress_s=progress_s)
        for number, (cluster, stays, age_s, progress_s) in enumerate(rows)
    ]
)
QUOTAS = st.builds(Quota, st.integers(0, 12), st.one_of(st.none(), st.integers(0, 48)))


@given(FLEETS, QUOTAS, st.dictionaries(st.integers(0, 9), st.integers(-2, 2)))
def test_all_clusters_together_never_get_more_than_the_quota(
    fleet: list[Held], quota: Quota, ranks: dict[int, int]
) -> None:
    priorities = {UUID(int=100 + number): priority for number, priority in ranks.items()}
    there = {
        cluster: [one for one in fleet if one.cluster_id == cluster and one.stays] for cluster in (EAST, WEST)
    }
    bounds: list[Bound] = []
    for cluster, staying in there.items():
        bound = bound_by_organisation([("p", quota)], fleet, priorities, 60.0, place(cluster))
        assert bound is not None
        more = max(0, bound.machines - len(staying))
        assert (bound.why == "") == (more > 0)
        grown = [*fleet, *[held(50 + number) for number in range(more)]]
        assert more == 0 or all(used_by(grown, kind) <= most for kind, most in quota.bounds())
        bounds.append(bound)
    if all(bound.why for bound in bounds):
        kept = [held(number) for number in range(sum(bound.machines for bound in bounds))]
        assert all(used_by(kept, kind) <= most for kind, most in quota.bounds())


@given(FLEETS, FLEETS, QUOTAS)
def test_who_is_about_to_come_back_leaves_less_for_new_ones_and_pushes_nobody_out(
    fleet: list[Held], absent: list[Held], quota: Quota
) -> None:
    quotas, returning = [("p", quota)], [replace(one, id=UUID(int=one.id.int + 50)) for one in absent]
    alone, with_them = count(quotas, fleet, {}, 60.0), count(quotas, fleet, {}, 60.0, returning)
    assert alone is not None
    assert with_them is not None
    assert with_them.kept == alone.kept
    for kind, _ in quota.bounds():
        assert with_them.used[kind] == used_by([*fleet, *returning], kind)


@given(FLEETS, st.integers(0, 10), st.dictionaries(st.integers(0, 9), st.integers(-2, 2)))
def test_a_lowered_quota_leaves_the_highest_priority_and_the_most_progress(
    fleet: list[Held], most: int, ranks: dict[int, int]
) -> None:
    fleet = [replace(one, stays=True, age_s=1e6) for one in fleet]
    priorities = {one.id: ranks.get(number, 0) for number, one in enumerate(fleet)}
    best = sorted(fleet, key=lambda one: (-priorities[one.id], -one.progress_s, one.id))[:most]

    for cluster in (EAST, WEST):
        bound = bound_by_organisation([("p", Quota(machines=most))], fleet, priorities, 0.0, place(cluster))
        assert bound is not None
        if len(fleet) >= most:
            assert bound.machines == sum(one.cluster_id == cluster for one in best)


def test_what_is_on_its_way_out_takes_of_the_quota_until_it_is_gone() -> None:
    fleet = [held(1), held(2, stays=False)]
    assert bound_by_organisation([("p", Quota(vcpus=12))], fleet, {}, 0.0, place()) == Bound(2)

    full = bound_by_organisation([("lab", Quota(vcpus=8))], fleet, {}, 0.0, place(WEST))
    assert full == Bound(
        0, "the organisation's quota of 8 vCPUs (policy lab) is used up: 8 are taken on all its clusters"
    )


def test_the_tightest_of_several_policies_holds_and_is_named() -> None:
    quotas = [("wide", Quota(machines=9)), ("narrow", Quota(machines=1)), ("other", Quota(vcpus=400))]
    bound = bound_by_organisation(quotas, [held(1), held(2, WEST)], {}, 0.0, place())
    assert bound is not None
    assert bound.why.startswith(
        "the organisation's quota of 1 machine (policy narrow) is exceeded: 2 are taken"
    )


def test_the_young_are_not_chosen_while_an_older_one_elsewhere_can_go() -> None:
    fleet = [held(1, age_s=10.0, progress_s=0.0), held(2, WEST, progress_s=9000.0)]
    quota = [("p", Quota(machines=1))]
    assert [
        bound.machines
        for cluster in (EAST, WEST)
        if (bound := bound_by_organisation(quota, fleet, {}, 3600.0, place(cluster)))
    ] == [1, 0]


def test_a_machine_that_would_work_for_nobody_is_neither_made_nor_kept() -> None:
    fleet = [held(1), held(2), held(3, WEST)]
    demands = [demand("Rosetta", 7, most=1), demand("LHC", 8, priority=-5, most=1)]

    assert share_out(demands, fleet, apart=True).priorities == {
        fleet[0].id: 0, fleet[1].id: -5, fleet[2].id: NOBODY
    }  # fmt: skip
    here, there = (bound_by_projects(demands, fleet, place(where), apart=True) for where in (EAST, WEST))
    assert here == Bound(
        2,
        "nobody is left to work for: the quotas of projects are used up (Rosetta 1 machine; LHC 1 machine)",
    )
    assert there is not None
    assert there.machines == 0
    roomy = [demand("Rosetta", 7, most=5)]
    assert bound_by_projects(roomy, fleet, place(WEST), apart=True) == Bound(3)
    assert bound_by_projects([*roomy, demand("LHC", 8)], fleet, place(), apart=True) is None


def test_machines_with_files_are_bounded_by_the_narrowest_project() -> None:
    demands = [demand("Rosetta", 7), demand("LHC", 8, priority=-5, most=1)]
    bound = bound_by_projects(demands, [held(1), held(2)], place(), apart=False)
    assert bound is not None
    assert bound.machines == 1
    assert "work for every one" in bound.why


@given(
    st.lists(
        st.tuples(
            st.sampled_from([EAST, WEST]),
            st.sampled_from([None, 0, 1, 3, 6]),
            st.integers(0, 3),
            st.integers(0, 2),
            st.booleans(),
        ),
        max_size=25,
    )
)
def test_whatever_comes_and_goes_nobody_grows_above_the_quota_and_all_come_down_to_it(
    story: list[tuple[UUID, int | None, int, int, bool]],
) -> None:
    """Clusters are judged in any order while the quota changes, machines drain for a while, and some vanish."""
    quota, fleet, made = 4, list[Held](), 0

    def judge(cluster: UUID, wish: int) -> None:
        nonlocal fleet, made
        bound = bound_by_organisation([("p", Quota(machines=quota))], fleet, {}, 0.0, place(cluster))
        assert bound is not None
        mine = [one for one in fleet if one.cluster_id == cluster and one.stays]
        mine.sort(key=lambda one: (one.progress_s, -one.id.int))
        going = {one.id for one in mine[: max(0, len(mine) - bound.machines)]}
        fleet = [replace(one, stays=one.stays and one.id not in going) for one in fleet]
        for _ in range(min(wish, max(0, bound.machines - len(mine)))):
            made += 1
            fleet.append(held(made, cluster, progress_s=float(made % 3)))

    for cluster, new_quota, wish, vanish, drained in story:
        quota = quota if new_quota is None else new_quota
        before = len(fleet)
        judge(cluster, wish)
        assert len(fleet) <= max(before, quota)
        fleet = [one for one in fleet if one.stays or not drained][vanish:]
    for cluster in (EAST, WEST):
        judge(cluster, 0)
    assert sum(one.stays for one in fleet) <= quota


DEMANDS = st.lists(
    st.tuples(
        st.integers(-2, 2), st.none() | st.integers(0, 6), st.none() | st.integers(0, 20), st.booleans()
    ),
    max_size=4,
).map(
    lambda rows: [
        Demand(
            f"p{number}",
            Asking(UUID(int=number), priority, machines, vcpus, None if anywhere else frozenset()),
        )
        for number, (priority, machines, vcpus, anywhere) in enumerate(rows)
    ]
)


@given(FLEETS, st.lists(st.tuples(st.just("p"), QUOTAS), max_size=3), DEMANDS, st.booleans())
def test_what_is_counted_once_says_to_each_cluster_what_counting_for_it_alone_says(
    fleet: list[Held], quotas: list[tuple[str, Quota]], demands: list[Demand], apart: bool
) -> None:
    working = share_out(demands, fleet, apart=apart)
    counted = count(quotas, fleet, working.priorities, 60.0)
    for where in (place(EAST), place(WEST, most=3), place(UUID(int=5)), place(EAST)):
        allotment: Allotment[UUID, UUID] = Allotment([one.asking for one in demands], apart=apart)
        priorities, useful = {}, 0
        for one in sorted(fleet, key=lambda one: one.id):
            if one.stays:
                priorities[one.id] = allotment.give(Given(one.id, one.resource_id, one.vcpus)).priority
                useful += priorities[one.id] > NOBODY and one.cluster_id == where.cluster_id
        assert working.priorities == priorities
        more = allotment.give_more(Given(where.cluster_id, where.resource_id, where.size.vcpus), where.most)
        bound = domain.bound_by_projects(demands, working, where, apart=apart)
        assert bound is None or bound.machines == useful + more

        quota = tightest(known for _, known in quotas)
        left = left_for(quota, fleet, where.size) if quota else None
        assert (counted is None) == (left is None)
        if counted is None or quota is None or left is None:
            continue
        in_order = sorted(
            (one for one in fleet if one.stays),
            key=lambda one: (one.age_s >= 60.0, -priorities.get(one.id, 0), -one.progress_s, one.id),
        )
        mine = sum(one.cluster_id == where.cluster_id for one in keep_within(quota, in_order))
        told = domain.bound_by_organisation(quotas, counted, where)
        assert told is not None
        assert (told.machines, bool(told.why)) == (min(MOST, mine + left.machines), left.machines == 0)
