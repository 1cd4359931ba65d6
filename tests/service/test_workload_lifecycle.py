"""A machine's way through its life, as owner, operator and policy wish."""

from collections.abc import AsyncIterator, Sequence

import pytest

from libs.common.contracts.action import (
    MachineDeployed,
    MachineDestroyed,
    MachineDraining,
    MachineRequested,
    MachineResumed,
    MachineSuspended,
    ResourceReleased,
)
from libs.common.contracts.base import Event
from libs.common.contracts.resource import Mode
from libs.common.contracts.supply import TemplateState
from libs.providers.base import Begun, Power
from libs.providers.simulated.session import SimulatedProvider
from tests.service.workload_house import House, open_house


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        await house.lend()
        await house.run(40)
        yield house


def powers(house: House) -> list[Power]:
    return [machine.power for machine in house.cloud.truth().machines]


def count(house: House, kind: type[Event]) -> int:
    return len(house.heard(kind))


async def test_the_ladder_suspends_and_an_idle_owner_resumes(house: House) -> None:
    names = {machine.name for machine in house.cloud.truth().machines}
    house.own(0.95)
    await house.run(60)

    assert await house.states() == ["suspended", "suspended"]
    assert powers(house) == [Power.SUSPENDED, Power.SUSPENDED]
    assert count(house, MachineSuspended) == 2
    assert (await house.cluster())["rung"] == "suspend"

    house.own(0.1)
    await house.run(120)

    assert await house.states() == ["running", "running"]
    assert {machine.name for machine in house.cloud.truth().machines} == names
    assert (count(house, MachineResumed), count(house, MachineDeployed)) == (2, 2)
    assert count(house, MachineRequested) == 2


async def test_where_one_host_is_full_its_machine_is_suspended_and_the_other_works_on(house: House) -> None:
    full, free = (host.host for host in house.cloud.truth().hosts)
    house.cloud.control.set_owner_load(full, 0.88)
    await house.run(100)

    assert {machine.host: machine.power for machine in house.cloud.truth().machines} == {
        full: Power.SUSPENDED,
        free: Power.ON,
    }
    assert (await house.cluster())["rung"] == "lend"
    assert (await house.cluster())["running"] == 1
    assert count(house, MachineSuspended) == 1

    house.own(0.1)
    await house.run(200)

    assert powers(house) == [Power.ON, Power.ON]
    assert (count(house, MachineResumed), count(house, MachineRequested)) == (1, 2)


async def test_the_ladder_ends_with_nothing_left_and_an_idle_owner_has_machines_again(house: House) -> None:
    house.own(0.95)
    await house.run(240)
    assert await house.states() == []
    assert powers(house) == []
    assert count(house, MachineDestroyed) == 2

    house.own(0.1)
    await house.run(200)
    assert await house.states() == ["running", "running"]


async def test_where_nothing_can_be_suspended_machines_drain_with_grace(house: House) -> None:
    ladder = {"stop_new_after_s": 20, "suspend_after_s": 20, "drain_after_s": 20, "drain_grace_s": 60}
    await house.assign(ladder=ladder | {"suspend": False})
    house.own(0.95)
    await house.run(60)

    assert (await house.cluster())["rung"] == "drain"
    assert await house.states() == ["draining", "draining"]
    assert powers(house) == [Power.ON, Power.ON]
    assert count(house, MachineDraining) == 2

    await house.run(80)
    assert powers(house) == []
    assert count(house, MachineDestroyed) == 2


async def test_a_drain_that_is_called_off_in_its_grace_costs_no_machine(house: House) -> None:
    ladder = {"stop_new_after_s": 20, "suspend_after_s": 20, "drain_after_s": 20, "drain_grace_s": 600}
    await house.assign(ladder=ladder | {"suspend": False})
    house.own(0.95)
    await house.run(60)
    assert await house.states() == ["draining", "draining"]

    house.own(0.1)
    await house.run(160)

    assert await house.states() == ["running", "running"]
    assert count(house, MachineRequested) == 2
    assert count(house, MachineDestroyed) == 0


async def test_fewer_wanted_gives_up_the_same_machine_to_its_end(house: House) -> None:
    await house.assign(max_machines=1)
    await house.run(160)

    assert await house.states() == ["running"]
    assert count(house, MachineDraining) == count(house, MachineDestroyed) == 1


