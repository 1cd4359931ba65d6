"""What can go wrong in the simulated cloud when somebody turns a knob."""

from datetime import timedelta
from uuid import uuid4

import pytest

from libs.common.contracts.usage import HostState
from libs.providers.base import Cause, Full, Power, Rejected, Unavailable
from libs.providers.simulated import SimulatedSettings
from tests.contract.providers.simulated_target import SimulatedTarget
from tests.contract.providers.target import bring, deploy, newest, seen


async def test_latency_passes_on_the_clock_and_ends_at_the_deadline(target: SimulatedTarget) -> None:
    target.cloud.control.set_fault("latency_s", 2.5)
    before = target.clock.now()
    await target.provider.machines()
    assert target.clock.now() - before == timedelta(seconds=2.5)
    target.cloud.control.set_fault("latency_s", 90)
    with pytest.raises(Unavailable) as failure:
        await target.provider.machines()
    assert failure.value.cause is Cause.TIMEOUT
    assert target.clock.now() - before == timedelta(seconds=32.5)


@pytest.mark.parametrize(
    ("knob", "kind", "cause"),
    [("unavailable", Unavailable, Cause.UNREACHABLE), ("auth_failure", Rejected, Cause.AUTH)],
)
async def test_an_outage_hits_sessions_and_logins_and_ends(
    target: SimulatedTarget, knob: str, kind: type[Unavailable | Rejected], cause: Cause
) -> None:
    target.cloud.control.set_fault(knob, True)
    for attempt in (
        target.provider.validate(),
        target.provider.sample(None),
        target.provider.machines(),
        target.provider.find_template("boinc-worker"),
        target.provider.create(target.make_spec()),
        target.provider.delete("tides-x"),
        target.provider.set_power("tides-x", Power.ON),
        target.provider.set_limits(target.cluster, 1000.0, {}),
        target.provider.release(target.cluster),
        target.open("correct horse"),
    ):
        with pytest.raises(kind) as failure:
            await attempt
        assert failure.value.cause is cause
    target.cloud.control.clear_faults()
    assert await target.provider.machines() == []


async def test_no_room_to_create_leaves_nothing(target: SimulatedTarget) -> None:
    target.cloud.control.set_fault("create_full", True)
    with pytest.raises(Full) as refusal:
        await target.provider.create(target.make_spec())
    assert refusal.value.cause is Cause.CAPACITY
    assert await target.provider.machines() == []


async def test_a_clone_that_stopped_half_way_is_mended_by_create(target: SimulatedTarget) -> None:
    target.cloud.control.set_fault("half_clone", True)
    spec = target.make_spec()
    await target.provider.create(spec)
    await target.settle()
    half = await seen(target, spec.name)
    assert half is not None
    assert (half.configured, half.task, half.limit_mhz) == (False, None, None)
    await target.provider.create(spec)
    mended = await seen(target, spec.name)
    assert mended is not None
    assert (mended.configured, mended.limit_mhz) == (True, 1500.0)


async def test_a_lost_answer_is_an_act_that_was_carried_out(target: SimulatedTarget) -> None:
    target.cloud.control.set_fault("lose_answers", True)
    spec = target.make_spec()
    with pytest.raises(Unavailable) as failure:
        await target.provider.create(spec)
    assert failure.value.cause is Cause.TIMEOUT
    assert await seen(target, spec.name) is not None


async def test_an_unreadable_inventory_is_not_an_empty_one(target: SimulatedTarget) -> None:
    target.cloud.control.set_fault("inventory_unreadable", True)
    with pytest.raises(Unavailable):
        await target.provider.machines()
    assert await target.provider.sample(None)


async def test_impossible_samples_claim_more_ours_than_total(target: SimulatedTarget) -> None:
    target.cloud.control.set_fault("impossible_samples", True)
    sample = await newest(target)
    assert all(ours > used for ours, used in zip(sample.cpu_ours_mhz, sample.cpu_used_mhz, strict=True))


async def test_the_clouds_clock_may_be_wrong(target: SimulatedTarget) -> None:
    right = await newest(target)
    target.cloud.control.shift_clock(timedelta(hours=2))
    wrong = await newest(target)
    assert wrong.at - right.at == timedelta(hours=2)
    assert wrong.cpu_used_mhz == right.cpu_used_mhz
    assert await target.provider.sample(wrong.at) == []


