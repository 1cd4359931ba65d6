"""What cannot be read holds its own cluster at the floor, gives nothing back, and stops no other's judging."""

from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from libs.common.contracts.action import MachineDraining
from tests.service.workload_house import LAB, House, open_house


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    annex = LAB.model_copy(update={"name": "annex"})
    async with open_house(database_url, clusters=(LAB, annex)) as house:
        await house.lend()
        await house.run(60)
        assert await house.states() == ["running"] * 4
        yield house


def limits_mhz(house: House, cluster: str) -> set[float]:
    return {machine.limit_mhz for machine in house.cloud.truth().machines if machine.cluster == cluster}


async def test_a_policy_that_cannot_be_read_holds_its_cluster_and_no_other(house: House) -> None:
    await house.assign_to_cluster(knob_of_tomorrow=1)
    await house.run(40)

    shown = await house.cluster()
    assert "the policy cannot be read: knob_of_tomorrow" in shown["reason"]
    assert (shown["rung"], shown["wanted"], shown["running"]) == ("no_new", 2, 2)
    assert limits_mhz(house, "domain-c1") == {800}
    assert limits_mhz(house, "domain-c2") == {16_000}
    assert await house.states() == ["running"] * 4
    assert house.heard(MachineDraining) == []

    paused = await house.act(f"/v1/clusters/{house.cluster_id}/pause", {"reason": "audit"})
    assert paused["paused_by"] == "Ada"
    await house.act(f"/v1/clusters/{house.cluster_id}/resume", {"reason": "done"})
    await house.be_silent(80)
    assert limits_mhz(house, "domain-c2") == {800}

    await house.assign_to_cluster()
    await house.run(80)
    assert limits_mhz(house, "domain-c1") == limits_mhz(house, "domain-c2") == {16_000}
    assert house.limits() == ["applied"] * len(house.limits())


async def test_a_memory_that_cannot_be_read_is_begun_anew_and_gives_nothing_back(house: House) -> None:
    statement = """update cluster set state = '{"v": 99}' where id = $1"""
    await house.execute(statement, house.cluster_id)
    await house.run(100)

    assert await house.states() == ["running"] * 4
    assert house.heard(MachineDraining) == []
    assert limits_mhz(house, "domain-c1") == limits_mhz(house, "domain-c2") == {16_000}


async def test_what_goes_wrong_in_one_cluster_keeps_no_other_from_the_floor(house: House) -> None:
    await house.execute("""update cluster set decision = '{"rung": 0}'""")
    with capture_logs() as logs:
        await house.be_silent(70)

    assert {line["cluster"] for line in logs if line["event"] == "cluster.not_judged"} == {"lab", "annex"}
    assert limits_mhz(house, "domain-c1") == limits_mhz(house, "domain-c2") == {800}
    assert await house.states() == ["running"] * 4


async def test_what_was_said_in_a_judgement_that_failed_is_not_said(house: House) -> None:
    said = len(house.said)
    await house.execute("""update cluster set decision = '{"rung": 0}', sampled_at = null""")
    await house.execute("update cluster set reason = 'x' where ref = 'domain-c2'")
    house.own(0.5)
    await house.run(20)

    # The books are checked at the end: every event that was heard stands in the log.
    assert len(house.said) > said
    assert "judging failed with KeyError" in (await house.cluster())["reason"]
