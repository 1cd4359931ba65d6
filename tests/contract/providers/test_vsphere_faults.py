"""What the vSphere driver makes of lost answers, refusals and outages."""

import asyncio
import time

import pytest

from libs.providers.base import Cause, Full, MachineSpec, Power, Rejected, Unavailable
from libs.providers.vsphere import VSphereProvider
from libs.providers.vsphere.inventory import read_clusters
from tests.contract.providers.target import deploy, seen
from tests.contract.providers.vsphere_target import VSphereTarget, opened
from tests.faultproxy import FaultProxy, SoapFault, no_permission
from tools.parts.vcsim import Vcsim


async def test_a_lost_answer_to_a_clone_still_makes_one_machine(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    spec = target.make_spec()
    proxy.rules.reset_after["CloneVM_Task"] = 1
    with pytest.raises(Unavailable):
        await target.provider.create(spec)
    await target.provider.create(spec)
    machine = await seen(target, spec.name)
    assert machine is not None
    assert machine.configured
    assert (await target.back_door.names()).count(spec.name) == 1
    assert proxy.calls["CloneVM_Task"] == 1


async def test_a_machine_whose_configuration_was_lost_is_listed_and_finished(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    spec = target.make_spec()
    proxy.rules.reset_before["ReconfigVM_Task"] = 1
    with pytest.raises(Unavailable):
        await target.provider.create(spec)
    half = await seen(target, spec.name)
    assert half is not None
    assert not half.configured
    with pytest.raises(Rejected):
        await target.provider.set_power(spec.name, Power.ON)
    assert (await deploy(target, spec)).configured


@pytest.mark.parametrize("method", ["CreateFolder", "CreateResourcePool", "ReconfigVM_Task"])
async def test_any_lost_answer_on_the_way_is_made_good_by_the_next_call(
    target: VSphereTarget, proxy: FaultProxy, method: str
) -> None:
    spec = target.make_spec()
    proxy.rules.reset_after[method] = 1
    with pytest.raises(Unavailable):
        await target.provider.create(spec)
    await deploy(target, spec)
    assert (await target.back_door.names()).count(spec.name) == 1


async def test_a_lost_answer_to_power_and_destroy_is_made_good(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    spec = target.make_spec()
    await deploy(target, spec)
    proxy.rules.reset_after.update(["PowerOnVM_Task", "Destroy_Task"])
    with pytest.raises(Unavailable):
        await target.provider.set_power(spec.name, Power.ON)
    await target.provider.set_power(spec.name, Power.ON)
    with pytest.raises(Unavailable):
        await target.provider.delete(spec.name)
    await target.provider.delete(spec.name)
    assert not await target.exists(spec.name)
    assert proxy.calls["Destroy_Task"] == 1


async def test_a_name_that_the_cloud_calls_taken_counts_as_found(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    spec = target.make_spec()
    proxy.rules.faults["CloneVM_Task"] = SoapFault(
        "DuplicateName",
        "taken",
        f'<name>{spec.name}</name><object type="VirtualMachine">vm-1</object>',
    )
    await target.provider.create(spec)
    assert await seen(target, spec.name) is None
    proxy.rules.heal()
    assert (await deploy(target, spec)).configured


async def test_two_creations_at_once_make_one_machine(target: VSphereTarget, proxy: FaultProxy) -> None:
    spec = target.make_spec()
    await asyncio.gather(*(target.provider.create(spec) for _ in range(3)))
    assert (await target.back_door.names()).count(spec.name) == 1
    assert proxy.calls["CloneVM_Task"] == 1


async def test_a_missing_permission_is_named(target: VSphereTarget, proxy: FaultProxy) -> None:
    proxy.rules.faults["CloneVM_Task"] = no_permission("VirtualMachine.Provisioning.DeployTemplate")
    with pytest.raises(Rejected) as refusal:
        await target.provider.create(target.make_spec())
    assert refusal.value.cause is Cause.PERMISSION
    assert "VirtualMachine.Provisioning.DeployTemplate" in refusal.value.detail


async def test_a_full_cloud_is_full(target: VSphereTarget, proxy: FaultProxy) -> None:
    proxy.rules.faults["CloneVM_Task"] = SoapFault("NoDiskSpace", "no room", "<datastore>ds1</datastore>")
    with pytest.raises(Full) as refusal:
        await target.provider.create(target.make_spec())
    assert refusal.value.cause is Cause.CAPACITY
    assert "ds1" in refusal.value.detail


async def test_missing_privileges_are_listed_with_what_they_disable(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    proxy.rules.lacking = {"VirtualMachine.Config.Resource", "Resource.CreatePool"}
    missing = {each.privilege: each.disables for each in (await target.provider.validate()).missing}
    assert set(missing) == proxy.rules.lacking
    assert "limiting" in missing["VirtualMachine.Config.Resource"]


async def test_without_the_right_to_override_a_machine_is_made_all_the_same(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    proxy.rules.faults["ReconfigureComputeResource_Task"] = no_permission("Host.Inventory.EditCluster")
    proxy.rules.faults["AddCustomFieldDef"] = no_permission("Global.ManageCustomFields")
    assert (await deploy(target, target.make_spec())).configured


async def test_a_session_that_was_ended_is_opened_again(target: VSphereTarget, proxy: FaultProxy) -> None:
    def end_others(content: object) -> None:
        manager = content.sessionManager  # type: ignore[attr-defined]
        mine = manager.currentSession.key
        manager.TerminateSession([each.key for each in manager.sessionList if each.key != mine])

    before = proxy.calls["Login"]
    await target.back_door.run(end_others)
    assert len(await target.provider.sample(None)) == 1
    await asyncio.gather(*(target.provider.machines() for _ in range(4)))
    assert proxy.calls["Login"] == before + 1


async def test_an_outage_is_unavailable_and_passes(target: VSphereTarget, proxy: FaultProxy) -> None:
    proxy.rules.down = True
    for attempt in (
        target.provider.machines(),
        target.provider.sample(None),
        target.provider.validate(),
        target.provider.delete("tides-x"),
        target.provider.set_limits(target.cluster, 1000, {}),
    ):
        with pytest.raises(Unavailable) as refusal:
            await attempt
        assert refusal.value.cause is Cause.UNREACHABLE
    proxy.rules.heal()
    proxy.rules.status["*"] = 503
    with pytest.raises(Unavailable):
        await target.provider.machines()
    proxy.rules.heal()
    assert await target.provider.machines() == []


async def test_a_deadline_ends_a_call_and_nothing_is_sent_after_it(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    provider = target.provider
    assert isinstance(provider, VSphereProvider)
    proxy.rules.delay_s["CurrentTime"] = 0.6
    begun = time.monotonic()
    with pytest.raises(Unavailable) as refusal:
        await provider._session.call(
            lambda api: (api.now(), read_clusters(api, provider._settings)), "waiting", 0.3
        )
    assert refusal.value.cause is Cause.TIMEOUT
    assert time.monotonic() - begun < 1.5
    sent = proxy.calls["RetrievePropertiesEx"]
    await asyncio.sleep(
        0.5
    )  # the delayed answer has come: a thread that went on would read the inventory now
    assert proxy.calls["RetrievePropertiesEx"] == sent


async def test_no_write_is_repeated_by_itself(target: VSphereTarget, proxy: FaultProxy) -> None:
    spec = target.make_spec()
    await deploy(target, spec)
    for method, attempt in (
        ("PowerOnVM_Task", lambda: target.provider.set_power(spec.name, Power.ON)),
        ("ReconfigVM_Task", lambda: target.provider.set_limits(target.cluster, 900, {spec.name: 700})),
        ("Destroy_Task", lambda: target.provider.delete(spec.name)),
    ):
        before = proxy.calls[method]
        proxy.rules.reset_before[method] = 1
        with pytest.raises(Unavailable):
            await attempt()
        assert proxy.calls[method] == before + 1


async def test_power_on_works_where_overhead_memory_must_be_reserved(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    spec: MachineSpec = target.make_spec()
    await deploy(target, spec)
    await target.provider.set_limits(target.cluster, 5000, {})
    await target.provider.set_power(spec.name, Power.ON)
    machine = await seen(target, spec.name)
    assert machine is not None
    assert machine.power is Power.ON


async def test_without_drs_there_is_no_pool_and_limits_still_hold(vcsim: Vcsim, proxy: FaultProxy) -> None:
    proxy.rules.drs_off = True
    async with opened(vcsim, proxy.url) as target:
        spec = target.make_spec()
        await deploy(target, spec)
        assert await target.provider.set_limits(target.cluster, 5000, {spec.name: 600}) == 1
        machine = await seen(target, spec.name)
        assert machine is not None
        assert machine.limit_mhz == 600
        assert (await target.provider.sample(None))[0].cap_mhz is None
        assert proxy.calls["CreateResourcePool"] == 0
        assert any("DRS is off" in text for text in (await target.provider.validate()).warnings)
