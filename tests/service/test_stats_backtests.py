"""Backtests over a cluster's own history: asked for over HTTP, worked out by a real process beside the service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text, update

from libs.common.auth import Role
from libs.common.clock import SteppedClock
from libs.common.contracts.usage import Sample
from libs.harvest.document import PRESETS
from services.stats.main import build
from services.stats.models import backtest
from services.stats.usecases import backtests
from tests.service.lone_service import OURS, THEIRS, Lone, serve
from tests.service.stats_house import EAST, inventory, resource, round_of, sample
from tests.support import until

NOW = datetime(2026, 11, 19, 10, 3, 20, tzinfo=UTC)
BACKTESTS = "/v1/stats/backtests"
MACHINE = {"template": "-", "vcpus": 8, "memory_mib": 1024, "disk_gib": 1}
ENDED = {"done", "failed", "cancelled"}
pytestmark = pytest.mark.timeout(300)
"""A replay gives way to everything else; one that is interrupted is begun again when its lease of 60 s is over."""


@pytest.fixture
async def stats(database_url: str) -> AsyncIterator[Lone]:
    async with serve(build, "stats", database_url, SteppedClock(NOW)) as lone:
        await lone.tell(resource(), inventory())
        yield lone


async def remember(stats: Lone, *, hours: int, gap: tuple[int, int] = (0, 0), host: str = "host-0") -> None:
    """Rolled-up means up to three hours before the newest day of samples: an owner at 40 % of 10 cores."""
    end = NOW.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=7)
    rows = [
        {"at": end - timedelta(minutes=5 * (back + 1)), "host": host}
        for back in range(12 * hours)
        if not 12 * gap[0] <= back < 12 * gap[1]
    ]
    columns = {
        "cpu_capacity_mhz": 20000.0, "cpu_used_mhz": 9000.0, "cpu_ours_mhz": 1000.0,
        "memory_capacity_mib": 65536.0, "memory_used_mib": 20000.0, "memory_ours_mib": 4096.0,
    }  # fmt: skip
    names = ", ".join(f"{name}_mean" for name in columns)
    values = ", ".join(str(value) for value in columns.values())
    insert = text(
        f"insert into five_minutes (cluster_id, at, host, samples, {names}) "
        f"values ('{EAST}', :at, :host, 15, {values})"
    )
    async with stats.run.services[0].database.transaction() as session:
        await session.execute(insert, rows)


async def ask(stats: Lone, status: int = 202, **given: Any) -> Any:
    body = {"cluster_id": str(EAST), "preset": "balanced", **given}
    answer = await stats.ask("POST", BACKTESTS, {k: v for k, v in body.items() if v is not None})
    assert answer.status == status, answer.body
    return answer.body


async def ended(stats: Lone, asked: Any) -> Any:
    """Its end. The clock stands still here, so the beats that would begin it again after a hitch are ours to make."""
    beat = next(beat for beat in stats.run.services[0].beats if beat.name == "backtest")

    async def look() -> Any:
        beat.wake.set()
        found = (await stats.ask("GET", f"{BACKTESTS}/{asked['id']}", role=Role.VIEWER)).body
        return found if found["state"] in ENDED else None

    return await until(look, timeout=200, what="the backtest to end")


def at_rest(at: datetime) -> Sample:
    return sample(at, cpu_used_mhz=9000.0, cpu_ours_mhz=1000.0)


async def test_a_clusters_own_history_tells_what_a_policy_would_have_lent(stats: Lone) -> None:
    # Host 0 and its neighbour: 16 h of means, of which host 0 lacks three, and two hours of newer samples.
    await remember(stats, hours=16, gap=(6, 9))
    await remember(stats, hours=16, host="host-1")
    begin = NOW.replace(minute=0, second=0) - timedelta(hours=3)
    rounds = [round_of(at_rest(begin + timedelta(minutes=5 * step))) for step in range(1, 25)]
    await stats.tell(*rounds)

    found = await ended(stats, await ask(stats, days=10))

    assert found["state"] == "done", found["error"]
    assert (found["progress"], found["policy"], found["days"]) == (1.0, "preset:balanced", 10)
    assert found["organisation_id"] == str(OURS)
    result = found["result"]
    host_hours = 16 + 13 + 2 * 2
    assert result["covered_percent"] == round(100 * host_hours / (2 * 240), 1)
    figures = result["figures"]
    # 50 % of ten cores below 90 %; the first step of each stretch is not lent.
    assert figures["fluid_core_hours"] == pytest.approx(5 * (host_hours - 1 / 6), abs=0.5)
    assert 0.6 * figures["fluid_core_hours"] < figures["core_hours"] < figures["fluid_core_hours"]
    assert figures["contention_percent"] == figures["above_90_minutes"] == 0.0
    assert result["memory_known"]
    core_hours = f"{figures['core_hours']:,.0f} core-hours"
    assert result["sentence"] == (
        f"With this policy you would have lent {core_hours} in the last 10 days on 2 hosts, with 0 host-minutes "
        f"above 90 %; {result['covered_percent']} % of that time was measured, the rest counts as nothing."
    )
    series = result["series"]
    assert series["owner"]
    assert set(series["owner"]) == {0.4}
    assert len(series["at_s"]) == len(series["lent"]) == len(series["owner"])
    assert max(series["lent"]) < 0.5
    page = (await stats.ask("GET", BACKTESTS, role=Role.VIEWER)).body
    assert [item["id"] for item in page["items"]] == [found["id"]]
    assert page["items"][0]["result"] == {**result, "series": None}


async def test_one_at_a_time_it_can_be_cancelled_and_others_do_not_see_it(stats: Lone) -> None:
    await remember(stats, hours=72)
    asked = await ask(stats, days=30)
    refused = await ask(stats, 409)
    assert "is being worked out" in refused["detail"]
    path = f"{BACKTESTS}/{asked['id']}"

    for method, address in (("GET", path), ("POST", f"{path}/cancel")):
        assert (await stats.ask(method, address, organisation=THEIRS)).status == 404
    assert (await stats.ask("GET", BACKTESTS, organisation=THEIRS)).body["items"] == []
    assert (await stats.ask("POST", f"{path}/cancel", role=Role.VIEWER)).status == 403
    assert (await stats.ask("POST", f"{path}/cancel")).body["state"] == "cancelled"

    found = await ended(stats, asked)
    assert (found["state"], found["result"], found["error"]) == ("cancelled", None, None)
    again = await ask(stats, days=8)
    assert (await ended(stats, again))["state"] == "done"
    assert (await ended(stats, asked))["state"] == "cancelled"


async def test_what_a_dead_process_left_is_begun_again_and_thrice_is_enough(stats: Lone) -> None:
    await remember(stats, hours=24)
    database = stats.run.services[0].database
    async with database.transaction() as session:
        row = {
            "id": UUID(int=1), "organisation_id": OURS, "cluster_id": EAST, "policy": "p", "days": 8,
            "asked": {
                "document": {**PRESETS["balanced"], "machine": MACHINE},
                "is_preset": False, "guard_s": 30.0, "actuator": "host",
            },
            "since": NOW - timedelta(days=8, seconds=200), "until": NOW - timedelta(seconds=200), "state": "running",
            "progress": 0.5, "attempts": 1, "created_at": NOW, "lease_token": UUID(int=9),
            "lease_until": datetime(2020, 1, 1, tzinfo=UTC),
        }  # fmt: skip
        await session.execute(backtest.insert(), [row])
    mine = {"id": str(UUID(int=1))}

    found = await ended(stats, mine)
    assert (found["state"], found["error"]) == ("done", None)
    assert found["result"]["figures"]["core_hours"] > 10
    worn = {
        "state": "running",
        "attempts": backtests.MOST_ATTEMPTS,
        "lease_token": UUID(int=9),
        "result": None,
    }
    async with database.transaction() as session:
        await session.execute(update(backtest).values(**worn, lease_until=datetime(2020, 1, 1, tzinfo=UTC)))

    found = await ended(stats, mine)

    assert found["state"] == "failed"
    assert "ended 3 times" in found["error"]


async def test_a_lease_is_let_go_though_a_library_swallowed_the_end_of_its_keeping(
    stats: Lone, monkeypatch: pytest.MonkeyPatch
) -> None:
    await remember(stats, hours=24)
    renew = backtests.renew

    async def deaf(*told: Any) -> bool:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return await renew(*told)

    monkeypatch.setattr(backtests, "renew", deaf)

    assert (await ended(stats, await ask(stats)))["state"] == "done"


BAD: tuple[tuple[dict[str, Any], str], ...] = (
    ({"preset": None}, "policy"),
    ({"policy": {"name": "x"}}, "policy"),
    ({"preset": "wild"}, "preset"),
    ({"preset": None, "policy": {"name": "x"}}, "policy.machine"),
    ({"days": 93}, "days"),
    ({"guard_seconds": -1}, "guard_seconds"),
)


async def test_what_cannot_be_worked_out_is_refused_by_its_field_or_fails_in_words(stats: Lone) -> None:
    body = {"cluster_id": str(EAST), "preset": "balanced"}
    for given, field in BAD:
        answer = await stats.ask("POST", BACKTESTS, {**body, **given})
        assert (answer.status, answer.field) == (422, field), answer.body
    assert (await stats.ask("POST", BACKTESTS, body, organisation=THEIRS)).status == 404

    found = await ended(stats, await ask(stats))

    assert found["state"] == "failed"
    assert "nothing was measured of this cluster" in found["error"]
