"""What stats tells of its samples, whom, and what it does not take for a question."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from libs.common.auth import Role
from libs.common.clock import SteppedClock
from libs.common.contracts.action import (
    MachineDeployed,
)
from services.stats.main import build
from tests.service.lone_service import OURS, THEIRS, Lone, serve
from tests.service.stats_house import (
    EAST,
    NOW,
    START,
    STEP,
    hour_of_rounds,
    inventory,
    machine,
    report,
    resource,
    roll,
    round_of,
    sample,
    tell_directly,
)
from tests.support import until


async def test_usage_is_down_sampled_the_same_from_samples_and_from_five_minutes(
    stats: Lone, database_url: str
) -> None:
    await stats.tell(resource(), inventory())
    slowly: dict[str, Any] = {"owner_balloon_mib": (64.0, None), "memory_active_mib": 100.0}
    rounds = []
    for number in range(1, 181):
        more = slowly if number > 90 else {}  # half an hour in an older form
        ours = (float(number), 2.0 * number)
        rounds.append(round_of(sample(START + STEP * number, cpu_ours_mhz=ours, **more)))
    await tell_directly(stats, rounds)
    await roll(stats)
    query = {"cluster_id": str(EAST), "step": "600", "to": (START + timedelta(hours=1)).isoformat()}
    raw = await report(stats, "usage", **query)
    raw_host = await report(stats, "usage", **query, host="host-1")
    assert [point["samples"] for point in raw["points"]] == [30] * 6
    assert raw["points"][0]["at"] == "2026-11-18T10:00:00Z"
    assert raw["points"][0]["cpu_ours_mhz_mean"] == pytest.approx(3 * 15.5)
    assert raw["points"][0]["cpu_ours_mhz_max"] == 90.0
    assert raw_host["points"][-1]["cpu_ours_mhz_max"] == 360.0
    assert [point["owner_balloon_mib_max"] for point in raw["points"]] == [None] * 3 + [64.0] * 3
    assert [point["memory_active_mib_mean"] for point in raw["points"]] == [None] * 3 + [200.0] * 3
    assert {point["owner_swapped_mib_mean"] for point in raw["points"]} == {None}
    assert raw_host["points"][-1]["owner_balloon_mib_mean"] is None

    async with serve(build, "stats", database_url, SteppedClock(NOW + timedelta(days=10))) as later:
        await until(lambda: no_samples_left(later), what="old days to be dropped")
        assert await report(later, "usage", **query) == raw
        assert await report(later, "usage", **query, host="host-1") == raw_host
        assert (await report(later, "summary"))["core_hours"] > 0


async def no_samples_left(stats: Lone) -> bool:
    async with stats.run.services[0].database.transaction() as session:
        days = set(await session.scalars(text("select day from sample_day")))
        left = await session.scalar(text("select count(*) from host_sample"))
    return left == 0 and START.date() not in days


async def test_others_see_nothing_of_it_and_nobody_without_a_token(stats: Lone) -> None:
    await stats.tell(resource(), inventory(), machine(MachineDeployed, START, uuid4(), OURS))
    await tell_directly(stats, hour_of_rounds())
    window = {"from": START.isoformat(), "to": (START + timedelta(hours=3)).isoformat()}

    for path in ("/v1/stats/summary", "/v1/stats/core-hours", f"/v1/stats/usage?cluster_id={EAST}"):
        assert (await stats.ask("GET", path, role=None)).status == 401
    hidden = await stats.ask("GET", "/v1/stats/summary", organisation=THEIRS, params=window)
    assert (hidden.body["samples"], hidden.body["events"]) == (0, 0)
    found = await stats.ask("GET", "/v1/stats/core-hours", organisation=THEIRS, params=window)
    assert found.body["items"] == []
    found = await stats.ask("GET", f"/v1/stats/usage?cluster_id={EAST}", organisation=THEIRS)
    assert found.status == 404
    assert (await stats.ask("GET", "/v1/stats/summary", role=Role.ADMIN, params=window)).body[
        "samples"
    ] == 180


ABSURD: list[tuple[dict[str, str], str]] = [
    ({"from": "2026-11-20T00:00:00Z", "to": "2026-11-19T00:00:00Z"}, "from"),
    ({"from": "0001-01-01T00:00:00Z"}, "from"),
    ({"to": "9999-12-31T23:59:59Z"}, "to"),
    ({"from": "2010-01-01T00:00:00Z"}, "from"),
    ({"from": "2026-11-20T00:00:00"}, "from"),
    ({"step": "1"}, "step"),
    ({"step": "0"}, "step"),
    ({"host": "a\tb"}, "host"),
    ({"cluster_id": "x' or 1=1"}, "cluster_id"),
]


async def test_absurd_questions_are_refused_at_their_field(stats: Lone) -> None:
    await stats.tell(resource(), inventory())
    for query, field in ABSURD:
        answer = await stats.ask("GET", "/v1/stats/usage", params={"cluster_id": str(EAST)} | query)

        assert (answer.status, answer.field) == (422, field)
