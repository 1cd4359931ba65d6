"""What is decided while somebody judges is not overwritten, and what may not be made any more is not made."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from libs.common.bus.messages import to_message
from libs.common.contracts.action import MachineRequested
from libs.common.contracts.base import Event
from libs.common.contracts.resource import Mode
from libs.common.contracts.supply import TemplateState
from tests.service.workload_house import House, open_house
from tests.service.workload_words import next_state
from tests.support import until


@pytest.fixture
async def fresh(database_url: str) -> AsyncIterator[House]:
    """A lent cluster that was looked at, with nothing in it: by hand, no machine may be."""
    async with open_house(database_url) as house:
        await house.change_resource()
        await house.run(20)
        await scale(house, 0)
        await house.lend()
        await house.run(40)
        yield house


@pytest.fixture
async def house(fresh: House) -> House:
    await scale(fresh, None)
    await fresh.run(60)
    assert await fresh.states() == ["running", "running"]
    return fresh


@pytest.fixture
async def requested(fresh: House) -> House:
    """Two machines are requested and nobody acts."""
    await fresh.give_lease_to(fresh.policy_id)
    await scale(fresh, None)
    await fresh.run(40)
    assert await fresh.states() == ["requested", "requested"]
    return fresh


async def scale(house: House, most: int | None) -> None:
    await house.act(f"/v1/clusters/{house.cluster_id}/scale", {"most_machines": most})


@asynccontextmanager
async def somebody_judges(house: House) -> AsyncIterator[asyncpg.Connection]:
    """Somebody who judges has locked the clusters, and commits at the end."""
    async with house.schema() as connection, connection.transaction():
        await connection.execute("select id from cluster order by id for no key update")
        yield connection


async def wait_until_blocked(house: House, other: asyncio.Task[Any] | None = None) -> None:
    """Wait until somebody waits for a lock, or the other has ended without."""
    waiting = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"

    async def is_blocked() -> bool:
        return bool(await house.fetch(waiting)) or (other is not None and other.done())

    await until(is_blocked, what="a lock")


async def publish(house: House, event: Event) -> None:
    await house.bus.publish(to_message(event, "/tides/test"))


async def test_a_drain_by_hand_is_not_overwritten_by_who_judges_meanwhile(house: House) -> None:
    (machine, _) = await house.machines()
    async with somebody_judges(house) as judge:
        drain = house.ask("POST", f"/v1/machines/{machine['id']}/drain", {"reason": "old kernel"})
        asked = asyncio.create_task(drain)
        await wait_until_blocked(house, asked)
        changes = "update machine set wanted = 'running', reason = 'lending' where name = $1"
        await judge.execute(changes, machine["name"])
    assert (await asked).status == 202
    await house.settle()

    shown = next(row for row in await house.machines() if row["id"] == machine["id"])
    assert (shown["wanted"], shown["reason"]) == ("gone", "drained by hand by Ada: old kernel")


async def test_a_machine_requested_while_its_template_is_revoked_goes_too(house: House) -> None:
    copy = (
        "insert into machine select (jsonb_populate_record(m, jsonb_build_object('id', gen_random_uuid(),"
        " 'name', 'tides-late', 'ordinal', 99, 'slot', 99, 'state', 'requested', 'wanted', 'running',"
        " 'wanted_by_hand', false, 'reason', 'lending', 'power', null))).* from machine m limit 1"
    )
    async with somebody_judges(house) as judge:
        await publish(house, next_state(house.template, state=TemplateState.REVOKED))

        async def is_waiting_or_known() -> bool:
            states = await house.fetch("select state from template")
            waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock'"
            return states == [{"state": "revoked"}] or bool(await house.fetch(waiting))

        await until(is_waiting_or_known)
        await judge.execute(copy)
    await house.settle()

    (late,) = await house.fetch("select wanted, reason from machine where name = 'tides-late'")
    await house.execute("delete from machine where name = 'tides-late'")
    assert (late["wanted"], late["reason"]) == ("gone", "template boinc-worker v1 was revoked")


async def test_a_machine_of_a_revoked_template_is_given_up_by_the_next_judgement(house: House) -> None:
    await house.execute("update template set state = 'revoked'")
    await house.run(20)

    assert {machine["wanted"] for machine in await house.machines()} == {"gone"}
    assert {machine["reason"] for machine in await house.machines()} == {
        "template boinc-worker v1 was revoked"
    }


async def test_who_waited_for_the_clusters_judges_by_the_resource_as_it_is_then(house: House) -> None:
    await house.be_silent(20)
    samples = await house.measure()
    async with somebody_judges(house) as judge:
        await publish(house, house.round_of(*samples))
        await wait_until_blocked(house)
        await judge.execute("update resource set mode = 'draining'")
    await house.settle()

    assert "the resource is being released" in (await house.cluster())["reason"]


@pytest.mark.parametrize(
    "change",
    [
        "update resource set mode = 'paused'",
        "update template set state = 'draft'",
        "update cluster set decision = jsonb_set(decision, '{rung}', '2')",
    ],
)
async def test_what_may_not_be_made_any_more_is_not_cloned(requested: House, change: str) -> None:
    await requested.execute(change)
    await requested.give_lease_to(None)
    await requested.be_silent(10)

    assert requested.cloud.truth().machines == ()
    await requested.change_resource(mode=Mode.DRAINING, force=True)


@pytest.mark.parametrize("how", ["red button", "paused", "silence", "busy owner"])
async def test_machines_that_wait_to_be_cloned_are_not_when_nothing_new_may_be_made(
    requested: House, how: str
) -> None:
    if how == "red button":
        await requested.act(f"/v1/clusters/{requested.cluster_id}/pause", {"reason": "audit"})
    elif how == "paused":
        await requested.change_resource(mode=Mode.PAUSED)
    elif how == "silence":
        await requested.be_silent(80)
    else:
        requested.own(0.95)
        await requested.run(60)
    assert [machine["wanted"] for machine in await requested.machines()] == ["gone", "gone"]

    await requested.give_lease_to(None)
    await requested.be_silent(30)
    assert requested.cloud.state().machines == []
    assert await requested.states() == []
    assert len(requested.heard(MachineRequested)) == 2


async def test_a_clone_that_the_cloud_has_not_begun_is_given_up_by_the_red_button(fresh: House) -> None:
    fresh.cloud.control.set_fault("create_full", True)
    await scale(fresh, None)
    await fresh.run(40)
    assert await fresh.states() == ["creating", "creating"]
    await fresh.act(f"/v1/clusters/{fresh.cluster_id}/pause", {"reason": "audit"})
    fresh.cloud.control.clear_faults()
    await fresh.be_silent(40)

    assert fresh.cloud.state().machines == []
    assert await fresh.states() == []
