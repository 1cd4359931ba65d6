"""A cloud that is away: its machines hold no quota, another takes over what is lent to it alone, and gives it back."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.contracts.action import ResourceDeparted, ResourceReturned
from libs.common.contracts.resource import Mode
from libs.providers.simulated import (
    Cloud,
    ClusterDefinition,
    OwnerProfile,
    SimulatedSettings,
    create_cloud,
    driver,
)
from services.workload.domain import standing_in
from services.workload.models import Resource
from services.workload.reconcile.beats import note_away
from services.workload.usecases.granting import _read_held
from tests.service.whole_house import PASSWORD, POLICY, WEAK_KEY, Whole, open_whole
from tests.service.workload_house import open_house
from tests.support import until


@pytest.fixture
def clouds() -> Iterator[list[Cloud]]:
    """Two data centres of two hosts each."""
    lab = ClusterDefinition(name="lab", hosts=2, owner=OwnerProfile.IDLE, cores=8, datastore_gib=4096)
    shape = SimulatedSettings(interval_s=1, clone_s=0, boot_s=0, clusters=(lab,))
    made = [create_cloud(f"sim://{uuid4().hex}", PASSWORD, shape) for _ in range(2)]
    yield made
    for cloud in made:
        driver.forget_cloud(cloud.url)


async def _lend(whole: Whole, cloud: Cloud, name: str, **policy: Any) -> str:
    given = {
        "name": name,
        "provider": "simulated",
        "url": cloud.url,
        "username": "tides",
        "password": PASSWORD,
    }
    resource_id = str((await whole.made("/v1/resources", given | {"interval_s": 1}))["id"])
    template = {"name": "worker", "resource_id": resource_id, "reference": "boinc-worker"}
    made = await until(lambda: whole.accepted("/v1/templates", template), what="templates")
    await whole.made(f"/v1/templates/{made['id']}/versions/1/approve", None)
    rules = await whole.made("/v1/policies", POLICY | {"name": name} | policy)
    where = {"scope": "resource", "scope_id": resource_id}
    await until(lambda: whole.accepted(f"/v1/policies/{rules['id']}/assignments", where), what="policy")
    await whole.made(f"/v1/resources/{resource_id}/mode", {"mode": "lend"})
    return resource_id


async def _at(whole: Whole, resource_id: str) -> list[dict[str, Any]]:
    """Machines of a resource that are to stay and run."""
    return [
        one
        for one in await whole.items("/v1/machines")
        if (one["resource_id"], one["state"], one["wanted"]) == (resource_id, "running", "running")
    ]


async def _both_at(whole: Whole, resource_id: str) -> list[dict[str, Any]] | None:
    found = await _at(whole, resource_id)
    return found if len(found) == 2 else None


async def _contribute(whole: Whole, resource_id: str) -> None:
    """What is lent to this resource alone."""
    project = await whole.made("/v1/projects", {"name": "P", "url": "https://p.example/"})
    about = {"project_id": project["id"], "weight": 1, "authenticator": WEAK_KEY}
    await whole.made("/v1/contributions", about | {"resource_ids": [resource_id]})


async def _beat(whole: Whole) -> None:
    (workload,) = [service for service in whole.run.services if service.name == "workload"]
    await note_away(workload.database, whole.clock)


async def _said(whole: Whole, word: str) -> list[dict[str, Any]]:
    found = await whole.items("/v1/events?limit=200")
    return [one["body"] for one in found if one["key"] == f"action.resource_{word}.v1"]


async def test_what_is_lent_to_a_cloud_alone_goes_to_its_stand_in_within_its_limits_and_comes_back(
    database_url: str, clouds: list[Cloud], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_whole(database_url) as whole:
        first, second = [
            await _lend(whole, clouds[0], "north", quota={"machines": 2}),
            await _lend(whole, clouds[1], "south", max_machines=1),
        ]
        await _contribute(whole, first)
        await _name_stand_in(whole, first, second)
        before = await until(lambda: _both_at(whole, first), timeout=30, what="two machines, the quota")
        assert await _at(whole, second) == [], "nothing is lent to it"

        clouds[0].control.set_fault("unavailable", True)
        await _look(whole, first)
        await until(lambda: _fails(whole, first), timeout=40, what="a failure")
        await _beat(whole)
        assert await _said(whole, "departed") == [], "it may come back"
        monkeypatch.setattr(standing_in, "AWAY_AFTER", timedelta())
        await until(lambda: _is_away(whole, first, times=4), timeout=40, what="it to count as away")
        (away,) = await _said(whole, "departed")
        assert (away["stand_in_id"], "no good answer since" in away["reason"]) == (second, True)
        await until(lambda: _at(whole, second), timeout=30, what="a machine of the stand-in")
        assert len(await _at(whole, second)) == 1, "its own policy bounds it"
        await until(
            lambda: _works_for(whole, 3), timeout=40, what="it, and the two that may run on, to count"
        )

        assert await _are_counted(whole, second, 1, 0), "nobody knows what runs there"
        clouds[0].control.clear_faults()
        await _look(whole, first)
        await until(lambda: _answers(whole, first), timeout=60, what="a good answer")
        await _beat(whole)
        assert await _said(whole, "returned") == [], "it has to go on for a while"
        await until(
            lambda: _are_counted(whole, second, 1, 2),
            timeout=40,
            what="nothing new to be made in their place",
        )
        monkeypatch.setattr(standing_in, "BACK_AFTER", timedelta())
        await until(lambda: _is_back(whole), timeout=40, what="it to be back")

        async def is_given_back() -> bool:
            return not await _at(whole, second) and {one["id"] for one in await _at(whole, first)} == {
                one["id"] for one in before
            }

        await until(is_given_back, timeout=30, what="everything to be as it was, with the same machines")
        assert [len(await _said(whole, word)) for word in ("departed", "returned")] == [1, 1]


async def test_a_cloud_that_is_asked_nothing_any_more_does_not_stay_away_for_ever(database_url: str) -> None:
    """Its first look failed, nothing was ever made there, and its owner took the lending back."""
    failed = "update resource set failing_since = $1, retry_at = $2"
    async with open_house(database_url) as house:
        house.cloud.control.set_fault("unavailable", True)
        await house.change_resource(mode=Mode.LEND)
        (workload,) = house.replicas[0].services
        now = house.clock.now()
        await house.execute(failed, now - standing_in.AWAY_AFTER, now)
        await note_away(workload.database, house.clock)
        await house.change_resource(mode=Mode.OBSERVE)
        for shift in (timedelta(seconds=1), timedelta()):
            await house.execute(failed, now - standing_in.AWAY_AFTER + shift, None)
            await note_away(workload.database, house.clock)
            away = await house.fetch("select away_since, failures from resource")
            assert (away[0]["away_since"] is None) is (shift == timedelta()), (
                "its failure is shown for a while"
            )
        assert away == [{"away_since": None, "failures": 0}]
        await house.settle()
        (departed,), (returned,) = house.heard(ResourceDeparted), house.heard(ResourceReturned)
        assert "only observes" in returned.reason
        assert departed.resource_id == returned.resource_id


async def _are_counted(whole: Whole, resource_id: str, *counts: int) -> bool:
    """Whether so many machines hold quota where this resource is judged, and so many only what is left of it."""
    (workload,) = [service for service in whole.run.services if service.name == "workload"]
    async with workload.database.transaction() as session:
        asks = await session.get_one(Resource, UUID(resource_id))
        held, returning = await _read_held(session, asks, whole.clock.now())
    return (len(held), len(returning)) == counts


async def _works_for(whole: Whole, count: int) -> bool:
    """Machines that run for the only contribution."""
    (contribution,) = await whole.items("/v1/contributions")
    return bool(contribution["machines"]["running"] == count)


async def _look(whole: Whole, resource_id: str) -> None:
    """Whatever is changed of a resource lets its cloud be asked at once."""
    path, seen = f"/v1/resources/{resource_id}", {"If-Match": "*"}
    assert (await whole.ask("PATCH", path, {"requires_probe": False}, headers=seen)).status == 200


async def _name_stand_in(whole: Whole, first: str, second: str) -> None:
    path, seen = f"/v1/resources/{first}", {"If-Match": "*"}
    for wrong in (first, str(uuid4())):
        refused = await whole.ask("PATCH", path, {"stand_in_id": wrong}, headers=seen)
        assert (refused.status, refused.field) == (422, "stand_in_id")
    named = await whole.ask("PATCH", path, {"stand_in_id": second}, headers=seen)
    assert named.body["stand_in_id"] == second


async def _resource(whole: Whole, resource_id: str) -> dict[str, Any]:
    query = "select failing_since, retry_at, away_since from workload.resource where id = $1"
    (found,) = await whole.fetch(query, UUID(resource_id))
    return found


async def _fails(whole: Whole, resource_id: str) -> bool:
    return (await _resource(whole, resource_id))["failing_since"] is not None


async def _answers(whole: Whole, resource_id: str) -> bool:
    return not await _fails(whole, resource_id)


async def _is_away(whole: Whole, resource_id: str, *, times: int) -> bool:
    """After so many replicas have looked at once."""
    await asyncio.gather(*(_beat(whole) for _ in range(times)))
    return (await _resource(whole, resource_id))["away_since"] is not None


async def _is_back(whole: Whole) -> bool:
    await _beat(whole)
    return bool(await _said(whole, "returned"))
