"""How clouds are shared out among replicas: evenly among those that are known to live."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from libs.common.contracts.action import MachineRequested
from libs.common.ids import new_id
from services.workload.usecases.leasing import take_leases
from tests.service.test_workload_leases import hands_of, holder
from tests.service.workload_house import House, open_house
from tests.support import until


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        yield house


async def let_replicas_age(house: House) -> None:
    """What a minute of life does: whoever is alive counts where clouds are shared out."""
    await house.execute("update replica set since = since - interval '1 minute'")


async def held(house: House) -> dict[UUID, int]:
    """How many resources each replica holds."""
    rows = await house.fetch("select lease_token from resource where lease_until > clock_timestamp()")
    return dict(Counter(row["lease_token"] for row in rows))


async def test_clouds_are_shared_out_anew_when_a_replica_comes_and_what_is_under_way_stays(
    house: House,
) -> None:
    changes = ({"id": new_id(), "resource_id": UUID(int=n), "name": f"other {n}"} for n in (1, 2, 3))
    first = hands_of(house.replicas[0])
    await house.tell(*(house.resource.model_copy(update=each) for each in changes))
    await house.lend()
    await house.be_silent(20)
    assert await held(house) == {first.replica: 4}

    answered = asyncio.Event()

    async def wait_for_answer() -> None:
        await answered.wait()

    assert first.lanes.start(("machines", house.resource.resource_id), wait_for_answer)
    async with house.replica() as later:
        second = hands_of(later)
        await until(lambda: house.fetch("select 1 from replica offset 1"), what="both are known")
        first.claimed_at = None
        await first.claim()
        assert await held(house) == {first.replica: 4}, "it may die as quickly as it came"
        await let_replicas_age(house)

        async def is_shared() -> bool:
            house.clock.advance()
            return await held(house) == {first.replica: 2, second.replica: 2}

        await until(is_shared, 60, "half of it each, while something is under way")
        assert await holder(house) == first.replica, "it would have been the first to go"

        answered.set()
        await house.run(60)
        assert await held(house) == {first.replica: 2, second.replica: 2}, "who has its share keeps it"
        assert await house.states() == ["running", "running"]
        assert len(house.heard(MachineRequested)) == len(house.cloud.truth().machines) == 2

        # What nobody has is left to whoever has less than its share.
        await house.execute(
            "update resource set lease_token = null, lease_until = null where name = 'other 1'"
        )
        await house.tell(house.resource.model_copy(update={"id": new_id(), "resource_id": UUID(int=4)}))
        await house.be_silent(6)
        assert sorted((await held(house)).values()) == [2, 3]

    await house.be_silent(6)
    assert await held(house) == {first.replica: 5}


async def test_a_replica_that_dies_again_and_again_takes_no_cloud_along(house: House) -> None:
    first = hands_of(house.replicas[0])
    more = [
        house.resource.model_copy(update={"id": new_id(), "resource_id": UUID(int=n)}) for n in range(1, 10)
    ]
    await house.tell(house.resource, *more)
    await house.be_silent(6)

    async def let_one_come_and_die() -> None:
        async with first.database.transaction() as session:
            await take_leases(session, uuid4())
        first.claimed_at = None
        await first.claim()

    for _ in range(4):
        await let_one_come_and_die()
    assert await held(house) == {first.replica: 10}, "nothing is handed back to the dead"

    await house.execute(
        "update replica set since = since - interval '1 minute' where token = $1", first.replica
    )
    await house.execute(
        "update resource set lease_until = null, lease_token = null where id = $1", UUID(int=1)
    )
    for _ in range(4):
        await let_one_come_and_die()
    assert await held(house) == {first.replica: 10}, "nor is anything that is free left to them"


async def test_a_replica_of_before_counts_by_its_leases(house: House) -> None:
    """It says of itself nothing else, and takes all there is: it is left what it has, and counts as one."""
    first, before = hands_of(house.replicas[0]), uuid4()
    await house.be_silent(2)
    await let_replicas_age(house)
    more = [house.resource.model_copy(update={"id": new_id(), "resource_id": UUID(int=n)}) for n in (1, 2, 3)]
    await house.tell(house.resource, *more)
    await house.give_lease_to(before)
    await house.execute("update resource set lease_until = null where id = any($1)", [UUID(int=1)])
    await house.be_silent(6)
    assert await held(house) == {before: 3, first.replica: 1}
    await house.give_lease_to(first.replica)
    await house.execute("update resource set lease_token = $1 where id = $2", before, UUID(int=1))
    await house.be_silent(6)
    assert await held(house) == {before: 1, first.replica: 2}, "one is handed back, for whoever is to have it"
