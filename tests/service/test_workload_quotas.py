"""Quotas that span clusters, the least life of machines, priorities of projects: what is kept, made, and said of it."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from libs.boinc.signing import SigningKey
from libs.common.contracts.action import MachineDraining, MachineRequested
from libs.common.contracts.resource import Mode
from libs.common.ids import cluster_id, new_id
from libs.providers.simulated import ClusterDefinition, OwnerProfile
from services.workload.usecases import granting
from tests.service.lone_service import OURS
from tests.service.workload_house import LAB, House, open_house
from tests.support import until

EAST = ClusterDefinition(
    name="east", hosts=2, owner=OwnerProfile.IDLE, cores=8, core_mhz=2500, memory_gib=64, datastore_gib=4096
)


async def running_by_cluster(house: House) -> list[int]:
    """Machines that stay, by cluster."""
    staying = [machine for machine in await house.machines() if machine["wanted"] != "gone"]
    ids = [str(cluster_id(house.resource.resource_id, ref)) for ref in ("domain-c1", "domain-c2")]
    return [sum(machine["cluster_id"] == identity for machine in staying) for identity in ids]


async def reasons(house: House) -> str:
    shown = (await house.ask("GET", "/v1/clusters")).body["items"]
    return " | ".join(cluster["reason"] for cluster in shown)


async def test_a_quota_of_the_organisation_holds_over_its_clusters_and_is_named(database_url: str) -> None:
    async with open_house(database_url, clusters=(LAB, EAST)) as house:
        await house.lend(quota={"vcpus": 12})
        await house.run(60)
        assert sum(await running_by_cluster(house)) == 3, "of four that there is room for"
        assert len(house.heard(MachineRequested)) == 3
        used_up = (
            "the organisation's quota of 12 vCPUs (policy quick) is used up: 12 are taken on all its clusters"
        )
        assert used_up in await reasons(house)
        assert "is reached" not in await reasons(house), "the quota is told once"
        decided = (await house.ask("GET", f"/v1/decisions?cluster_id={house.cluster_id}")).body["items"]
        assert decided, "the reason stands in what `tides why` shows, too"

        await house.assign(quota={"vcpus": 4}, minimum_life_s=3600)
        await house.run(40)
        assert sum(await running_by_cluster(house)) == 3, "young machines live on: a quota is a mere shrink"
        assert house.heard(MachineDraining) == []

        await house.assign(quota={"vcpus": 4})
        await house.run(40)
        assert sum(await running_by_cluster(house)) == 1
        [kept] = [machine for machine in await house.machines() if machine["wanted"] != "gone"]
        assert kept["running_since"] == min(
            machine["running_since"]
            for machine in await house.machines(live=False)
            if machine["running_since"]
        ), "who would lose most work stays"

        await house.run(80)  # until the others are gone
        house.own(0.9)
        await house.run(20)
        assert "owner CPU 90 % is above reclaim" in await reasons(house)
        assert "quota" not in await reasons(house), "what binds is the owner"


async def test_what_an_older_workload_left_out_is_taken_when_it_is_told_again(database_url: str) -> None:
    """In the midst of an upgrade a process of before takes a state, and keeps of it what it knows."""
    async with open_house(database_url) as house:
        await house.lend(quota={"vcpus": 4})
        await house.change_contribution(priority=3, most_machines=5)
        await house.execute("update assignment set quota = null")
        await house.execute("update contribution set priority = 0, most_machines = null")
        await house.tell(house.assigned[-1], house.contribution)

        [policy] = await house.fetch("select quota from assignment")
        assert policy["quota"] == {"vcpus": 4}
        [lent] = await house.fetch("select priority, most_machines from contribution")
        assert (lent["priority"], lent["most_machines"]) == (3, 5)

        await house.tell(house.contribution.model_copy(update={"id": new_id(), "priority": 0, "weight": 9.0}))
        [lent] = await house.fetch("select priority, weight from contribution")
        assert (lent["priority"], lent["weight"]) != (0, 9.0), "who left it out says nothing"

        # Words that it did not know it took for the careful ones, and of a probe it knew nothing.
        probe = {"probe_id": new_id(), "probe_until": house.clock.now() + timedelta(hours=1)}
        await house.change_resource(mode=Mode.OBSERVE, **probe)
        await house.execute("update resource set mode = 'paused', probe_id = null, probe_until = null")
        await house.execute("update template set state = 'draft'")
        await house.tell(house.resource, house.template)

        [known] = await house.fetch("select mode, probe_id, probe_until from resource")
        assert dict(known) == {"mode": "observe"} | probe
        assert [row["state"] for row in await house.fetch("select state from template")] == ["approved"]


async def test_who_grants_waits_for_who_grants_to_another_cluster_and_counts_what_that_one_took(
    database_url: str,
) -> None:
    async with open_house(database_url) as house:
        await house.lend(quota={"vcpus": 4})
        await house.run(60)
        assert len(await house.states()) == 1
        await house.assign(quota={"vcpus": 8})

        async with house.schema() as other:
            await other.execute("begin")
            await other.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", f"quota/{OURS}")
            judging = asyncio.create_task(house.run(20))

            async def waits() -> bool:
                mine = "database = (select oid from pg_database where datname = current_database())"
                return bool(await house.fetch(f"select 1 from pg_locks where not granted and {mine}"))

            await until(waits, what="a judgement that waits")
            await house.execute("update machine set vcpus = 8")  # as much as another cluster would have taken
            await other.execute("commit")
            await judging

        await house.run(20)
        assert len(house.heard(MachineRequested)) == 1
        assert "is used up: 8 are taken" in await reasons(house)


async def test_an_owner_does_not_wait_for_a_quota_that_somebody_else_holds(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(granting, "WAITS_FOR", "200ms")
    async with open_house(database_url) as house:
        await house.lend(quota={"vcpus": 4})
        await house.run(60)
        await house.assign(quota={"vcpus": 8})

        async with house.schema() as frozen:
            await frozen.execute("begin")
            await frozen.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", f"quota/{OURS}")
            await house.run(20)
            assert "another cluster of the organisation has its quotas in hand" in await reasons(house)
            house.own(0.9)
            await house.run(20)
            assert "owner CPU 90 % is above reclaim" in await reasons(house)
            assert {machine.limit_mhz for machine in house.cloud.truth().machines} == {800.0}
            await frozen.execute("rollback")
        assert len(house.heard(MachineRequested)) == 1


async def test_projects_have_quotas_and_the_lowest_priority_goes_first(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDES_BOINC_URL", "https://tides.example/boinc/")
    monkeypatch.setenv("TIDES_BOINC_SIGNING_KEY", SigningKey.generate().public.text)
    async with open_house(database_url, clusters=(LAB,)) as house:
        await house.lend()
        await house.change_contribution(most_machines=1)
        await house.run(60)
        assert len(await house.states()) == 1
        assert "the quotas of projects are used up (Rosetta 1 machine)" in await reasons(house)

        beside = {"contribution_id": uuid4(), "project_id": uuid4(), "project_name": "LHC", "priority": -5}
        await house.tell(
            house.contribution.model_copy(update={"id": new_id(), "most_machines": None, **beside})
        )
        await house.run(60)
        assert await house.states() == ["running", "running"]

        await house.assign(quota={"machines": 1})
        await house.run(20)
        wanted = [machine["wanted"] for machine in await house.machines()]
        assert wanted == ["running", "gone"], "the machine of the lower priority goes"
        facts = (await house.fetch("select facts from decision order by id desc limit 1"))[0]["facts"]
        assert [machine["priority"] for machine in facts["machines"]] == [0, -5]
