"""What the simulated cloud refuses, beyond what every driver must: it is as strict as a real one."""

from dataclasses import replace
from typing import Any, cast
from uuid import uuid4

import pytest

from libs.common.contracts.usage import HostState
from libs.providers.base import Capability, Cause, Full, MachineSpec, Mark, Power, ProviderError, Rejected
from libs.providers.simulated import SimulatedSettings
from tests.contract.providers.simulated_target import SimulatedTarget
from tests.contract.providers.target import bring, deploy, newest


async def refused(target: SimulatedTarget, spec: MachineSpec) -> ProviderError:
    """The refusal of a create that must leave nothing behind."""
    with pytest.raises(ProviderError) as refusal:
        await target.provider.create(spec)
    assert await target.provider.machines() == []
    assert (await newest(target)).cap_mhz is None
    return refusal.value


@pytest.mark.parametrize(
    ("change", "kind", "cause"),
    [
        ({"cluster": "domain-c99"}, Rejected, Cause.NOT_FOUND),
        ({"host": "host-9999"}, Rejected, Cause.NOT_FOUND),
        ({"template": "nothing"}, Rejected, Cause.NOT_FOUND),
        ({"vcpus": 0}, Rejected, Cause.INVALID),
        ({"vcpus": 17}, Rejected, Cause.INVALID),
        ({"memory_mib": 0}, Rejected, Cause.INVALID),
        ({"disk_gib": -1.0}, Rejected, Cause.INVALID),
        ({"limit_mhz": -1.0}, Rejected, Cause.INVALID),
        ({"limit_mhz": None}, Rejected, Cause.INVALID),
        ({"limit_mhz": float("inf")}, Rejected, Cause.INVALID),
        ({"user_data": "\u00e4" * 8193}, Rejected, Cause.INVALID),
        ({"memory_mib": 400 * 1024}, Full, Cause.CAPACITY),
        ({"memory_mib": 400 * 1024, "host": "host-1001"}, Full, Cause.CAPACITY),
        ({"disk_gib": 20_000.0}, Full, Cause.CAPACITY),
    ],
)
async def test_a_spec_that_cannot_be_is_refused(
    target: SimulatedTarget, change: dict[str, Any], kind: type[ProviderError], cause: Cause
) -> None:
    refusal = await refused(target, replace(target.make_spec(), **change))
    assert type(refusal) is kind
    assert refusal.cause is cause


@pytest.mark.parametrize("state", [HostState.MAINTENANCE, HostState.STANDBY, HostState.FAILED])
async def test_nothing_is_created_on_a_host_out_of_service(target: SimulatedTarget, state: HostState) -> None:
    target.cloud.control.set_host_state("host-1001", state)
    assert (await refused(target, target.make_spec(host="host-1001"))).cause is Cause.CONFLICT
    placed = await deploy(target, target.make_spec())
    assert placed.host == "host-1002"


async def test_memory_is_promised_once(target: SimulatedTarget) -> None:
    big = replace(target.make_spec(host="host-1001"), memory_mib=60 * 1024)
    await deploy(target, big)
    with pytest.raises(Full):
        await target.provider.create(replace(target.make_spec(host="host-1001"), memory_mib=100 * 1024))


async def test_a_machine_that_is_not_configured_cannot_run(target: SimulatedTarget) -> None:
    spec = target.make_spec()
    await target.provider.create(spec)
    cloning = (await target.provider.machines())[0]
    assert (cloning.configured, cloning.task, cloning.limit_mhz) == (False, "clone", None)
    with pytest.raises(Rejected) as refusal:
        await target.provider.set_power(spec.name, Power.ON)
    assert refusal.value.cause is Cause.CONFLICT
    target.clock.pass_time(54)
    assert (await target.provider.machines())[0].configured


async def test_a_machine_on_a_host_in_maintenance_cannot_be_started(target: SimulatedTarget) -> None:
    spec = target.make_spec(host="host-1001")
    await deploy(target, spec)
    target.cloud.control.set_host_state("host-1001", HostState.MAINTENANCE)
    with pytest.raises(Rejected) as refusal:
        await target.provider.set_power(spec.name, Power.ON)
    assert refusal.value.cause is Cause.CONFLICT


