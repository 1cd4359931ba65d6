"""A machine on a host without connection, or in another cluster, is as little to be altered as on a real one."""

from uuid import uuid4

import pytest

from libs.common.contracts.usage import HostState
from libs.providers.base import Cause, Power, Rejected, Unavailable
from libs.providers.simulated import SimulatedSettings
from tests.contract.providers.simulated_target import SimulatedTarget
from tests.contract.providers.target import bring, deploy


async def test_a_machine_on_a_failed_host_is_out_of_reach_and_the_others_get_their_limits(
    target: SimulatedTarget,
) -> None:
    away, here = target.make_spec(host="host-1001"), target.make_spec(host="host-1002")
    for spec in (away, here):
        await deploy(target, spec)
        await bring(target, spec.name, Power.ON)
    target.cloud.control.set_host_state("host-1001", HostState.FAILED)
    for attempt in (
        target.provider.set_limits(target.cluster, 4000.0, {away.name: 700.0, here.name: 900.0}),
        target.provider.set_power(away.name, Power.SUSPENDED),
        target.provider.set_power(away.name, Power.OFF),
        target.provider.delete(away.name),
    ):
        with pytest.raises(Unavailable) as refusal:
            await attempt
        assert refusal.value.cause is Cause.UNREACHABLE
    await target.provider.set_power(away.name, Power.ON)  # it is on: nothing is asked of the host
    limits = {machine.name: machine.limit_mhz for machine in await target.provider.machines()}
    assert limits[here.name] == 900.0
    assert limits[away.name] != 700.0

    target.cloud.control.repair_host("host-1001")
    assert await target.provider.set_limits(target.cluster, 4000.0, {away.name: 700.0}) == 1


async def test_an_account_without_the_privilege_deletes_nothing(target: SimulatedTarget) -> None:
    spec = target.make_spec()
    await deploy(target, spec)
    target.cloud.control.set_fault("delete_forbidden", True)
    with pytest.raises(Rejected) as refusal:
        await target.provider.delete(spec.name)
    assert refusal.value.cause is Cause.PERMISSION
    await target.provider.delete(f"tides-{uuid4()}")
    target.cloud.control.clear_faults()
    await target.provider.delete(spec.name)
    assert await target.provider.machines() == []


async def test_limits_of_a_machine_in_another_cluster_are_not_found() -> None:
    target = SimulatedTarget("sim://moving", SimulatedSettings(scenario="enterprise"))
    target.provider = await target.open("correct horse")
    spec = target.make_spec()
    await deploy(target, spec)
    far = next(one for one in target.cloud.state().clusters if one.cluster != spec.cluster)
    target.cloud.control.move_machine(spec.name, far.hosts[0].host)
    with pytest.raises(Rejected) as refusal:
        await target.provider.set_limits(spec.cluster, 4000.0, {spec.name: 700.0})
    assert refusal.value.cause is Cause.NOT_FOUND
    assert await target.provider.set_limits(far.cluster, 4000.0, {spec.name: 700.0}) == 2
