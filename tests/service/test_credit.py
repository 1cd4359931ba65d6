"""Credit that a strict stand-in project grants: counted once, by machine and day; and whom it deletes."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from libs.boinc.demo_project import Host
from libs.common.contracts.action import MachineDestroyed
from services.contribution.usecases import visiting
from services.contribution.usecases.visiting import LeaseLost, Turn
from tests.boinclab.web import HTML
from tests.service.demander import CPID, EMAIL, Calendar, World, open_service, open_world
from tests.service.lone_service import THEIRS, Lone

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("credit")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(postgres_url: str) -> AsyncIterator[tuple[Lone, Calendar]]:
    async with open_service(postgres_url) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def world(service: tuple[Lone, Calendar]) -> AsyncIterator[World]:
    async with open_world(*service) as one:
        yield one


async def test_credit_is_counted_once_by_machine_and_day_and_strangers_apart(world: World) -> None:
    granted_before = await world.metric("tides_credit_granted_total")
    user, _ = await world.ready()
    await world.machine(host_id=6)
    await world.machine(
        machine_id=world.other_machine_id
    )  # its client has not told its host id: known by its own
    user.hosts = [
        Host(6, 10.0, created_at=world.born),
        Host(7, 500.0, created_at=world.born - 10_000_000),
        Host(8, 4.0, cpid=CPID, created_at=world.born),
        Host(9, 0.0, created_at=world.born),
    ]
    await world.sql("update contact set host_cpid = '' where machine_id = :m", m=world.machine_id)
    await world.later(hours=7)
    assert await world.granted() == ({str(world.machine_id): 10.0, str(world.other_machine_id): 4.0}, 0.0)

    user.hosts[0].credit, user.hosts[1].credit = 12.5, 501.0
    await world.later(hours=7)
    await world.later(hours=7)
    by_machine, others = await world.granted()
    assert (by_machine[str(world.machine_id)], others) == (12.5, 1.0)
    days = [str(world.began_at.date() + timedelta(days=day)) for day in (0, 1)]
    assert (await world.granted("day"))[0] == dict(zip(days, (14.0, 2.5), strict=True))

    user.hosts[0].credit = 2.0
    await world.later(hours=7)
    user.hosts[0].credit = 3.0
    await world.later(hours=7)
    assert (await world.granted())[0][str(world.machine_id)] == 13.5
    assert (await world.lone.ask("GET", "/v1/grants", organisation=THEIRS)).body["credit"] == 0
    wrong = await world.call("GET", "/v1/grants?since=2026-12-01&until=2026-11-01")
    assert (wrong.status, wrong.field) == (422, "since")
    assert await world.metric("tides_credit_granted_total") - granted_before == 17.5


async def test_what_a_host_had_before_it_was_ours_is_not_ours(world: World) -> None:
    user, _ = await world.ready()
    await world.machine(host_id=6)
    user.hosts = [Host(6, 1000.0, created_at=world.born - 86_400)]
    await world.later(hours=7)
    user.hosts[0].credit = 1001.0
    await world.later(hours=7)
    assert await world.granted() == ({str(world.machine_id): 1.0}, 0.0)


async def test_a_slot_that_a_new_machine_takes_over_goes_on_with_its_host(world: World) -> None:
    user, _ = await world.ready()
    await world.machine(host_id=6)
    await world.machine(
        host_id=6, machine_id=world.other_machine_id, since=world.began_at + timedelta(hours=3)
    )
    user.hosts = [Host(6, 10.0, created_at=world.born)]
    await world.later(hours=7)
    assert await world.granted() == ({str(world.other_machine_id): 10.0}, 0.0)


async def test_a_project_that_is_away_for_a_day_is_asked_ever_more_rarely_is_seen_and_nothing_is_lost(
    world: World,
) -> None:
    user, _ = await world.ready()
    await world.machine(host_id=6)
    user.hosts = [Host(6, 10.0, created_at=world.born)]
    world.project.page = HTML
    before = len(world.project.asked)
    for _ in range(48):
        await world.later(minutes=30)
    asked = world.project.asked[before:]
    assert set(asked) == {"get_project_config.php"}
    assert 4 <= len(asked) <= 9
    seen = (await world.seen())["seen"]
    assert (seen["failures"], seen["trouble"]) == (
        len(asked),
        "The project answers with a page, as during maintenance.",
    )
    assert datetime.fromisoformat(seen["failing_since"]) - world.began_at <= timedelta(hours=7)
    assert await world.metric("tides_projects_failing") == 1

    world.project.page, user.hosts[0].credit = None, 30.0
    await world.later(hours=7)
    assert await world.granted() == ({str(world.machine_id): 30.0}, 0.0)
    assert (await world.seen())["seen"]["trouble"] is None


async def test_credit_of_a_key_that_was_given_comes_from_the_statistics_once_a_day(world: World) -> None:
    user = world.project.user(EMAIL, "x" * 32)
    user.hosts = [Host(6, 10.0, created_at=world.born)]
    await world.machine(host_id=6)
    await world.lend(authenticator=user.weak)
    await world.later(hours=7)
    assert await world.granted() == ({str(world.machine_id): 10.0}, 0.0)
    user.hosts[0].credit = 11.0
    await world.later(hours=7)
    assert world.project.count("stats/host.gz") == 1
    await world.later(hours=18)
    await world.later(hours=25)
    assert (world.project.count("stats/host.gz"), await world.granted()) == (
        3,
        ({str(world.machine_id): 11.0}, 0.0),
    )
    assert "show_user.php" not in world.project.asked


async def test_whom_the_project_deletes_is_deleted_here(world: World) -> None:
    user, account = await world.ready()
    await world.lend(account_id=account["id"])
    await world.machine(host_id=6)
    user.hosts = [Host(6, 10.0, created_at=world.born)]
    await world.later(hours=7)
    await world.say(MachineDestroyed)
    world.project.books.deleted_hosts, user.hosts = [5, 6], []
    await world.later(hours=25)
    mine = UUID(world.project_id)
    assert await world.sql("select * from granted_host where project_id = :p", p=mine) == []
    told = "select host_id, host_cpid from counter c join contact using (machine_id) where project_id = :p"
    assert await world.sql(told, p=mine) == [(0, "")]
    assert await world.granted() == ({str(world.machine_id): 10.0}, 0.0)

    world.project.books.deleted_users = [user.id]
    await world.later(hours=25)
    assert (await world.call("GET", "/v1/accounts")).body["items"] == []
    assert [(event.gone, event.sealed_authenticator == "") for event in await world.told()] == [
        (False, False),
        (True, True),
    ]
    assert (await world.call("GET", "/v1/contributions")).body["items"] == []


async def test_a_deletion_that_the_project_itself_does_not_mean_is_doubted(world: World) -> None:
    user, _ = await world.ready()
    user.hosts = [Host(6, 1.0)]
    await world.later(hours=7)

    class Lying(list[int]):
        """In the file, and nowhere else."""

        def __contains__(self, _: object) -> bool:
            return False

    world.project.books.deleted_users = Lying([user.id])
    await world.later(hours=25)
    assert (await world.account())["state"] == "ready"


async def test_one_replica_asks_a_project_and_what_another_learnt_late_is_not_kept(world: World) -> None:
    await world.ready()
    database = world.lone.run.services[0].database
    due = world.clock.now() + timedelta(days=1)

    async def claim(token: UUID) -> list[Turn]:
        async with database.transaction() as session:
            turns = await visiting.claim(session, token, (), 100, due)
        return [turn for turn in turns if turn.project_id == UUID(world.project_id)]

    first, second = uuid4(), uuid4()
    [turn] = await claim(first)
    assert await claim(second) == []
    await world.sql("update visit set lease_until = now() where lease_token = :t", t=first)
    [later] = await claim(second)
    async with database.transaction() as session:
        with pytest.raises(LeaseLost):
            await visiting.hold(session, turn)
        await visiting.end_visit(session, later, timedelta(hours=1), due)
    assert await claim(first) == []
