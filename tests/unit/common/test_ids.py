"""Ids: fresh ones rise with time, derived ones are the same everywhere and for ever."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from libs.common.ids import cluster_id, new_id, sample_id, state_id

RESOURCE = UUID("00000000-0000-7000-8000-00000000000a")


def test_fresh_ids_rise_and_are_of_version_7() -> None:
    ids = [new_id() for _ in range(5000)]
    assert all(one < other for one, other in pairwise(ids))
    assert {(id.version, id.variant) for id in ids} == {(7, "specified in RFC 4122")}


def test_threads_never_make_the_same_id() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = [id for some in pool.map(lambda _: [new_id() for _ in range(500)], range(8)) for id in some]
    assert len(set(ids)) == len(ids)


def test_derived_ids_are_frozen() -> None:
    """Rows and messages of every installation carry them: another result is another cluster."""
    assert cluster_id(RESOURCE, "domain-c8") == UUID("ea8872dd-db46-5594-9eeb-307e7148d267")
    assert sample_id(RESOURCE, "2026-03-01T12:00:00Z") == UUID("ad35e630-e561-5fbf-bd51-9b3039f77bbe")
    assert state_id("resource.changed.v1", str(RESOURCE), 3) == UUID("9ecea606-42cf-545e-b1e4-d88f80c66fd6")


@given(st.uuids(), st.uuids(), st.text(), st.text())
def test_derived_ids_differ_where_anything_differs(one: UUID, other: UUID, here: str, there: str) -> None:
    same = (one, here) == (other, there)
    assert (cluster_id(one, here) == cluster_id(other, there)) == same
    assert (sample_id(one, here) == sample_id(other, there)) == same
    assert cluster_id(one, here) != sample_id(one, here)


@given(st.text(), st.integers(), st.integers())
def test_a_revision_is_another_state(subject: str, one: int, other: int) -> None:
    first, second = (state_id("policy.assigned.v1", subject, revision) for revision in (one, other))
    assert (first == second) == (one == other)
    assert first != state_id("template.changed.v1", subject, one)
