"""The state as JSON."""

import json

import pytest

from libs.common.contracts.usage import Exposure
from libs.harvest.state import from_json, to_json
from libs.harvest.types import HostMemory, State, Trend
from tests.unit.harvest.story import POLICY, Story, machine


def test_a_state_is_read_back_as_it_was() -> None:
    story = Story(POLICY, machines=(machine("m", "a"),))
    states = [State()]
    for owner in (0.13, 0.27, 0.95, 0.4, 0.31):
        story.hear_for(100, [owner, owner / 2], datastore_capacity_gib=900.0, datastore_free_gib=owner * 900)
        states.append(story.state)
    story.hear([0.1, 0.1], exposed=Exposure.POOL_GONE)
    states.append(story.state)
    assert story.state.exposed == "pool_gone"
    story.miss(500)
    for state in [*states, story.state]:
        assert from_json(json.loads(json.dumps(to_json(state)))) == state


@pytest.mark.parametrize(("hosts", "limit"), [(0, 2048), (8, 3648), (64, 14848)])
def test_a_state_stays_small(hosts: int, limit: int) -> None:
    story = Story()
    story.hear_for(400, [0.123456789, 0.23] * 4, datastore_capacity_gib=900.0, datastore_free_gib=512.3)
    memory = HostMemory(
        Trend(0.12345, 0.0012345, 0.0023456, 0.34567, 0.23456, 0.12346, 0.0012346, 0.98765, 0.87654),
        *(12345.0, 41599.9, 157286, 280.0, 2780.0, 0.54, 0.53, 12345.6),
    )
    state = story.state._replace(hosts=tuple((f"host-{1000 + n}", memory) for n in range(hosts)))
    assert len(json.dumps(to_json(state), separators=(",", ":"))) <= limit


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"v": 3, "verdict": "idle", "rung": 0},
        {"v": 1, "verdict": "drunk", "rung": 0},
        {"v": 1, "verdict": "idle", "rung": 9},
        {"v": 1, "verdict": "idle", "rung": 0, "hosts": [["a", 1.0]]},
        {"v": 2, "verdict": "idle", "rung": 0, "hosts": [["a", 0.1, 0.001, 0.1, 20000, 40000, 19]]},
        {"v": 1, "verdict": "idle", "rung": 0, "hosts": 7},
        {"v": 1, "verdict": "idle", "rung": 0, "at": "yesterday"},
        {"v": 1, "verdict": "idle", "rung": 0, "at": 7},
        {"v": 1, "verdict": "idle", "rung": 0, "reason": ["lending"] * 9},
    ],
)
def test_what_is_no_state_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the contract is the type alone
        from_json(broken)


def test_a_state_of_before_is_read_and_safe() -> None:
    old = {
        "v": 1, "verdict": "idle", "rung": 0, "at": "2026-03-02T12:00:00Z", "rs": "2026-03-02T11:00:00Z",
        "hosts": [["a", 0.1, 0.001, 0.1, 20000, 40000, 19], ["b", 0.1, 0.001, 0.1, 20000, 40000, 19, 280]],
        "wanted": 2, "short": True,
    }  # fmt: skip
    state = from_json(old)
    assert (state.interval_s, state.short_since, state.stuck_since) == (None, None, None)
    assert [(host, memory.rest_s, memory.owed_s) for host, memory in state.hosts] == [
        ("a", 0, 0),
        ("b", 280, 0),
    ]
    trend = state.hosts[0][1].trend
    assert (trend.level, trend.fast, trend.slow, trend.peak, trend.last) == (0.1, 0.001, 0.001, 0.1, 0.1)
    sleeping = Story(state=state, machines=(machine("m", "a", "suspended"),))
    decision = sleeping.miss(
        20
    )  # a count of machines stood where memory stands now: nothing fits before a sample
    assert (decision.running, decision.placements) == (0, ())
    assert sleeping.hear([0.1, 0.1]).running == 1


def test_releases_beside_each_other_read_each_other() -> None:
    story = Story(POLICY, machines=(machine("m", "a"),))
    for owner in (0.13, 0.5, 0.31):
        story.hear_for(100, [owner, owner / 2])
    written = to_json(story.state)
    assert all(13 <= len(row) <= 16 for row in written["hosts"])  # as the release before wrote them
    del written["hi"]
    read, known = from_json(written), story.state
    assert [memory.trend.high for _, memory in read.hosts] == [memory.trend.peak for _, memory in known.hosts]
    assert [memory.trend[:7] for _, memory in read.hosts] == [memory.trend[:7] for _, memory in known.hosts]
