"""The state as JSON."""

import json
from dataclasses import replace

import pytest

from libs.harvest.state import from_json, to_json
from libs.harvest.types import HostMemory, State
from tests.unit.harvest.story import POLICY, Story, machine


def test_a_state_is_read_back_as_it_was() -> None:
    story = Story(POLICY, machines=(machine("m", "a"),))
    states = [State()]
    for owner in (0.13, 0.27, 0.95, 0.4, 0.31):
        story.hear_for(100, [owner, owner / 2], datastore_capacity_gib=900.0, datastore_free_gib=owner * 900)
        states.append(story.state)
    story.miss(500)
    for state in [*states, story.state]:
        assert from_json(json.loads(json.dumps(to_json(state)))) == state


@pytest.mark.parametrize(("hosts", "limit"), [(8, 1024), (24, 2048), (64, 5000)])
def test_a_state_stays_small(hosts: int, limit: int) -> None:
    story = Story()
    story.hear_for(400, [0.123456789, 0.23] * 4, datastore_capacity_gib=900.0, datastore_free_gib=512.3)
    memory = HostMemory(0.12345, 0.0012345, 0.23456, 12345.0, 41599.9, 12)
    state = replace(story.state, hosts=tuple((f"host-{1000 + n}", memory) for n in range(hosts)))
    assert len(json.dumps(to_json(state), separators=(",", ":"))) <= limit


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"v": 2, "verdict": "idle", "rung": 0},
        {"v": 1, "verdict": "drunk", "rung": 0},
        {"v": 1, "verdict": "idle", "rung": 9},
        {"v": 1, "verdict": "idle", "rung": 0, "hosts": [["a", 1.0]]},
        {"v": 1, "verdict": "idle", "rung": 0, "hosts": 7},
        {"v": 1, "verdict": "idle", "rung": 0, "at": "yesterday"},
        {"v": 1, "verdict": "idle", "rung": 0, "at": 7},
        {"v": 1, "verdict": "idle", "rung": 0, "reason": ["lending"] * 9},
    ],
)
def test_what_is_no_state_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the contract is the type alone
        from_json(broken)
