"""The REST door: pages, what is not there, what is not understood, and decisions that can be decided again."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from libs.common.contracts.action import ClusterPaused
from tests.service.workload_books import check_replay
from tests.service.workload_house import House, open_house


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        await house.lend()
        await house.run(40)
        yield house


async def pages(house: House, path: str, **wish: Any) -> list[dict[str, Any]]:
    """All items of a list, one by one."""
    items: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 1} | wish
    while True:
        answer = await house.ask("GET", path, params=query)
        assert answer.status == 200, answer.body
        items += answer.body["items"]
        query["cursor"] = answer.body["next_cursor"]
        if query["cursor"] is None:
            return items


async def test_lists_come_in_pages_that_leave_nothing_out(house: House) -> None:
    house.own(0.95)
    await house.run(60)
    await house.log_is_shown()

    machines = await pages(house, "/v1/machines")
    assert [item["ordinal"] for item in machines] == [1, 2]
    decisions = await pages(house, "/v1/decisions", cluster_id=str(house.cluster_id))
    times = [item["at"] for item in decisions]
    assert len(times) > 3
    assert times == sorted(times, reverse=True)
    assert len(await pages(house, "/v1/workloads")) == 1
    events = await pages(house, "/v1/events")
    logged = await house.fetch("select id from action_event order by number")
    assert [item["id"] for item in events] == [str(row["id"]) for row in logged]
    assert (await house.ask("GET", "/v1/events?order=newest&limit=1")).body["items"] == events[-1:]


async def test_what_is_of_another_cluster_is_not_shown(house: House) -> None:
    for path in ("machines", "decisions", "events"):
        assert (await house.ask("GET", f"/v1/{path}?cluster_id={uuid4()}")).body["items"] == []
    assert (await house.ask("GET", f"/v1/clusters?resource_id={uuid4()}")).body["items"] == []


async def test_destroyed_machines_are_shown_on_request_and_cannot_be_drained(house: House) -> None:
    machine = (await house.machines())[0]["id"]
    await house.act(f"/v1/machines/{machine}/drain", {"reason": "old kernel"})
    await house.run(100)

    assert machine not in [row["id"] for row in await house.machines()]
    assert machine in [row["id"] for row in await house.machines(live=False)]
    answer = await house.ask("POST", f"/v1/machines/{machine}/drain", {"reason": "again"})
    assert answer.status == 409


async def test_what_is_not_there_is_not_found(house: House) -> None:
    why, nothing = {"reason": "because"}, uuid4()
    asks = [("GET", f"clusters/{nothing}", None), ("POST", f"clusters/{nothing}/pause", why)]
    asks += [("POST", f"clusters/{nothing}/resume", why), ("POST", f"clusters/{nothing}/drain", None)]
    asks += [("POST", f"clusters/{nothing}/scale", {"most_machines": 1})]  # type: ignore[dict-item]
    asks += [("POST", f"machines/{nothing}/drain", why)]

    for method, path, body in asks:
        answer = await house.ask(method, f"/v1/{path}", body)
        assert (answer.status, answer.body["status"]) == (404, 404), path


async def test_a_cursor_that_is_none_is_refused(house: House) -> None:
    for path in ("machines", "decisions", "workloads", "events"):
        for cursor in (
            "nonsense",
            "WzFd",
            "W251bGxd",
            "WyJcdTAwMDAiXQ",
            "'; drop table machine; --",
            "a" * 400,
        ):
            answer = await house.ask("GET", f"/v1/{path}", params={"cursor": cursor})
            assert answer.status == 422, cursor
            assert answer.field == "cursor"
        for limit in ("0", "201", "-1", "many"):
            assert (await house.ask("GET", f"/v1/{path}?limit={limit}")).status == 422


async def test_hostile_words_are_refused_or_kept_as_they_are(house: House) -> None:
    pause = f"/v1/clusters/{house.cluster_id}/pause"
    for reason in (
        "",
        "x" * 201,
        "nul\x00",
        "line\nfeed",
        "bell\x07",
        "esc\x1b[2J",
        "del\x7f",
        "\ud800",
        7,
        None,
    ):
        answer = await house.ask("POST", pause, {"reason": reason})
        assert answer.status in (400, 422), repr(reason)
    assert (await house.ask("POST", pause, {"reason": "well", "force": True})).status == 422
    half: dict[str, Any] = {"data": b"{", "headers": {"Content-Type": "application/json"}}
    assert (await house.ask("POST", pause, **half)).status == 400
    assert house.heard(ClusterPaused) == []

    words = """'; drop table cluster; -- $(reboot) ../../etc <script>alert(1)</script> {{7*7}} %s ünïcode ☃"""
    shown = await house.act(pause, {"reason": words})
    assert shown["paused_reason"] == words
    assert [event.reason for event in house.heard(ClusterPaused)] == [words]
    assert words in (await house.cluster())["reason"]


async def test_a_bound_that_is_none_is_refused(house: House) -> None:
    scale = f"/v1/clusters/{house.cluster_id}/scale"
    for most in (-1, 10_001, "many", 1.5):
        assert (await house.ask("POST", scale, {"most_machines": most})).status == 422, most
    assert (await house.ask("POST", scale, {})).status == 422


async def test_every_decision_of_a_story_can_be_decided_again(house: House) -> None:
    await house.tamper(cpu_used_mhz=(float("nan"), 1.0), at=house.clock.now())
    house.own(0.65)
    await house.run(40)
    house.own(0.95)
    await house.run(60)
    await house.be_silent(75)
    house.own(0.1)
    await house.run(100)
    await house.act(f"/v1/clusters/{house.cluster_id}/pause", {"reason": "audit"})
    await house.assign(max_machines=1)
    await house.act(f"/v1/clusters/{house.cluster_id}/resume", {"reason": "done"})
    await house.run(60)

    assert await check_replay(house) > 12
    newest = (await house.ask("GET", "/v1/decisions?limit=1")).body["items"][0]
    assert newest["policy_revision"] == 2
    assert newest["facts"]["machines"]
    assert newest["decision"]["budgets"]
    assert newest["state_before"]["hosts"]
