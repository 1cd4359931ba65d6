"""What must be true after every story: the books of workload agree with what was said, and can be replayed."""

import json
from collections import Counter
from typing import Any, Protocol
from uuid import UUID

from libs.common.contracts.action import (
    LimitFact,
    LimitsApplied,
    LimitsFailed,
    LimitsRequested,
    LimitsSuperseded,
    MachineDeployed,
    MachineDestroyed,
    MachineFact,
    MachineRequested,
)
from libs.common.contracts.base import Event
from libs.harvest.decide import decide
from libs.harvest.document import parse
from libs.harvest.state import from_json
from libs.providers.simulated import Cloud
from services.workload.usecases.causes import TRACE
from services.workload.usecases.stored import Inputs, decision_as_json, facts_as_json, observation_as_json

_ONCE = (MachineRequested, MachineDeployed, MachineDestroyed)


class Books(Protocol):
    """The part of a house that is checked."""

    said: list[Event]
    documents: dict[int, dict[str, Any]]
    cloud: Cloud

    async def fetch(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Look into workload's schema."""

    async def settle(self) -> None:
        """Wait until nothing goes on."""


async def check_books(books: Books) -> None:
    """Nothing said twice or left unsaid, every limit with at most one outcome, every decision replays."""
    await books.settle()
    await _check_log(books)
    _check_limits([event for event in books.said if isinstance(event, LimitFact)])
    _check_machines([event for event in books.said if isinstance(event, MachineFact)])
    await _check_cloud(books)
    await check_replay(books)


async def _check_log(books: Books) -> None:
    """What is on the bus is in the log and the other way round; every event has a reason."""
    logged = {row["id"]: row for row in await books.fetch("select id, key, body from action_event")}
    heard = Counter(event.id for event in books.said)
    assert {identity for identity, times in heard.items() if times > 1} == set()
    assert heard.keys() == logged.keys()
    for event in books.said:
        assert logged[event.id]["body"] == event.model_dump(mode="json")
        assert getattr(event, "reason", "-"), event


def _check_limits(events: list[LimitFact]) -> None:
    by_action: dict[UUID, list[type[LimitFact]]] = {}
    for event in sorted(events, key=lambda event: event.id):
        by_action.setdefault(event.action_id, []).append(type(event))
    for action, kinds in by_action.items():
        counts = Counter(kinds)
        assert counts[LimitsRequested] == 1, (action, kinds)
        assert counts[LimitsApplied] + counts[LimitsSuperseded] <= 1, (action, kinds)
        assert counts[LimitsFailed] <= 1, (action, kinds)
        if counts[LimitsFailed] and len(kinds) == 3:
            assert kinds[2] is not LimitsFailed, (action, kinds)


def _check_machines(events: list[MachineFact]) -> None:
    counts = Counter((event.machine_id, type(event)) for event in events if isinstance(event, _ONCE))
    assert {which for which, times in counts.items() if times > 1} == set()
    requested = {event.machine_id for event in events if isinstance(event, MachineRequested)}
    assert {event.machine_id for event in events} <= requested


async def _check_cloud(books: Books) -> None:
    """No machine twice, none that was said to be destroyed, none with more than its share."""
    machines = books.cloud.truth().machines
    names = [machine.name for machine in machines]
    assert len(names) == len(set(names))
    rows = await books.fetch("select name from machine where state = 'destroyed'")
    destroyed = {row["name"] for row in rows}
    assert destroyed.isdisjoint(names), destroyed.intersection(names)
    assert all(machine.limit_mhz < 1e6 for machine in machines)


async def check_replay(books: Books) -> int:
    """Decide again from what is stored with every decision: the same comes out, byte for byte. Says how many."""
    rows = await books.fetch("select * from decision order by id")
    for row in rows:
        stored = {name: row[name] for name in ("observation", "facts", "decision")}
        stored["decision"] = {name: value for name, value in stored["decision"].items() if name not in TRACE}
        inputs = Inputs.model_validate_json(json.dumps(stored))
        policy = parse(books.documents[row["policy_revision"]])
        _, decision = decide(policy, from_json(row["state_before"]), inputs.observation, inputs.facts)
        again = {
            "observation": observation_as_json(inputs.observation),
            "facts": facts_as_json(inputs.facts),
            "decision": decision_as_json(decision),
        }
        for name, value in stored.items():
            assert _bytes(dict(again[name])) == _bytes(value), (row["id"], name)
    return len(rows)


def _bytes(value: object) -> str:
    return json.dumps(value, sort_keys=True)
