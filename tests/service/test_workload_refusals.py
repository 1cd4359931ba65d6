"""What a cloud refuses about one object stays that object's: its cluster or machine rests, everything else goes on."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from libs.common.contracts.action import ActionLoginRefused, MachineFailed, MachineRequested
from libs.common.contracts.usage import HostState
from libs.common.secrets import authenticator_context
from libs.providers.base import Cause, LoginRefused, Rejected, Unavailable
from services.workload.reconcile.beats import _guarded
from services.workload.reconcile.hands import Hands
from services.workload.usecases.leasing import Claimed
from services.workload.usecases.limiting import LimitsDue
from tests.service.workload_house import LAB, House, open_house
from tests.service.workload_words import HALF_MHZ


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    """Two clusters: lab with host-1001 and host-1002, annex with two more."""
    annex = LAB.model_copy(update={"name": "annex"})
    async with open_house(database_url, clusters=(LAB, annex)) as house:
        await house.lend()
        await house.run(60)
        assert await house.states() == ["running"] * 4
        yield house


def limits_of(house: House, cluster: str) -> dict[str, float]:
    return {m.host: m.limit_mhz for m in house.cloud.truth().machines if m.cluster == cluster}


def said(logs: list[Any], event: str) -> int:
    return sum(line["event"] == event for line in logs)


async def machine_on(house: House, host: str) -> dict[str, Any]:
    return next(machine for machine in await house.machines() if machine["host"] == host)


async def test_one_failed_host_delays_no_cut_of_others_and_costs_no_session(house: House) -> None:
    house.cloud.control.set_host_state("host-1001", HostState.FAILED)
    with capture_logs() as logs:
        await house.run(60)
        house.own(0.5)
        await house.be_silent(20)
        await house.sample()

    assert limits_of(house, "domain-c2") == dict.fromkeys(limits_of(house, "domain-c2"), HALF_MHZ)
    assert limits_of(house, "domain-c1")["host-1002"] == HALF_MHZ
    assert said(logs, "resource.refused") == 0
    assert 1 <= said(logs, "limits.refused") <= 8
    assert await house.fetch("select failures, retry_at from resource") == [{"failures": 0, "retry_at": None}]

    house.cloud.control.repair_host("host-1001")
    await house.run(60)
    assert limits_of(house, "domain-c1")["host-1001"] == 8_000  # it rose, and was not cut
    assert "open" not in house.limits()


async def test_an_outage_costs_no_session_and_with_it_what_is_known_of_clones(house: House) -> None:
    held = house.hands().sessions
    before = await held.get("simulated", house.connection())
    house.cloud.control.set_fault("unavailable", True)
    with capture_logs() as logs:
        await house.be_silent(25)
    assert 2 <= said(logs, "resource.refused") <= 4
    assert await held.get("simulated", house.connection()) is before

    house.cloud.control.clear_faults()
    await house.run(60)
    assert await held.get("simulated", house.connection()) is before
    assert await house.fetch("select failures, retry_at from resource") == [{"failures": 0, "retry_at": None}]


async def test_limits_that_no_open_decision_asked_for_hold_up_no_cut_when_they_are_refused(
    house: House,
) -> None:
    hands = house.hands()
    drifted = LimitsDue(house.cluster_id, "domain-c1", "lab", None, 9_000.0, {}, "lending")
    cut = replace(drifted, action_id=uuid4(), cap_mhz=0.0)
    hands.rest(drifted, Rejected(Cause.NOT_FOUND, "DRS is off: the pool is gone"))
    assert (hands.is_resting(drifted), hands.is_resting(cut)) == (True, False)
    hands.rest(drifted, Unavailable(Cause.TIMEOUT, "no answer"))
    assert hands.is_resting(cut), "who does not answer is not asked about this cluster"


async def test_what_a_lane_is_refused_with_an_old_password_makes_nobody_rest(house: House) -> None:
    async def be_refused(hands: Hands, resource: Claimed) -> None:
        raise LoginRefused(Cause.AUTH, "wrong password")

    async def failures() -> int:
        return int((await house.fetch("select failures from resource"))[0]["failures"])

    hands = house.hands()
    (old,) = await hands.claim()
    used = await hands.sessions.get("simulated", old.connection)
    await house.change_resource(name="the same password")
    await _guarded(hands, old, be_refused)
    (old,) = await hands.claim()
    renewed = await hands.sessions.get("simulated", old.connection)
    assert renewed is not used, (
        "a session whose login was refused tries none again: it is handed on to nobody"
    )
    await house.change_resource(username="somebody else")
    await _guarded(hands, old, be_refused)
    assert await failures() == 0
    assert house.heard(ActionLoginRefused) == []
    (new,) = await hands.claim()
    await _guarded(hands, new, be_refused)
    assert await failures() == 1
    assert await hands.claim() == [], "this one rests"
    await house.settle()
    (told,) = house.heard(ActionLoginRefused)
    assert (told.resource_revision, told.detail) == (house.resource.revision, "wrong password")


async def test_an_act_that_is_refused_for_now_rests_longer_each_time_and_no_other_waits(house: House) -> None:
    stuck, other = await machine_on(house, "host-1001"), await machine_on(house, "host-1002")
    house.cloud.control.set_host_state("host-1001", HostState.FAILED)
    await house.run(20)
    with capture_logs() as logs:
        await house.act(f"/v1/machines/{stuck['id']}/drain", {"reason": "broken"})
        await house.act(f"/v1/machines/{other['id']}/drain", {"reason": "old"})
        await house.run(120)

    names = {machine.name for machine in house.cloud.truth().machines}
    assert stuck["name"] in names
    assert other["name"] not in names
    assert 2 <= said(logs, "machine.refused") <= 5
    assert said(logs, "resource.refused") == 0

    house.cloud.control.repair_host("host-1001")
    await house.run(80)
    assert stuck["name"] not in {machine.name for machine in house.cloud.truth().machines}


async def test_looks_are_no_failures_and_refused_clones_are(database_url: str) -> None:
    async with open_house(database_url, clone_s=60) as house:
        house.cloud.control.set_fault("create_full", True)
        await house.lend(max_machines=1)
        await house.run(20)
        await house.be_silent(40)
        assert await house.fetch("select attempts from machine") == [{"attempts": 2}]
        assert house.heard(MachineFailed) == []

        house.cloud.control.clear_faults()
        await house.run(160)
        assert await house.states() == ["running"]
        assert len(house.heard(MachineRequested)) == 1


async def test_a_machine_whose_deletion_is_refused_falls_to_the_floor_and_is_not_lent_twice(
    house: House,
) -> None:
    house.cloud.control.set_fault("delete_forbidden", True)
    stuck = await machine_on(house, "host-1001")
    await house.act(f"/v1/machines/{stuck['id']}/drain", {"reason": "old kernel"})
    await house.run(100)

    assert (await machine_on(house, "host-1001"))["state"] == "destroying"
    assert limits_of(house, "domain-c1")["host-1001"] == 800
    assert len(house.heard(MachineRequested)) == 4

    house.own(0.95)
    await house.run(20)
    assert set(limits_of(house, "domain-c1").values()) == {800}

    house.own(0.1)
    house.cloud.control.clear_faults()
    await house.run(500)
    assert stuck["name"] not in {machine.name for machine in house.cloud.truth().machines}
    assert await house.states() == ["running"] * 4
    assert "open" not in house.limits()


async def test_a_machine_that_was_moved_to_another_cluster_is_given_up_and_bounds_nobody(
    house: House,
) -> None:
    moved = await machine_on(house, "host-1001")
    far = next(host.host for host in house.cloud.truth().hosts if host.cluster == "domain-c2")
    house.cloud.control.set_fault("delete_forbidden", True)
    house.cloud.control.move_machine(moved["name"], far)
    await house.be_silent(20)
    row = next(machine for machine in await house.machines() if machine["id"] == moved["id"])
    assert (row["state"], row["wanted"]) == ("destroying", "gone")
    assert "it was moved from cluster lab to annex" in row["reason"]

    house.own(0.5)
    with capture_logs() as logs:
        await house.run(60)
    assert said(logs, "limits.refused") == 0
    limits = {machine.name: machine.limit_mhz for machine in house.cloud.truth().machines}
    assert limits.pop(moved["name"]) == 800
    assert limits_of(house, "domain-c1")["host-1002"] == HALF_MHZ

    house.own(0.1)
    house.cloud.control.clear_faults()
    await house.run(500)
    assert moved["name"] not in {machine.name for machine in house.cloud.truth().machines}
    assert await house.states() == ["running"] * 4
    assert "open" not in house.limits()


async def test_a_context_that_is_too_large_is_the_machine_s_alone(database_url: str) -> None:
    async with open_house(database_url) as house:
        await house.lend(max_machines=1)
        await house.run(60)
        (runs,) = await house.machines()
        other, url = uuid4(), f"https://rosetta.example/{'p' * 20_000}/"
        sealed = house.settings.vault().seal("weak-key", authenticator_context(other))
        more = {"contribution_id": other, "project_url": url, "sealed_authenticator": sealed}
        await house.tell(house.contribution.model_copy(update={"id": uuid4(), **more}))
        await house.lend(max_machines=2)
        await house.run(60)
        assert {failed.machine_id for failed in house.heard(MachineFailed)} - {UUID(runs["id"])}
        assert all("larger than 16 KiB" in failed.reason for failed in house.heard(MachineFailed))

        await house.act(f"/v1/machines/{runs['id']}/drain", {"reason": "old"})
        await house.run(140)
        assert runs["name"] not in {machine.name for machine in house.cloud.truth().machines}
