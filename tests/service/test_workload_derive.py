"""An image is made: a small machine beside those that are lent installs, turns itself off and becomes a template."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml

from libs.common.contracts.action import MachineDestroyed, MachineRequested
from libs.common.contracts.derivation import DerivationChanged, DerivationMoved
from libs.common.contracts.supply import TemplateState
from libs.common.ids import new_id
from libs.providers.base import Cause, Rejected
from libs.providers.simulated.session import SimulatedProvider
from services.workload.usecases import looking
from tests.service.workload_house import House, open_house
from tests.service.workload_words import POLICY


def wanted(
    house: House, revision: int = 1, known_as: UUID | None = None, **changes: Any
) -> DerivationChanged:
    values: dict[str, Any] = {
        "id": new_id(), "at": house.clock.now(), "revision": revision, "derivation_id": known_as or uuid4(),
        "organisation_id": house.resource.organisation_id, "resource_id": house.resource.resource_id,
        "version_id": house.template.version_id, "name": "boinc-worker", "version": 1,
        "components": ("boinc", "agent"), "until": house.clock.now() + timedelta(hours=1),
    }  # fmt: skip
    return DerivationChanged.model_validate(values | changes)


def told(house: House) -> list[tuple[str, str]]:
    return [(event.step, event.reason) for event in house.heard(DerivationMoved)]


def templates(house: House) -> set[str]:
    return {name for name in house.cloud.state().templates if name.startswith("tides-")}


async def until_step(house: House, step: str, asked: DerivationChanged | None = None) -> DerivationMoved:
    for _ in range(60):
        found = [event for event in house.heard(DerivationMoved) if event.step == step]
        if asked is not None:
            found = [event for event in found if event.derivation_id == asked.derivation_id]
        if found:
            return found[-1]
        await house.run(10)
    raise AssertionError(f"never {step}: {told(house)}")


async def test_a_builder_beside_what_is_lent_becomes_a_template_that_goes_when_its_version_is_revoked(
    database_url: str,
) -> None:
    async with open_house(database_url) as house:
        await house.lend()
        await house.run(60)
        assert await house.states() == ["running", "running"]
        before = (await house.cluster())["wanted"]
        asked = wanted(house)
        await house.tell(asked)

        running = await until_step(house, "running")

        assert running.derivation_id == asked.derivation_id
        machines = house.cloud.truth().machines
        [builder] = [machine for machine in machines if machine.name == f"tides-{running.machine_id}"]
        files = {file["path"] for file in yaml.safe_load(builder.user_data)["write_files"]}
        assert "/usr/local/sbin/tides-agent" in files
        assert not any(path.startswith("/etc/tides/") for path in files)
        shown = next(one for one in await house.machines() if one["id"] == str(running.machine_id))
        assert shown["limit_mhz"] <= 400, "a small fixed budget"
        assert len(machines) == 3
        assert (await house.cluster())["wanted"] == before

        made = await until_step(house, "made")
        assert (made.reference, made.disk_gib) == (house.cloud.state().templates[builder.name], 16.0)
        assert await house.states() == ["running", "running"]
        assert len(house.heard(MachineRequested)) == 2, "it is not lent: nobody's books have it"
        assert house.heard(MachineDestroyed) == []

        # Its version is approved, a machine is made of it, and it is revoked: the template outlives the machine.
        await house.tell(wanted(house, 2, asked.derivation_id, over=True, kept=True, outcome="version 2"))
        version = {"version_id": asked.derivation_id, "version": 2, "reference": made.reference}
        await house.change_template(**version)
        await house.execute(
            "update machine set template_version_id = $1 where derivation_id is null", asked.derivation_id
        )
        await house.change_template(**version, state=TemplateState.REVOKED)
        await house.run(10)
        assert templates(house) == {builder.name}, "machines of it are still draining"
        await house.run(120)
        assert templates(house) == set()
        [row] = await house.fetch("select discarded, cleared from derivation")
        assert tuple(row.values()) == (True, True)


async def test_of_one_that_is_over_before_it_is_done_nothing_is_left_on_a_resource_that_only_observes(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "GIVEN_UP_AFTER", timedelta(seconds=30))
    async with open_house(database_url) as house:
        await house.tell(house.resource, house.template)
        house.own(0.95)
        first = wanted(house)
        await house.tell(first)
        await house.run(40)
        assert told(house)[-1][0] == "waiting"
        assert "no policy" in told(house)[-1][1]
        await house.assign()
        await house.run(20)
        assert await house.states() == []
        assert told(house)[-1][0] == "waiting"
        house.own(0.1)
        await until_step(house, "running")
        assert await house.states() == ["running"], "a machine of a resource that observes, and no other"
        [builder] = house.cloud.truth().machines

        await house.tell(wanted(house, 2, first.derivation_id, over=True, outcome="cancelled by Ada"))
        await house.run(60)
        assert house.cloud.truth().machines == ()
        assert (await house.machines(live=False))[0]["reason"] == "cancelled by Ada"

        # The cloud made a template of the next, and nobody heard of it before its time was over.
        hands, second = house.hands(), wanted(house)
        await house.tell(second)
        await until_step(house, "running", second)
        provider = await hands.sessions.get(house.resource.provider, house.connection())
        builder = next(one for one in house.cloud.truth().machines)
        house.cloud.control.switch_off_machine(builder.name)
        await provider.keep_as_template(builder.name)
        await house.tell(wanted(house, 2, second.derivation_id, over=True, outcome="its time is over"))
        assert templates(house) == {builder.name}
        await house.run(160)
        assert templates(house) == set()
        assert house.cloud.truth().machines == ()
        assert await house.states() == []


async def test_the_owner_comes_first_and_a_refused_template_ends_with_the_reason(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "MOST_ATTEMPTS", 2)
    quick = {"stop_new_after_s": 0, "suspend_after_s": 0, "drain_after_s": 0, "drain_grace_s": 5}
    async with open_house(database_url) as house:
        await house.tell(house.resource, house.template)
        await house.assign(ladder=POLICY["ladder"] | quick)
        await house.run(20)
        await house.tell(wanted(house))
        await until_step(house, "running")
        house.own(0.97)
        ended = await until_step(house, "ended")
        assert "its owner needs the host" in ended.reason
        house.own(0.1)

        async def refuse(*_: object) -> None:
            raise Rejected(Cause.PERMISSION, "VirtualMachine.Provisioning.MarkAsTemplate")

        monkeypatch.setattr(SimulatedProvider, "keep_as_template", refuse)
        asked = wanted(house)
        await house.tell(asked)
        last = await until_step(house, "ended", asked)
        assert "MarkAsTemplate" in last.reason
        assert house.cloud.truth().machines == ()