async def test_a_machine_that_is_off_cannot_be_suspended(target: SimulatedTarget) -> None:
    spec = target.make_spec()
    await deploy(target, spec)
    with pytest.raises(Rejected) as refusal:
        await target.provider.set_power(spec.name, Power.SUSPENDED)
    assert refusal.value.cause is Cause.CONFLICT


async def test_a_name_that_is_taken_is_a_conflict(target: SimulatedTarget) -> None:
    spec = target.make_spec()
    await deploy(target, spec)
    with pytest.raises(Rejected) as refusal:
        await target.provider.create(replace(spec, mark=Mark(target.installation_id, uuid4())))
    assert refusal.value.cause is Cause.CONFLICT
    target.cloud.control.add_foreign("tides-look-alike", target.cluster)
    with pytest.raises(Rejected) as refusal:
        await target.provider.create(target.make_spec(name="tides-look-alike"))
    assert refusal.value.cause is Cause.CONFLICT


async def test_foreign_machines_are_refused_by_name(target: SimulatedTarget) -> None:
    target.cloud.control.add_foreign("tides-look-alike", target.cluster)
    for attempt in (
        target.provider.delete("tides-look-alike"),
        target.provider.set_power("tides-look-alike", Power.OFF),
        target.provider.set_limits(target.cluster, 1000.0, {"tides-look-alike": 100.0}),
    ):
        with pytest.raises(Rejected) as refusal:
            await attempt
        assert refusal.value.cause is Cause.PERMISSION
    assert (await newest(target)).cap_mhz is None


async def test_machines_of_another_installation_are_listed_and_not_touched(target: SimulatedTarget) -> None:
    spec = target.make_spec()
    await deploy(target, spec)
    target.installation_id = uuid4()
    other = await target.log_in()
    assert [machine.mark for machine in await other.machines()] == [spec.mark]
    with pytest.raises(Rejected) as refusal:
        await other.delete(spec.name)
    assert refusal.value.cause is Cause.PERMISSION
    with pytest.raises(Rejected):
        await other.create(spec)
    assert await target.exists(spec.name)


async def test_limits_pass_over_what_is_absent(target: SimulatedTarget) -> None:
    spec = target.make_spec()
    await deploy(target, spec)
    limits = {f"tides-{uuid4()}": 700.0, spec.name: 700.9}
    assert await target.provider.set_limits(target.cluster, 1600.0, limits) == 2
    assert (await target.provider.machines())[0].limit_mhz == 700.0


async def test_limits_must_be_numbers(target: SimulatedTarget) -> None:
    with pytest.raises(Rejected) as refusal:
        await target.provider.set_limits(target.cluster, cast(float, None), {})
    assert refusal.value.cause is Cause.INVALID
    with pytest.raises(Rejected) as refusal:
        await target.provider.set_limits("domain-c99", 1000.0, {})
    assert refusal.value.cause is Cause.NOT_FOUND


async def test_a_cloud_may_lack_capabilities() -> None:
    target = SimulatedTarget(
        "sim://poor",
        SimulatedSettings(
            scenario="small",
            without=(Capability.SUSPEND, Capability.GUEST_SHUTDOWN, Capability.BACKFILL),
        ),
    )
    target.provider = await target.open("correct horse")
    assert not target.provider.capabilities & {Capability.SUSPEND, Capability.GUEST_SHUTDOWN}
    spec = target.make_spec()
    began_at = (await newest(target)).at
    await deploy(target, spec)
    await bring(target, spec.name, Power.ON)
    for power in (Power.SUSPENDED, Power.SHUTDOWN):
        with pytest.raises(Rejected) as refusal:
            await target.provider.set_power(spec.name, power)
        assert refusal.value.cause is Cause.INVALID
    assert len(await target.provider.sample(began_at)) == 1