async def test_a_revoked_template_drains_its_machines_and_a_new_version_replaces_them(house: House) -> None:
    old = {machine.name for machine in house.cloud.truth().machines}
    await house.change_template(state=TemplateState.REVOKED)
    await house.run(20)
    assert await house.states() == ["draining", "draining"]
    assert all("was revoked" in event.reason for event in house.heard(MachineDraining))

    fresh = {"version_id": house.policy_id, "version": 2, "state": TemplateState.APPROVED}
    await house.tell(house.template.model_copy(update=fresh | {"id": house.policy_id}))
    await house.run(140)

    assert await house.states() == ["running", "running"]
    assert old.isdisjoint(machine.name for machine in house.cloud.truth().machines)


async def test_a_contribution_that_ends_drains_everything(house: House) -> None:
    await house.change_contribution(active=False)
    await house.run(100)

    assert await house.states() == []
    assert powers(house) == []
    assert "to which nothing is lent here any more" in house.heard(MachineDraining)[0].reason


async def test_a_policy_that_is_taken_away_brings_the_floor_and_drains_everything(house: House) -> None:
    await house.assign(gone=True)
    await house.run(20)
    assert {machine.limit_mhz for machine in house.cloud.truth().machines} == {800}

    await house.run(80)
    assert powers(house) == []
    assert "no policy" in house.heard(MachineDraining)[0].reason


@pytest.mark.parametrize("has_policy", [True, False])
async def test_a_draining_resource_is_released_once(house: House, has_policy: bool) -> None:
    await house.assign(gone=not has_policy)
    await house.change_resource(mode=Mode.DRAINING)
    await house.run(40)
    assert await house.states() == ["draining", "draining"]
    await house.run(120)

    assert powers(house) == []
    (released,) = house.heard(ResourceReleased)
    assert released.revision == house.resource.revision
    assert house.cloud.state().clusters[0].cap[-1][1] is None


async def test_force_destroys_without_grace(house: House) -> None:
    await house.change_resource(mode=Mode.DRAINING, force=True)
    await house.run(40)

    assert powers(house) == []
    assert count(house, ResourceReleased) == 1


async def test_a_resource_that_lends_again_after_its_release_has_machines_again(house: House) -> None:
    await house.change_resource(mode=Mode.DRAINING, force=True)
    await house.run(40)
    await house.change_resource(mode=Mode.LEND, force=False)
    await house.run(120)
    assert await house.states() == ["running", "running"]

    await house.change_resource(mode=Mode.DRAINING, force=True)
    await house.run(40)
    assert count(house, ResourceReleased) == 2


async def test_back_to_observing_gives_everything_back(house: House) -> None:
    await house.change_resource(mode=Mode.OBSERVE)
    await house.run(120)

    assert powers(house) == []
    assert await house.states() == []
    untouched = house.cloud.store.read()
    await house.run(60)
    assert house.cloud.store.read() == untouched
    assert count(house, ResourceReleased) == 0


async def test_a_paused_resource_keeps_its_machines_at_the_floor(house: House) -> None:
    await house.change_resource(mode=Mode.PAUSED)
    await house.run(60)

    assert {machine.limit_mhz for machine in house.cloud.truth().machines} == {800}
    assert await house.states() == ["running", "running"]


async def test_a_machine_being_cloned_shows_how_far_it_is_and_is_called_off_when_unwanted(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recalled: list[tuple[str, str]] = []

    async def recall(self: SimulatedProvider, begun: Sequence[Begun]) -> None:
        recalled.extend((each.name, each.task_id) for each in begun)

    monkeypatch.setattr(SimulatedProvider, "recall", recall)
    async with open_house(database_url, clone_s=300.0) as house:
        await house.lend()
        await house.run(60)
        first = (await house.machines())[0]
        assert first["state"] == "creating"
        await house.run(60)
        later = (await house.machines())[0]
        assert 0 <= first["progress"] < later["progress"] < 100
        recalled.clear()
        await house.begin_anew()
        await house.run(20)
        begun = dict(recalled)
        assert begun[later["name"]] in {"task-1", "task-2"}, "who begins anew is told of what was begun"
        await house.act(f"/v1/machines/{later['id']}/drain", {"reason": "moving out"})
        await house.run(30)
        gone = {machine["id"]: machine["state"] for machine in await house.machines(live=False)}
        assert gone[later["id"]] == "destroyed"
        assert later["name"] not in {machine.name for machine in house.cloud.truth().machines}
        await house.run(300)
        done = [machine for machine in await house.machines() if machine["state"] == "running"]
        assert {machine["progress"] for machine in done} == {None}
        recalled.clear()
        await house.begin_anew()
        await house.run(20)
        names = {machine["name"] for machine in done}
        assert names.isdisjoint(name for name, _ in recalled), "what is made is not looked for any more"
