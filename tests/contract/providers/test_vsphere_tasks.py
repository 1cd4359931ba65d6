"""Tasks that take their time, as a real vCenter's do: followed, told of, called off, and never done twice."""

import asyncio

import pytest

from libs.providers.base import Cause, MachineSeen, Power, ProviderError, Rejected, Unavailable
from libs.providers.vsphere import VSphereProvider
from tests.contract.providers.target import bring, deploy, seen
from tests.contract.providers.vsphere_target import VSphereTarget
from tests.faultproxy import FaultProxy, Late, SoapFault
from tests.support import until

LONG = 60.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines of tasks as tests can wait for them."""
    monkeypatch.setattr("libs.providers.vsphere.deploy.CLONE_WAIT_S", 0.3)
    monkeypatch.setattr("libs.providers.vsphere.actions.POWER_WAIT_S", 0.3)
    monkeypatch.setattr("libs.providers.vsphere.actions.DESTROY_WAIT_S", 0.3)
    monkeypatch.setattr("libs.providers.vsphere.clones.CANCEL_WAIT_S", 0.5)
    monkeypatch.setattr("libs.providers.vsphere.tasks.SETTLE_S", 0.2)


async def count(target: VSphereTarget, name: str) -> int:
    """How many machines of this name there are, seen past the driver."""
    return (await target.back_door.names()).count(name)


async def progressed(target: VSphereTarget, name: str) -> MachineSeen | None:
    machine = await seen(target, name)
    return machine if machine is not None and (machine.progress or 0) >= 10 else None


async def test_a_clone_that_outlasts_its_call_shows_its_progress_and_makes_one_machine(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    spec = target.make_spec(host=(await target.provider.sample(None))[0].hosts[1])
    proxy.rules.late["CloneVM_Task"] = Late(10.0)
    await target.provider.create(spec)
    machine = await until(lambda: progressed(target, spec.name), what="progress")
    assert (machine.configured, machine.power, machine.task) == (False, Power.OFF, "VirtualMachine.clone")
    assert (machine.mark, machine.cluster, machine.host) == (spec.mark, spec.cluster, spec.host)
    assert await count(target, spec.name) == 0
    await target.provider.create(spec)

    async def is_over() -> bool:
        machine = await seen(target, spec.name)
        return machine is not None and machine.task is None

    proxy.tasks.release()
    await until(is_over, what="the clone's end")
    machine = await deploy(target, spec)
    assert machine.configured
    assert machine.progress is None
    assert await count(target, spec.name) == 1
    assert proxy.calls["CloneVM_Task"] == 1
    assert proxy.calls["WaitForUpdatesEx"] >= 2
    proxy.calls.clear()
    await asyncio.sleep(0.1)
    assert not proxy.calls, "nothing is asked while nothing runs"


async def test_many_clones_are_followed_by_one_collector(target: VSphereTarget, proxy: FaultProxy) -> None:
    specs = [target.make_spec() for _ in range(4)]
    proxy.tasks.truncates = True
    proxy.rules.late["CloneVM_Task"] = Late(LONG)
    await target.provider.machines()
    await asyncio.gather(*(target.provider.create(spec) for spec in specs))
    shown = {machine.name: machine for machine in await target.provider.machines()}
    assert shown.keys() == {spec.name for spec in specs}
    proxy.tasks.release()
    for spec in specs:
        assert (await deploy(target, spec)).configured
        assert await count(target, spec.name) == 1
    assert proxy.calls["CreateFilter"] == proxy.calls["DestroyPropertyFilter"] == 4
    assert proxy.calls["CreatePropertyCollector"] <= 5, (
        "inventory, machines, templates, tasks, and their changes"
    )


async def test_a_clone_that_is_no_longer_wanted_is_called_off(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    spec = target.make_spec()
    proxy.rules.late["CloneVM_Task"] = Late(LONG)
    await target.provider.create(spec)
    assert (await seen(target, spec.name)) is not None
    await target.provider.delete(spec.name)
    assert proxy.tasks.cancelled == 1
    assert await seen(target, spec.name) is None
    assert await count(target, spec.name) == 0
    assert proxy.calls["Destroy_Task"] == 0
    await target.provider.delete(spec.name)
    assert proxy.calls["CancelTask"] == 1
    proxy.rules.late.clear()
    assert (await deploy(target, spec)).configured


async def test_a_clone_is_called_off_while_its_creation_waits(
    target: VSphereTarget, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.providers.vsphere.deploy.CLONE_WAIT_S", 20.0)
    spec = target.make_spec()
    proxy.rules.late["CloneVM_Task"] = Late(LONG)
    making = asyncio.create_task(target.provider.create(spec))
    await until(lambda: seen(target, spec.name), what="the clone to begin")
    proxy.calls.clear()
    await asyncio.sleep(0.5)
    assert not proxy.calls["RetrievePropertiesEx"], "nobody looks again and again"
    await target.provider.delete(spec.name)
    with pytest.raises(Unavailable) as refusal:
        await making
    assert refusal.value.cause is Cause.CONFLICT
    assert "RequestCanceled" in refusal.value.detail
    assert await count(target, spec.name) == 0


async def test_a_clone_that_cannot_be_called_off_is_waited_for_and_then_destroyed(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    spec = target.make_spec()
    proxy.rules.late["CloneVM_Task"] = Late(LONG, cancelable=False)
    await target.provider.create(spec)
    with pytest.raises(Unavailable) as refusal:
        await target.provider.delete(spec.name)
    assert refusal.value.cause is Cause.CONFLICT
    assert "still being cloned" in refusal.value.detail
    assert await seen(target, spec.name) is not None, "it is not gone before it is known what became of it"
    proxy.tasks.release()
    await until(lambda: count(target, spec.name), what="the clone")
    await target.provider.delete(spec.name)
    assert await count(target, spec.name) == 0
    assert await seen(target, spec.name) is None


async def test_a_clone_that_fails_late_is_refused_in_the_clouds_words(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    spec = target.make_spec()
    fault = SoapFault("NoDiskSpace", "Insufficient disk space on datastore.", "<datastore>ds1</datastore>")
    proxy.rules.late["CloneVM_Task"] = Late(LONG, fault=fault)
    await target.provider.create(spec)
    proxy.tasks.release()
    await until(lambda: _is_hidden(target, spec.name), what="the clone's end")
    with pytest.raises(ProviderError) as refusal:
        await target.provider.create(spec)
    assert refusal.value.cause is Cause.CAPACITY
    assert "NoDiskSpace" in refusal.value.detail
    proxy.rules.late.clear()
    assert (await deploy(target, spec)).configured


async def _is_hidden(target: VSphereTarget, name: str) -> bool:
    return await seen(target, name) is None


async def test_a_call_that_was_given_up_still_knows_the_clone_that_it_began(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    spec = target.make_spec()
    proxy.rules.late["CloneVM_Task"] = Late(LONG)
    proxy.rules.delay_s["CloneVM_Task"] = 0.3
    making = asyncio.create_task(target.provider.create(spec))
    await until(lambda: proxy.calls["CloneVM_Task"], what="the clone to be asked for")
    making.cancel()
    await until(lambda: seen(target, spec.name), what="the clone, though nobody waits")
    await target.provider.delete(spec.name)
    assert proxy.tasks.cancelled == 1


async def test_another_session_neither_clones_again_nor_leaves_anything(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    """What a crash leaves: a clone under way that nobody remembers holds its name until it is there."""
    spec = target.make_spec()
    proxy.rules.late["CloneVM_Task"] = Late(LONG)
    await target.provider.create(spec)
    await target.provider.aclose()
    target.provider = await target.open(target.vcsim.password)
    await target.provider.create(spec)
    assert await seen(target, spec.name) is None
    proxy.tasks.release()
    await until(lambda: count(target, spec.name), what="the clone")
    assert (await deploy(target, spec)).configured
    assert proxy.calls["CloneVM_Task"] == 1
    assert await count(target, spec.name) == 1


async def test_a_vcenter_that_restarts_during_a_clone_makes_one_machine(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    spec = target.make_spec()
    proxy.rules.late["CloneVM_Task"] = Late(1.5)
    await target.provider.create(spec)
    logins = proxy.calls["Login"]
    proxy.restart()
    proxy.rules.late.clear()
    assert (await deploy(target, spec)).configured
    assert proxy.calls["Login"] == logins + 1
    assert len(await target.provider.sample(None)) == 1
    assert len(await target.provider.machines()) == 1


@pytest.mark.parametrize("power", [Power.ON, Power.OFF, Power.SUSPENDED])
async def test_a_power_task_that_outlasts_its_deadline_is_unknown_and_not_begun_again(
    target: VSphereTarget, proxy: FaultProxy, power: Power
) -> None:
    spec = target.make_spec()
    await deploy(target, spec)
    if power is not Power.ON:
        await bring(target, spec.name, Power.ON)
    method = {Power.ON: "PowerOnVM_Task", Power.OFF: "PowerOffVM_Task", Power.SUSPENDED: "SuspendVM_Task"}[
        power
    ]
    proxy.rules.late[method] = Late(LONG)
    proxy.calls.clear()
    with pytest.raises(Unavailable) as refusal:
        await target.provider.set_power(spec.name, power)
    assert refusal.value.cause is Cause.TIMEOUT
    machine = await seen(target, spec.name)
    assert machine is not None
    assert machine.power is not power
    assert (machine.task or "").startswith(
        "VirtualMachine.power" if method[0] == "P" else "VirtualMachine.susp"
    )
    with pytest.raises(Unavailable) as refusal:
        await target.provider.set_power(spec.name, power)
    assert refusal.value.cause is Cause.TIMEOUT
    proxy.tasks.release()
    await bring(target, spec.name, power) if await _soon(target, spec.name, power) else None
    assert proxy.calls[method] == 1


async def _soon(target: VSphereTarget, name: str, power: Power) -> bool:
    async def there() -> bool:
        machine = await seen(target, name)
        return machine is not None and machine.power is power

    return bool(await until(there, what=f"{name} to be {power}"))


async def test_a_limit_that_is_late_holds_up_no_other_and_is_read_before_it_is_set_again(
    target: VSphereTarget, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.providers.vsphere.session.CALL_TIMEOUT_S", 0.3)
    provider = target.provider
    assert isinstance(provider, VSphereProvider)
    slow, other = target.make_spec(), target.make_spec()
    await deploy(target, slow)
    await deploy(target, other)
    first = provider._session.do.__defaults__
    assert first is not None
    monkeypatch.setattr(type(provider._session).do, "__defaults__", (0.3, *first[1:]))
    proxy.rules.late["ReconfigVM_Task"] = Late(LONG)
    with pytest.raises(Unavailable):
        await provider.set_limits(target.cluster, 4000, {slow.name: 700})
    proxy.rules.late.clear()
    with pytest.raises(Unavailable) as refusal:
        await provider.set_limits(target.cluster, 4000, {slow.name: 700, other.name: 800})
    assert refusal.value.cause is Cause.TIMEOUT
    machine = await seen(target, other.name)
    assert machine is not None
    assert machine.limit_mhz == 800

    async def is_set() -> bool:
        machine = await seen(target, slow.name)
        return machine is not None and machine.limit_mhz == 700

    proxy.tasks.release()
    await until(is_set, what="the late limit")
    proxy.calls.clear()
    assert await provider.set_limits(target.cluster, 4000, {slow.name: 700, other.name: 800}) == 0
    assert proxy.calls["ReconfigVM_Task"] == 0


async def test_a_destruction_that_outlasts_its_deadline_is_not_begun_again(
    target: VSphereTarget, proxy: FaultProxy
) -> None:
    spec = target.make_spec()
    await deploy(target, spec)
    proxy.rules.late["Destroy_Task"] = Late(LONG)
    for _ in range(2):
        with pytest.raises(Unavailable) as refusal:
            await target.provider.delete(spec.name)
        assert refusal.value.cause is Cause.TIMEOUT
    proxy.tasks.release()
    await until(lambda: _is_hidden(target, spec.name), what="the machine to go")
    await target.provider.delete(spec.name)
    assert proxy.calls["Destroy_Task"] == 1


async def test_a_session_that_ends_loses_no_task(target: VSphereTarget, proxy: FaultProxy) -> None:
    spec = target.make_spec()
    proxy.rules.late["CloneVM_Task"] = Late(10.0)
    await target.provider.create(spec)
    proxy.sessions.end_all()
    machine = await until(lambda: progressed(target, spec.name), what="progress in the new session")
    assert machine.task == "VirtualMachine.clone"
    proxy.tasks.release()
    assert (await deploy(target, spec)).configured
    assert proxy.calls["CloneVM_Task"] == 1


async def test_without_updates_a_task_still_ends(target: VSphereTarget, proxy: FaultProxy) -> None:
    """Whatever becomes of the long question, the last word is a look at the task itself."""
    spec = target.make_spec()
    proxy.rules.late["CloneVM_Task"] = Late(0.5)
    proxy.rules.faults["WaitForUpdatesEx"] = SoapFault("InvalidCollectorVersion", "no")
    await target.provider.create(spec)
    assert (await deploy(target, spec)).configured
    assert proxy.calls["CloneVM_Task"] == 1
    assert proxy.calls["WaitForUpdatesEx"] < 5, "and it is not asked without a pause"


async def test_a_task_that_is_forgotten_is_read_back(target: VSphereTarget, proxy: FaultProxy) -> None:
    spec = target.make_spec()
    proxy.rules.late["CloneVM_Task"] = Late(0.5)
    await target.provider.create(spec)
    await until(lambda: count(target, spec.name), what="the clone")
    proxy.tasks.forget()
    assert (await deploy(target, spec)).configured
    assert proxy.calls["CloneVM_Task"] == 1


async def test_closing_wakes_who_waits_for_a_task(
    target: VSphereTarget, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.providers.vsphere.deploy.CLONE_WAIT_S", 120.0)
    spec = target.make_spec()
    proxy.rules.late["CloneVM_Task"] = Late(LONG)
    making = asyncio.create_task(target.provider.create(spec))
    await until(lambda: seen(target, spec.name), what="the clone to begin")
    await target.provider.aclose()
    with pytest.raises((Unavailable, Rejected)):
        async with asyncio.timeout(60):
            await making