async def test_a_failed_host_switches_ours_off_and_shows_no_load(target: SimulatedTarget) -> None:
    spec = target.make_spec(host="host-1001")
    await deploy(target, spec)
    await bring(target, spec.name, Power.ON)
    target.cloud.control.fail_host("host-1001")
    machine = await seen(target, spec.name)
    assert machine is not None
    assert machine.power is Power.OFF
    await target.settle()
    sample = await newest(target)
    assert (sample.states[0], sample.cpu_used_mhz[0], sample.machines[0]) == (HostState.FAILED, 0.0, 0)
    target.cloud.control.repair_host("host-1001")
    await bring(target, spec.name, Power.ON)


async def test_a_host_in_maintenance_looks_idle_and_keeps_ours(target: SimulatedTarget) -> None:
    spec = target.make_spec(host="host-1001")
    await deploy(target, spec)
    await bring(target, spec.name, Power.ON)
    target.cloud.control.set_host_state("host-1001", HostState.MAINTENANCE)
    await target.settle()
    sample = await newest(target)
    assert sample.states[0] is HostState.MAINTENANCE
    assert sample.machines[0] == 1
    assert sample.cpu_used_mhz[0] - sample.cpu_ours_mhz[0] < 0.02 * sample.cpu_capacity_mhz[0]


async def test_templates_vanish_and_come_back(target: SimulatedTarget) -> None:
    target.cloud.control.remove_template("boinc-worker")
    assert await target.provider.find_template("boinc-worker") is None
    with pytest.raises(Rejected) as refusal:
        await target.provider.create(target.make_spec())
    assert refusal.value.cause is Cause.NOT_FOUND
    target.cloud.control.add_template("boinc-worker")
    await target.provider.create(target.make_spec())


async def test_an_administrator_may_kill_switch_off_and_tamper(target: SimulatedTarget) -> None:
    spec = target.make_spec()
    await deploy(target, spec)
    await bring(target, spec.name, Power.ON)
    control = target.cloud.control
    control.tamper_limit(spec.name, 9000.0)
    control.switch_off_machine(spec.name)
    control.set_machine_error(spec.name, "disk consolidation needed")
    machine = await seen(target, spec.name)
    assert machine is not None
    assert (machine.limit_mhz, machine.power) == (9000.0, Power.OFF)
    assert machine.error == "disk consolidation needed"
    control.kill_machine(spec.name)
    assert await seen(target, spec.name) is None
    await target.provider.delete(spec.name)


async def test_a_cluster_vanishes_with_its_machines_and_may_return() -> None:
    target = SimulatedTarget("sim://vanishing", SimulatedSettings())
    target.provider = await target.open("correct horse")
    spec = target.make_spec()
    await deploy(target, spec)
    target.cloud.control.remove_cluster(target.cluster)
    assert await target.provider.machines() == []
    assert {sample.cluster for sample in await target.provider.sample(None)} == {"domain-c2", "domain-c3"}
    assert len((await target.provider.validate()).clusters) == 2
    with pytest.raises(Rejected) as refusal:
        await target.provider.create(target.make_spec())
    assert refusal.value.cause is Cause.NOT_FOUND
    with pytest.raises(Rejected) as refusal:
        await target.provider.set_power(spec.name, Power.ON)
    assert refusal.value.cause is Cause.NOT_FOUND
    await target.provider.delete(spec.name)
    await target.provider.release(target.cluster)
    target.cloud.control.restore_cluster(target.cluster)
    assert await seen(target, spec.name) is not None


async def test_faults_may_be_there_from_the_beginning() -> None:
    config = SimulatedSettings.model_validate({"faults": {"unavailable": True}})
    with pytest.raises(Unavailable):
        await SimulatedTarget("sim://broken", config).open("correct horse")


def test_an_unknown_knob_or_name_is_refused(target: SimulatedTarget) -> None:
    with pytest.raises(ValueError, match="gravity"):
        target.cloud.control.set_fault("gravity", True)
    with pytest.raises(ValueError, match="latency_s"):
        target.cloud.control.set_fault("latency_s", -1)
    with pytest.raises(LookupError):
        target.cloud.control.kill_machine(f"tides-{uuid4()}")
    with pytest.raises(LookupError):
        target.cloud.control.fail_host("host-9")


async def test_a_closed_session_answers_no_more(target: SimulatedTarget) -> None:
    session = await target.log_in()
    await session.aclose()
    with pytest.raises(Unavailable):
        await session.machines()
