"""Priorities and quotas of projects, from outside: whom each machine is told to work for, and how that changes."""

from datetime import timedelta
from hashlib import sha256
from uuid import UUID

from libs.boinc.manager import ManagerReply
from libs.common.contracts.action import (
    AwayFact,
    MachineDraining,
    MachineRequested,
    ResourceDeparted,
    ResourceReturned,
)
from tests.service.lone_service import OURS
from tests.service.manager_house import TOKEN, House, attached, opened


async def test_machines_work_by_priority_within_quotas_and_the_lower_ones_stand_by(
    database_url: str,
) -> None:
    async with opened(database_url) as house:
        await _tell_the_story(house)


async def _tell_the_story(house: House) -> None:
    urgent, urgent_id = await house.add_project("https://urgent.example/", 1.0, priority=9, most_machines=1)
    later = UUID(int=9)
    await house.say(MachineRequested, later, guest_token_sha256=sha256(b"later").hexdigest())

    def told(reply: ManagerReply) -> dict[str, float | None]:
        return {account.url: account.resource_share for account in reply.accounts}

    assert told(await house.come(TOKEN)) == {"https://urgent.example/": 1.0, house.project_url: 0.0}
    assert told(await house.come("later")) == {house.project_url: 3.0}, (
        "the quota is used up by the older one"
    )
    listed = {one["id"]: one for one in (await house.lone.ask("GET", "/v1/contributions")).body["items"]}
    assert [listed[one]["machines"]["requested"] for one in (urgent_id, house.contribution)] == [1, 1]
    assert (listed[urgent_id]["priority"], listed[urgent_id]["most_machines"]) == (9, 1)

    path = f"/v1/contributions/{urgent_id}"
    assert (await house.lone.ask("PATCH", path, {"most_machines": None})).status == 200
    changed = await house.lone.ask("PATCH", path, {"weight": 2})
    assert (changed.body["priority"], changed.body["most_machines"]) == (9, None), "what is left out stays"
    moved = await house.come("later", attached(house.project_url))
    assert told(moved) == {"https://urgent.example/": 2.0, house.project_url: 0.0}

    assert (await house.lone.ask("PATCH", path, {"most_vcpus": 3, "priority": -9})).status == 200
    assert (await house.lone.ask("PATCH", path, {"priority": 101})).status == 422
    await house.say(MachineDraining, later, grace_s=60)
    draining = await house.come("later", attached(house.project_url))
    assert told(draining) == {house.project_url: 3.0}, "who drains is attached to nothing new"
    assert (await house.lone.ask("GET", path)).body["project_id"] == urgent


async def test_what_is_lent_to_a_cloud_that_is_away_is_told_to_machines_of_its_stand_in(
    database_url: str,
) -> None:
    async with opened(database_url) as house:
        away, south, alone, later = house.resource_id, UUID(int=10), "https://alone.example/", UUID(int=9)
        await house.add_project(alone, 1.0, resource_ids=[str(away)], most_machines=1)
        house.resource_id = south
        await house.say(MachineRequested, later, guest_token_sha256=sha256(b"later").hexdigest())

        async def is_told(token: str) -> set[str]:
            return {account.url for account in (await house.come(token)).accounts}

        async def say(kind: type[AwayFact], *, late: bool = False) -> None:
            at = house.clock.now() - timedelta(hours=1) if late else house.clock.now()
            about = {"resource_id": away, "organisation_id": OURS, "reason": "test"}
            stand_in = {"stand_in_id": south} if kind is ResourceDeparted else {}
            await house.lone.tell(kind(at=at, **about, **stand_in))

        assert await is_told("later") == {house.project_url}
        await say(ResourceDeparted)
        await say(ResourceReturned, late=True)
        both = {house.project_url, alone}
        assert await is_told("later") == both, "the machine that is away holds no quota"
        assert await is_told(TOKEN) == both, "which is told to it all the same if it is there after all"
        house.clock.pass_by(60)
        await say(ResourceReturned)
        assert await is_told("later") == {house.project_url}
        assert await is_told(TOKEN) == both
