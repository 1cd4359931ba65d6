"""Machines that were made for what is no more, or whose guests do not work, make room for others; slots come back."""

import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import yaml

from libs.boinc.signing import SigningKey
from libs.common.contracts.action import MachineDestroyed, MachineDraining, MachineFailed
from libs.common.contracts.resource import Mode
from libs.common.contracts.supply import GuestHealthChanged
from libs.common.secrets import authenticator_context
from libs.providers.simulated import ClusterDefinition, OwnerProfile
from services.workload.domain.renewal import LEAST_AGE_S
from tests.service.workload_house import House, open_house
from tests.service.workload_words import POLICY

FOUR = ClusterDefinition(
    name="lab", hosts=4, owner=OwnerProfile.IDLE, cores=8, core_mhz=2500, memory_gib=64, datastore_gib=4096
)
SHORT_GRACE = {"ladder": POLICY["ladder"] | {"drain_grace_s": 5}}
KEY = SigningKey.generate().public


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url, replicas=2, clusters=(FOUR,)) as one:
        await one.lend(step_machines=4, **SHORT_GRACE)
        await one.run(40)
        assert await one.states() == ["running"] * 4
        yield one


@pytest.fixture
async def managed(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """A house whose machines have agents and come to Tides as their account manager."""
    monkeypatch.setenv("TIDES_BOINC_URL", "https://tides.example/boinc/")
    monkeypatch.setenv("TIDES_BOINC_SIGNING_KEY", KEY.text)
    async with open_house(database_url) as one:
        await one.lend(**SHORT_GRACE)
        await one.run(40)
        assert await one.states() == ["running"] * 2
        yield one


def keys_of(house: House) -> list[set[str]]:
    """The project keys in the machines that are there, by their user data."""
    documents = [str(yaml.safe_load(machine.user_data)) for machine in house.cloud.truth().machines]
    return [set(re.findall(r"<authenticator>([^<]*)", document)) for document in documents]


def slots_of(house: House) -> list[int]:
    names = [yaml.safe_load(machine.user_data)["hostname"] for machine in house.cloud.truth().machines]
    return sorted(int(name.rpartition("-")[2]) for name in names)


async def age(house: House) -> None:
    """So much time passes that every machine is old enough; the cluster is heard of again afterwards."""
    house.clock.leap(LEAST_AGE_S)
    await house.run(20)


async def change_key(house: House, key: str) -> None:
    vault, known = house.settings.vault(), house.contribution
    sealed = vault.seal(key, authenticator_context(known.contribution_id))
    await house.change_contribution(sealed_authenticator=sealed)


async def test_a_changed_key_reaches_every_machine_one_after_the_other_and_slots_are_used_again(
    house: House,
) -> None:
    assert slots_of(house) == [1, 2, 3, 4]
    old = {machine["id"] for machine in await house.machines()}
    await change_key(house, "another-key")
    await house.run(20)
    assert {machine["id"] for machine in await house.machines()} == old  # too young

    await age(house)
    least = 4
    for _ in range(40):
        await house.run(20)
        living = house.cloud.truth().machines
        least = min(least, len(living))
        if all(keys == {"another-key"} for keys in keys_of(house)) and len(living) == 4:
            break
    assert keys_of(house) == [{"another-key"}] * 4
    assert least >= 3, "one after the other"
    assert len(set(slots_of(house))) == 4
    assert max(slots_of(house)) <= 5  # one was still leaving when its successor was asked for
    assert old.isdisjoint(machine["id"] for machine in await house.machines())
    drained = house.heard(MachineDraining)
    assert len(drained) == 4
    assert all("its key for https://boinc.example.org/ was changed" in event.reason for event in drained)
    told = (await house.ask("GET", "/v1/decisions?limit=50")).body["items"]
    assert sum("1 of 4 machines replaced: its key" in decision["reason"] for decision in told) == 4
    assert all("another-key" not in str(machine) for machine in await house.machines(live=False))


async def test_nothing_is_replaced_while_the_owner_needs_what_is_lent(house: House) -> None:
    await age(house)
    house.own(0.65)
    await house.run(40)
    await change_key(house, "another-key")
    await house.run(40)
    assert [machine["reason"] for machine in await house.machines() if "replaced" in machine["reason"]] == []
    assert house.heard(MachineDestroyed) == []


async def test_who_works_for_an_ended_contribution_goes_at_once_and_others_come(house: House) -> None:
    first = house.contribution
    other = first.model_copy(
        update={
            "id": uuid4(), "contribution_id": uuid4(), "project_url": "https://other.example/", "revision": 1,
        }
    )  # fmt: skip
    sealed = house.settings.vault().seal("other-key", authenticator_context(other.contribution_id))
    away = {"id": uuid4(), "resource_id": uuid4(), "name": "North", "url": "sim://north", "revision": 1}
    stand_in = {"stand_in_id": house.resource.resource_id, "mode": Mode.OBSERVE}
    await house.tell(other.model_copy(update={"sealed_authenticator": sealed}))
    await house.execute(
        """update machine set attached = jsonb_set(attached, '{to}', $1 || (attached->'to'))""",
        [["https://other.example/", None, 500]],
    )
    await house.tell(house.resource.model_copy(update=away | stand_in))
    await house.change_contribution(resource_ids=(away["resource_id"],))
    await house.run(20)
    assert house.heard(MachineDraining) == [], "it stood in for another cloud, which is back"
    await house.change_contribution(active=False, gone=True)
    await house.run(20)

    drained = house.heard(MachineDraining)
    assert len(drained) == 4
    assert {event.reason for event in drained} == {
        "replaced: it is attached to https://boinc.example.org/, to which nothing is lent here any more"
    }
    await house.run(80)
    assert keys_of(house) == [{"other-key"}] * 4
    assert len(set(slots_of(house))) == 4
    assert max(slots_of(house)) <= 8


async def test_a_machine_of_before_is_replaced_once_and_a_scale_of_all_weights_replaces_nobody(
    house: House,
) -> None:
    await age(house)
    await house.change_contribution(weight=7.0)
    await house.run(20)
    assert house.heard(MachineDraining) == []
    await house.execute("update machine set attached = null, slot = null where slot = 1")
    await house.run(100)
    [drained] = house.heard(MachineDraining)
    assert "it is not known what it was attached to" in drained.reason
    assert len(set(slots_of(house))) == 4
    assert max(slots_of(house)) <= 5


async def say(house: House, health: str, machine: dict[str, Any], why: str = "") -> None:
    now = house.clock.now()
    about = {name: machine[name] for name in ("organisation_id", "resource_id")}
    changed = {"at": now, "since": now, "machine_id": machine["id"], "health": health, "why": why}
    await house.tell(GuestHealthChanged.model_validate(about | changed))


async def test_a_guest_that_does_not_work_is_replaced_three_times_and_then_the_cluster_rests(
    managed: House,
) -> None:
    house = managed
    sick: list[str] = []
    for number in range(4):
        machine = (await house.machines())[-1]
        assert (machine["attached"], machine["state"]) == ({"by": "manager", "to": []}, "running"), number
        await say(house, "broken", machine, "no answer")
        sick.append(machine["id"])
        await house.run(40)
        house.clock.leap(3600)
        await house.run(60)

    failed = house.heard(MachineFailed)
    assert [str(event.machine_id) for event in failed] == sick[:3]
    assert {(event.stage, event.reason) for event in failed} == {
        ("guest", "its BOINC cannot be asked (no answer)")
    }
    cluster = await house.cluster()
    assert cluster["guests"] == {"broken": 1}
    assert "3 guests in a row did not work (no answer)" in cluster["reason"]
    assert sick[3] in [machine["id"] for machine in await house.machines()]

    await say(house, "working", (await house.machines())[-1])
    await house.run(20)
    assert "in a row" not in (await house.cluster())["reason"]
    assert (await house.fetch("select guest_failures from cluster"))[0]["guest_failures"] == 0

    await say(house, "broken", (await house.machines())[-1], "no answer")
    await house.run(20)
    assert ": the last machine's guest did not work" in (await house.cluster())["reason"]
    await house.act(f"/v1/clusters/{house.cluster_id}/resume", {"reason": "mended"})
    assert "nothing new before" not in (await house.cluster())["reason"]


async def test_starved_guests_keep_a_cluster_from_growing_and_an_old_word_changes_nothing(
    managed: House,
) -> None:
    house = managed
    first, second = await house.machines()
    before = house.clock.now()
    await house.run(20)
    await say(house, "starved", first, "its projects gave it no work")
    await say(house, "working", second)
    late = {"at": before, "since": before, "machine_id": first["id"], "health": "working"}
    about = {name: first[name] for name in ("organisation_id", "resource_id")}
    await house.tell(GuestHealthChanged.model_validate(about | late))
    await house.assign(machines_per_host=2, step_machines=2, **SHORT_GRACE)
    await house.run(40)

    cluster = await house.cluster()
    assert cluster["guests"] == {"starved": 1, "working": 1}
    assert "1 of 2 machines have nothing to do: its projects gave it no work" in cluster["reason"]
    assert len(await house.machines()) == 2
    [told] = [machine for machine in await house.machines() if machine["id"] == first["id"]]
    assert (told["health"], told["health_why"]) == ("starved", "its projects gave it no work")

    await say(house, "working", first)
    await house.run(60)
    assert len(await house.machines()) == 4


async def test_one_lost_heartbeat_kills_nobody(managed: House) -> None:
    house = managed
    first, second = await house.machines()
    await say(house, "working", second)
    await say(house, "silent", first)
    await house.run(40)
    assert house.heard(MachineFailed) == []
    house.clock.leap(3600)
    await house.run(20)
    # Half of them silent may be our own door.
    assert house.heard(MachineFailed) == []
