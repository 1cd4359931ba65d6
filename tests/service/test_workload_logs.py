"""The log as an administrator reads it at 3 a.m.: what was destroyed or put to sleep, where, and why."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from libs.common.auth import Role
from libs.common.contracts.resource import Mode
from libs.common.contracts.supply import TemplateState
from tests.service.workload_house import House, open_house

Lines = list[Any]


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        await house.lend()
        await house.run(40)
        yield house


@pytest.fixture
def lines(house: House) -> Iterator[Lines]:
    """What is logged from now on."""
    with capture_logs() as logs:
        yield logs


def acts(lines: Lines, act: str, event: str = "machine.acted") -> Lines:
    """Lines about one kind of act; each names machine, cluster and resource."""
    found = [line for line in lines if line["event"] == event and line["act"] == act]
    for line in found:
        assert line["machine"].startswith("tides-")
        assert (line["cluster"], line["resource"]) == ("lab", "Lab")
    return found


def reasons(lines: Lines) -> set[str]:
    return {line["reason"] for line in lines}


async def test_a_release_by_force_says_so_before_and_after_each_deletion(house: House, lines: Lines) -> None:
    names = {machine.name for machine in house.cloud.truth().machines}
    await house.change_resource(mode=Mode.DRAINING, force=True)
    await house.run(20)

    before, after = acts(lines, "delete", "machine.deleting"), acts(lines, "delete")
    assert {line["machine"] for line in before} == {line["machine"] for line in after} == names
    why = "the resource is being released by force, without grace"
    assert all(reason.startswith(why) for reason in reasons(before) | reasons(after))
    (released,) = [line for line in lines if line["event"] == "resource.released"]
    assert (released["resource"], released["reason"]) == ("Lab", why)
    (pool,) = [line for line in lines if line["event"] == "cluster.released"]
    assert (pool["resource"], pool["reason"]) == ("Lab", why)


async def test_a_drain_that_becomes_a_release_by_force_says_why_it_did_not_wait(
    house: House, lines: Lines
) -> None:
    await house.act(f"/v1/clusters/{house.cluster_id}/drain", {"reason": "moving out"})
    await house.change_resource(mode=Mode.DRAINING, force=True)
    await house.run(20)

    assert reasons(acts(lines, "delete", "machine.deleting")) == {
        "drained by hand by Ada: moving out; machines draining; released by force, without grace"
    }


async def test_the_ladder_says_which_load_of_the_owner_led_to_each_step(house: House, lines: Lines) -> None:
    house.own(0.95)
    await house.run(60)
    owner = "owner CPU 95 % is above reclaim 70 %"
    assert all(reason.startswith(owner) for reason in reasons(acts(lines, "suspend")))
    assert len(acts(lines, "suspend")) == 2

    await house.run(180)
    deleted = acts(lines, "delete", "machine.deleting")
    assert len(deleted) == 2
    assert all(reason.startswith(owner) for reason in reasons(deleted))


async def test_a_revoked_template_is_named_and_the_grace_too(house: House, lines: Lines) -> None:
    await house.change_template(state=TemplateState.REVOKED)
    await house.run(100)

    deleted = acts(lines, "delete", "machine.deleting")
    assert len(deleted) == 2
    assert reasons(deleted) == {"template boinc-worker v1 was revoked; its grace of 60 s is over"}


async def test_a_refused_deletion_says_what_was_tried_and_why(house: House, lines: Lines) -> None:
    house.cloud.control.set_fault("lose_answers", True)
    await house.change_resource(mode=Mode.DRAINING, force=True)

    refused = acts(lines, "delete", "machine.refused")
    assert refused
    assert {line["cause"] for line in refused} == {"timeout"}
    assert all("by force" in reason for reason in reasons(refused))


async def test_a_stranger_is_deleted_with_the_name_of_who_allowed_it(house: House, lines: Lines) -> None:
    (stranger,) = await house.make_strangers(1)
    await house.be_silent(15)
    path = f"/v1/sweeps/{house.resource.resource_id}/allow"
    assert (await house.ask("POST", path, {"names": [stranger]}, role=Role.ADMIN)).status == 200
    await house.be_silent(15)

    (allowed,) = [line for line in lines if line["event"] == "sweep.allowed"]
    assert (allowed["by"], allowed["resource"], allowed["strangers"]) == ("Ada", "Lab", [stranger])
    (deleted,) = acts(lines, "delete", "machine.deleting")
    assert (deleted["machine"], deleted["reason"]) == (
        stranger,
        "a stranger with our mark, allowed to go by Ada",
    )


async def test_limits_say_why_they_are_as_they_are(house: House, lines: Lines) -> None:
    await house.change_resource(mode=Mode.PAUSED)

    (applied,) = [line for line in lines if line["event"] == "limits.applied"]
    assert (applied["cluster"], applied["resource"]) == ("lab", "Lab")
    assert applied["reason"] == "paused: the resource is paused; budgets at the floor, nothing new"


async def test_a_change_of_course_is_told_and_budgets_alone_only_to_who_asks_for_it(
    house: House, lines: Lines
) -> None:
    house.own(0.4)
    await house.run(20)
    decided = [line for line in lines if line["event"] == "cluster.decided"]
    assert {line["log_level"] for line in decided} == {"debug"}
    assert [line for line in lines if line["event"] == "limits.applied"]  # with its reason

    lines.clear()
    house.own(0.95)
    await house.run(20)
    (told, *_) = [line for line in lines if line["event"] == "cluster.decided"]
    assert (told["log_level"], told["cluster"]) == ("info", "lab")
    assert told["reason"].startswith("owner CPU 95 % is above reclaim 70 %")
