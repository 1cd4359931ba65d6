"""Who is left how much: all together hold all, and a newcomer counts once it has lived as long as a lease."""

from hypothesis import given
from hypothesis import strategies as st

from libs.common.sharing import Share, fair_share

few = st.integers(0, 20)


def test_a_part_is_rounded_up() -> None:
    assert [fair_share(count, 2) for count in (0, 1, 4, 5)] == [0, 1, 2, 3]
    assert fair_share(3, 0) == 3


@given(few, st.booleans(), few)
def test_newcomers_are_neither_handed_anything_nor_in_the_way_of_who_is_proven(
    resources: int, is_proven: bool, newcomers: int
) -> None:
    share = Share(resources, 0, is_proven, others=newcomers, proven=0)
    assert share.keeps == resources
    assert share.takes == (resources if is_proven else fair_share(resources, 1 + newcomers))


@given(few, few, few)
def test_the_proven_take_all_together_and_leave_nothing_to_a_newcomer(
    resources: int, proven: int, newcomers: int
) -> None:
    everybody = proven + newcomers
    share = Share(resources, 0, is_proven=True, others=everybody, proven=proven)
    assert share.takes == share.keeps == fair_share(resources, 1 + proven)
    newcomer = Share(resources, 0, is_proven=False, others=everybody, proven=1 + proven)
    assert newcomer.takes == 0
