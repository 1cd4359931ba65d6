"""An image is made: a small machine beside those that are lent installs, turns itself off and becomes a template."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from sqlalchemy import text

from libs.common.contracts.action import MachineDestroyed, MachineRequested, ResourceReleased
from libs.common.contracts.derivation import DerivationChanged, DerivationMoved
from libs.common.contracts.resource import Mode
from libs.common.contracts.supply import TemplateState
from libs.common.ids import new_id
from libs.harvest.types import Rung
from libs.providers.base import Cause, Rejected
from libs.providers.simulated.session import SimulatedProvider
from services.workload.domain.steps import Act
from services.workload.models import Resource
from services.workload.usecases import deriving, images, looking, probing
from services.workload.usecases.asking import is_still_due
from services.workload.usecases.looking import Due
from services.workload.usecases.making import spec_of
from tests.service.workload_house import House, open_house
from tests.service.workload_words import POLICY
from tests.support import until


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


async def register_again(house: House, version_id: UUID) -> None:
    """A person makes the same image another version, 9."""
    alike = "select gen_random_uuid() as version_id, 9 as version, 'draft' as state"
    copied = "select (jsonb_populate_record(t, to_jsonb(a))).* from template t"
    await house.execute(f"insert into template {copied}, ({alike}) a where t.version_id = $1", version_id)


class _Undone(Exception):
    """Nothing of this transaction is to last."""


KNOWN = (
    "update derivation set kept = true",
    "update derivation set discarded = true",
    "update derivation set over = false, until = until - interval '2 hours' where not discarded",
)


async def undecided(house: House, *changes: str) -> int:
    """Of how many templates it would not be known whether they go, if these changes were made."""
    many = -1
    with suppress(_Undone):
        async with house.hands().database.transaction() as session:
            for change in ";".join(changes).split(";"):
                await session.execute(text(change or "select 1"))
            many = await images.count_undecided(session, house.resource.resource_id, house.clock.now())
            raise _Undone
    return many


async def looked_after(house: House) -> Sequence[UUID]:
    async with house.hands().database.transaction() as session:
        return await deriving.resources_with_derivations(session)


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
        assert await looked_after(house) == [], "one that is in use asks for nothing"
        await house.execute(
            "update machine set template_version_id = $1 where derivation_id is null", asked.derivation_id
        )
        await house.change_template(**version, state=TemplateState.REVOKED)
        assert len(await looked_after(house)) == 1
        await house.run(10)
        assert templates(house) == {builder.name}, "machines of it are still draining"
        await register_again(house, asked.derivation_id)
        await house.run(100)
        assert templates(house) == {builder.name}, "a person registered the same image as another version"
        await house.execute("delete from template where version = 9")
        await house.run(10)
        assert templates(house) == set()
        [row] = await house.fetch("select discarded, cleared from derivation")
        assert tuple(row.values()) == (True, True)


async def test_of_one_that_is_over_before_it_is_done_nothing_is_left_on_a_resource_that_only_observes(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "GIVEN_UP_AFTER", timedelta(seconds=10))
    monkeypatch.setattr(looking, "EMPTY_LOOKS", 3)
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
        await house.run(30)
        assert house.cloud.truth().machines == ()
        assert (await house.machines(live=False))[0]["reason"] == "cancelled by Ada"

        # The cloud made a template of the next, nobody heard of it, and the resource is given back meanwhile.
        hands, second = house.hands(), wanted(house)
        await house.tell(second)
        await until_step(house, "running", second)
        provider = await hands.sessions.get(house.resource.provider, house.connection())
        builder = next(one for one in house.cloud.truth().machines)
        house.cloud.control.switch_off_machine(builder.name)
        await provider.keep_as_template(builder.name)
        await house.change_resource(mode=Mode.DRAINING)
        assert templates(house) == {builder.name}
        for _ in range(30):
            if house.heard(ResourceReleased):
                break
            await house.run(10)
        assert house.heard(ResourceReleased)
        assert templates(house) == set(), "nothing is left of what is released, whatever templates says of it"
        assert house.cloud.truth().machines == ()
        assert await house.states() == []
        await one_that_is_made_is_waited_for(house)


async def one_that_is_made_is_waited_for(house: House) -> None:
    """It is given back before templates says whether it is kept."""
    await house.change_resource(mode=Mode.OBSERVE)
    third = wanted(house)
    await house.tell(third)
    await until_step(house, "made", third)
    await house.change_resource(mode=Mode.DRAINING)
    await house.run(20)
    assert len(house.heard(ResourceReleased)) == 1
    over = "update derivation set over = true where step = 'made'"
    assert [await undecided(house), await undecided(house, over)] == [1, 1], (
        "no beat has been there since it is over"
    )
    assert [await undecided(house, f"{over}; {also}") for also in KNOWN] == [0, 0, 0]
    await house.tell(wanted(house, 2, third.derivation_id, over=True, outcome="cancelled by Ada"))
    await house.run(20)
    assert (templates(house), len(house.heard(ResourceReleased))) == (set(), 2)


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


async def test_builders_come_one_by_one_and_one_that_nobody_ends_or_that_holds_keys_is_no_template(
    database_url: str,
) -> None:
    async with open_house(database_url) as house:
        await house.tell(house.resource, house.template)
        await house.assign()
        await house.run(20)
        late, next_one = wanted(house), wanted(house)
        await house.tell(late)
        await house.execute("update cluster set deploy_failures = 3")
        await until_step(house, "running", late)
        await house.tell(next_one)
        [builder] = house.cloud.truth().machines
        last = await until_step(house, "waiting", next_one)
        assert last.reason == f"another image is being made there: {builder.name}"
        assert await house.fetch("select deploy_failures from cluster") == [{"deploy_failures": 3}]
        assert await why_no_probe(house) != "a machine of before is still leaving"
        await a_locked_cluster_is_waited_for_before_its_machines(house)

        past = house.clock.now() - images.LATE_AFTER
        await house.execute("update derivation set until = $1 where id = $2", past, late.derivation_id)
        assert "nobody has said so" in (await until_step(house, "ended", late)).reason

        # An older process made the next: it has the token and the keys of a machine that is lent.
        running = await until_step(house, "running", next_one)
        assert running.machine_id is not None
        assert await is_due(house, Act.CREATE, running.machine_id)
        assert await is_due(house, Act.KEEP, running.machine_id)
        await none_is_powered_on_while_others_are_suspended(house, running.machine_id)
        assert await has_its_own_disks(house, running.machine_id)
        await house.execute("update machine set attached = '{}' where id = $1", running.machine_id)
        assert not await is_due(house, Act.KEEP, running.machine_id)
        house.cloud.control.switch_off_machine(f"tides-{running.machine_id}")
        assert "an older Tides" in (await until_step(house, "ended", next_one)).reason
        assert (templates(house), house.cloud.truth().machines) == (set(), ())

        third = wanted(house)
        await house.tell(third)
        await until_step(house, "requested", third)
        [row] = await house.fetch("select id from machine where derivation_id = $1", third.derivation_id)
        await house.execute("update derivation set over = true where id = $1", third.derivation_id)
        assert not await is_due(house, Act.CREATE, row["id"]), (
            "whoever cancelled it has not been heard by the beat yet"
        )

        await house.change_template(state=TemplateState.REVOKED)
        fourth = wanted(house)
        await house.tell(fourth)
        assert (await until_step(house, "ended", fourth)).reason == "its origin was revoked"


async def none_is_powered_on_while_others_are_suspended(house: House, machine_id: UUID) -> None:
    harder = "update cluster set decision = jsonb_set(decision, '{rung}', to_jsonb($1::int))"
    for rung, may_start in ((Rung.NO_NEW, True), (Rung.SUSPEND, False), (Rung.LEND, True)):
        await house.execute(harder, int(rung))
        assert await is_due(house, Act.POWER_ON, machine_id) is may_start


async def has_its_own_disks(house: House, machine_id: UUID) -> bool:
    hands = house.hands()
    async with hands.database.transaction() as session:
        spec = await spec_of(session, machine_id, hands.installation_id, hands.vault)
    return spec is not None and spec.is_whole


async def is_due(house: House, act: Act, machine_id: UUID) -> bool:
    due = Due(act, machine_id, f"tides-{machine_id}", "lab", "asked for")
    async with house.hands().database.transaction() as session:
        resource = await session.get_one(Resource, house.resource.resource_id)
        return await is_still_due(session, resource, due)


async def why_no_probe(house: House) -> str | None:
    """What a probe would wait for."""
    why = None
    with suppress(_Undone):
        async with house.hands().database.transaction() as session:
            resource = await session.get_one(Resource, house.resource.resource_id)
            resource.probe_id = uuid4()
            await probing.probe(house.hands().means, session, resource.id, has_door=True)
            why = resource.probe_reason
            raise _Undone
    return why


async def a_locked_cluster_is_waited_for_before_its_machines(house: House) -> None:
    """Whoever revokes a template or drains a machine locks clusters first: else both would wait for each other."""

    async def derive() -> None:
        async with house.hands().database.transaction() as session:
            await deriving.derive(house.hands().means, session, house.resource.resource_id)

    async with house.schema() as one, one.transaction():
        await one.execute("select 1 from cluster for no key update")
        task = asyncio.create_task(derive())

        async def waits() -> bool:
            return task.done() or bool(
                await one.fetchval("select exists(select from pg_locks where not granted)")
            )

        await until(waits, timeout=30, what="a wait for the cluster")
        assert not task.done()
        await one.execute("select 1 from machine for update nowait")
    await task
