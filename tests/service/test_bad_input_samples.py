"""Samples that cannot be: on the bus, for every service that hears them, and in dry runs.

The table in `test_bad_input.py` says which item each test is for; workload's and stats' own tests look closer.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from libs.common.auth import Role
from libs.common.bus.base import Message, Queue
from libs.common.bus.messages import decode, to_message
from libs.common.contracts.usage import Sample, UsageSampled
from services.policy.main import build as build_policy
from tests.service.lone_service import Lone, serve
from tests.service.whole_house import POLICY, Cloudy, open_cloudy
from tests.support import until
from tools.parts.vcsim import Vcsim

FAR = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "nan": {"cpu_used_mhz": (math.nan,)},
    "infinite": {"cpu_used_mhz": (math.inf,)},
    "negative": {"cpu_used_mhz": (-5.0,)},
    "ours above total": {"cpu_ours_mhz": (1e5,)},
    "negative ours": {"cpu_ours_mhz": (-1e5,)},
    "nan capacity": {"cpu_capacity_mhz": (math.nan,)},
    "no capacity": {"cpu_capacity_mhz": (0.0,)},
    "huge": {"cpu_capacity_mhz": (1e308,), "memory_capacity_mib": (1e308,), "cpu_used_mhz": (1e308,)},
    "nan memory": {"memory_used_mib": (math.nan,), "memory_capacity_mib": (math.nan,)},
    "nan interval": {"interval_s": math.nan},
    "columns too short": {"cpu_used_mhz": ()},
    "no hosts": {"hosts": ()},
    "the same host twice": {"hosts": ("host-1", "host-1")},
    "hours ahead": {"at": timedelta(hours=3)},
    "the end of time": {"at": FAR},
    "the beginning of time": {"at": LONG_AGO},
    "an hour ago": {"at": timedelta(hours=-1)},
}


@asynccontextmanager
async def heard(cloudy: Cloudy) -> AsyncIterator[list[UsageSampled]]:
    """What monitor publishes, as it comes."""
    found: list[UsageSampled] = []
    queue = Queue("test.heard", (UsageSampled.key,))

    async def note(message: Message) -> None:
        event = decode(message)
        assert isinstance(event, UsageSampled)
        found.append(event)

    await cloudy.whole.run.bus.declare([queue])
    ear = asyncio.create_task(cloudy.whole.run.bus.consume(queue, note))
    try:
        yield found
    finally:
        ear.cancel()
        with suppress(asyncio.CancelledError):
            await ear


async def limits(cloudy: Cloudy) -> list[int]:
    """MHz, as the cloud has them."""
    return [vm.limit_mhz for vm in await cloudy.lab.ours() if vm.is_on]


async def tick_until(cloudy: Cloudy, low: int, high: int) -> None:
    """Let the cloud's time pass until there is one machine with a limit in between."""

    async def is_so() -> bool:
        await cloudy.lab.tick()
        await asyncio.sleep(0.5)  # monitor looks once a second
        return [low < mhz < high for mhz in await limits(cloudy)] == [True]

    await until(is_so, timeout=60, what=f"a limit between {low} and {high} MHz")


async def test_no_impossible_sample_on_the_bus_raises_a_limit_or_stops_anybody(
    database_url: str, vcsim: Vcsim
) -> None:
    await vcsim.start(hosts=1, vms=1, flags=("-perf-default", "1"))
    async with open_cloudy(database_url, vcsim, running=False) as cloudy, heard(cloudy) as rounds:
        cloudy.lab.set_owner(0.5)
        await cloudy.register()
        await cloudy.supply(max_machines=1, cpu={"idle": 0.6, "stop_new": 0.7, "reclaim": 0.8})
        await cloudy.set_mode("lend")
        await tick_until(cloudy, 1500, 2000)
        (before,) = await limits(cloudy)
        bus = cloudy.whole.run.bus
        good = replace(rounds[-1].samples[0], cpu_used_mhz=(0.0,), cpu_ours_mhz=(0.0,))
        for number, (what, change) in enumerate(IMPOSSIBLE.items(), start=1):
            event = rounds[-1].model_copy(
                update={"id": uuid4(), "samples": (_falsified(good, change, number),)}
            )
            await bus.publish(to_message(event, "/tides/test"))
            await until(lambda: _is_quiet(cloudy), timeout=20, what=f"quiet after {what}")
            assert max(await limits(cloudy)) <= before, what
        assert await bus.dead() == []
        assert (await cloudy.whole.ask("GET", "/v1/clusters")).status == 200
        now = cloudy.whole.clock.now() + timedelta(days=1)
        window = f"from={now - timedelta(days=2):%Y-%m-%dT%H:%M:%SZ}&to={now:%Y-%m-%dT%H:%M:%SZ}"
        summary = (await cloudy.whole.ask("GET", f"/v1/stats/summary?{window}")).body
        assert summary["refused"] >= 6
        assert 0 <= summary["core_hours"] < 1

        cloudy.lab.set_owner(0.1)
        await tick_until(cloudy, 3000, 4000)


