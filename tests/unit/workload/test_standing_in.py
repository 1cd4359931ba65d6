"""When a cloud counts as away and when it is back, and that a stand-in is only what its owner meant."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from services.workload.domain.standing_in import AWAY_AFTER, BACK_AFTER, Able, Seen, Standing, choose, judge

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
STEP = timedelta(seconds=30)
IDS = [UUID(int=number) for number in range(4)]


def run(answers: Sequence[bool]) -> list[tuple[datetime, bool]]:
    """When it became away and was back, looked at every half minute; False is a bad answer."""
    standing, failing_since, changes = Standing(), None, []
    for number, is_good in enumerate(answers):
        now = START + number * STEP
        failing_since = None if is_good else failing_since or now
        before = standing.away_since is not None
        retry_at = None if is_good else now + timedelta(seconds=30)
        standing = judge(standing, Seen(failing_since, retry_at), now)
        if (standing.away_since is not None) is not before:
            changes.append((now, not before))
    return changes


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=12))
def test_it_takes_ten_minutes_of_bad_answers_and_five_of_good_ones_without_a_break(
    spells: list[tuple[bool, int]],
) -> None:
    answers = [is_good for is_good, count in spells for _ in range(count)]
    for at, is_away in run(answers):
        end = round((at - START) / STEP)
        needed = round((AWAY_AFTER if is_away else BACK_AFTER) / STEP)
        assert set(answers[end - needed : end + 1]) == {not is_away}
    tail = next((count for count, good in enumerate(reversed(answers)) if good), len(answers))
    if tail * STEP > AWAY_AFTER:
        assert run(answers)[-1][1] is True, "whoever fails for long enough counts as away"


def test_a_failure_that_nobody_looked_at_since_says_nothing_of_now() -> None:
    hour = timedelta(hours=1)
    assert judge(Standing(), Seen(START, START), START + hour) == Standing(), "workload itself was away"
    assert judge(Standing(), Seen(START, START + hour), START + hour).away_since == START + hour


ABLE = st.builds(
    Able,
    organisation_id=st.sampled_from(IDS[:2]),
    is_away=st.booleans(),
    lends=st.booleans(),
    stand_in_id=st.none() | st.sampled_from(IDS),
)


@given(st.dictionaries(st.sampled_from(IDS), ABLE))
def test_a_stand_in_lends_answers_is_of_the_same_owner_and_is_the_one_that_was_named(
    known: dict[UUID, Able],
) -> None:
    for resource_id in IDS:
        chosen = choose(resource_id, known)
        if chosen is None:
            continue
        one, other = known[resource_id], known[chosen]
        assert (one.is_away, one.lends, one.stand_in_id) == (True, True, chosen)
        assert (other.is_away, other.lends, other.organisation_id) == (False, True, one.organisation_id)
        assert chosen != resource_id
        assert choose(chosen, known) is None, "what stands in is stood in for by nobody"


def test_it_stands_in_where_it_may() -> None:
    known = {IDS[0]: Able(IDS[0], True, True, IDS[1]), IDS[1]: Able(IDS[0], False, True, IDS[0])}
    assert choose(IDS[0], known) == IDS[1]
    assert choose(IDS[1], known) is None
