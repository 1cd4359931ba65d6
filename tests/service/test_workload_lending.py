"""Observing and lending, from the first sample to limits that follow the owner."""

from collections.abc import AsyncIterator

import pytest

from libs.common.contracts.action import LimitsApplied, LimitsRequested, MachineDeployed, MachineRequested
from libs.providers.base import Power
from tests.service.workload_house import House, open_house


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        yield house


async def test_a_lent_cluster_gets_machines_within_its_placements(house: House) -> None:
    await house.lend()
    await house.run(40)

    assert await house.states() == ["running", "running"]
    truth = house.cloud.truth()
    assert sorted(machine.host for machine in truth.machines) == ["host-1001", "host-1002"]
    assert all(machine.power is Power.ON for machine in truth.machines)
    assert len(house.heard(MachineDeployed)) == 2
    assert len(house.heard(MachineRequested)) == 2
    print(house.limits(), [m.limit_mhz for m in truth.machines], await house.cluster())
    print([(type(e).__name__, getattr(e,'reason', '')) for e in house.said])