def _falsified(good: Sample, change: dict[str, Any], number: int) -> Sample:
    at = change.get("at", timedelta())
    moment = good.at + timedelta(seconds=number) + at if isinstance(at, timedelta) else at
    return replace(good, **(change | {"at": moment}))


async def _is_quiet(cloudy: Cloudy) -> bool:
    await cloudy.whole.run.activity.idle()
    return await cloudy.whole.run.bus.depth() == 0


# -- dry runs --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def policy(database_url: str) -> AsyncIterator[tuple[Lone, str]]:
    """The service, and the path of a policy's dry runs."""
    async with serve(build_policy, "policy", database_url) as lone:
        memory = {"idle": 0.5, "stop_new": 0.65, "reclaim": 0.8}
        made = await lone.ask("POST", "/v1/policies", POLICY | {"memory": memory})
        assert made.status == 201, made.body
        yield lone, f"/v1/policies/{made.body['id']}/dry-runs"


def sample(**changes: Any) -> dict[str, Any]:
    """Two idle hosts."""
    known = {
        "cluster": "domain-c1", "name": "East", "at": "2026-11-20T12:00:00Z", "interval_s": 20, "hosts": ["h1", "h2"],
        "host_names": ["esx-1", "esx-2"], "states": ["connected"] * 2, "cpu_capacity_mhz": [40000] * 2,
        "cpu_used_mhz": [4000] * 2, "cpu_ours_mhz": [0] * 2, "cpu_limit_mhz": [0] * 2,
        "memory_capacity_mib": [131072] * 2, "memory_used_mib": [20000] * 2, "memory_ours_mib": [0] * 2,
        "contention_percent": [None] * 2, "machines": [0] * 2,
    }  # fmt: skip
    return known | changes


JUDGED: list[dict[str, Any]] = [
    {"cpu_used_mhz": [-5, -5]},
    {"cpu_ours_mhz": [9000, 9000]},
    {"interval_s": 0},
    {"interval_s": -20},
    {"cpu_ours_mhz": [-1e9, -1e9]},
    {"cpu_capacity_mhz": [0, 0]},
    {"cpu_capacity_mhz": [-1, -1]},
    {"cpu_capacity_mhz": [1e308, 1e308], "cpu_used_mhz": [1e308, 1e308]},
    {"cpu_used_mhz": [1e308, 1e308]},
    {"memory_used_mib": [-1, -1]},
    {"memory_capacity_mib": [0, 0]},
    {"cpu_used_mhz": [4000]},
    {"hosts": []},
    {"hosts": ["h1", "h1"]},
    {"hosts": [], "host_names": [], "states": []},
]


async def test_an_impossible_sample_of_a_dry_run_is_judged_and_lends_nothing(
    policy: tuple[Lone, str],
) -> None:
    lone, path = policy
    whole = await lone.ask("POST", path, {"samples": [sample()]}, role=Role.VIEWER)
    assert whole.body["decisions"][0]["budgets_mhz"]["h1"] > 20_000
    for change in JUDGED:
        answer = await lone.ask("POST", path, {"samples": [sample(**change)]}, role=Role.VIEWER)
        assert answer.status == 200, (change, answer.body)
        (decision,) = answer.body["decisions"]
        assert decision["verdict"] != "idle", (change, decision)
        assert decision["wanted"] == 0, (change, decision)
        assert max(decision["budgets_mhz"].values(), default=0) == 0, (change, decision)


async def test_samples_at_the_ends_of_time_are_judged_by_themselves(policy: tuple[Lone, str]) -> None:
    lone, path = policy
    given = [sample(at=at) for at in ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "2026-11-20T12:00:00")]
    answer = await lone.ask("POST", path, {"samples": given}, role=Role.VIEWER)
    assert answer.status == 200
    assert [decision["at"][:4] for decision in answer.body["decisions"]] == ["0001", "2026", "9999"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"cpu_used_mhz": [None, 1]}, "samples.0.cpu_used_mhz.0"),
    ({"cpu_used_mhz": ["many", 1]}, "samples.0.cpu_used_mhz.0"),
    ({"machines": [0.5, 0]}, "samples.0.machines.0"),
    ({"states": ["burning", "connected"]}, "samples.0.states.0"),
    ({"at": "yesterday"}, "samples.0.at"),
    ({"at": "99999-01-01T00:00:00Z"}, "samples.0.at"),
    ({"hosts": "h1"}, "samples.0.hosts"),
    ({"cluster": None}, "samples.0.cluster"),
]


async def test_what_is_no_sample_is_refused_by_its_field(policy: tuple[Lone, str]) -> None:
    lone, path = policy
    for change, field in REFUSED:
        answer = await lone.ask("POST", path, {"samples": [sample(**change)]}, role=Role.VIEWER)
        assert (answer.status, answer.field) == (422, field), answer.body
    headers = {"Content-Type": "application/json"}
    for number in ("NaN", "Infinity", "-Infinity", "1e999"):
        body = f'{{"samples": [{{"cpu_used_mhz": [{number}]}}]}}'
        answer = await lone.ask("POST", path, data=body, headers=headers, role=Role.VIEWER)
        assert answer.status == 400, number
