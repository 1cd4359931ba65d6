"""The physics of a simulated cloud, whatever is done to it in whatever order."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.usage import HostState, Quality, Sample
from libs.providers.base import MachineSpec, Power, ProviderError
from libs.providers.simulated import ClusterDefinition, OwnerProfile, SimulatedSettings, Truth
from tests.contract.providers.simulated_target import SimulatedTarget

TINY = SimulatedSettings(
    clusters=(
        ClusterDefinition(name="a", hosts=2, owner=OwnerProfile.NOISY),
        ClusterDefinition(name="b", hosts=1, owner=OwnerProfile.FULL, memory_gib=32),
    ),
    interval_s=20,
)
HOSTS = ("host-1001", "host-1002", "host-2001")


@dataclass(frozen=True)
class Step:
    """One thing done to the cloud, and the time that passes afterwards."""

    verb: str
    machine: int
    host: int
    power: Power
    mhz: float
    wait_s: float


steps = st.builds(
    Step,
    verb=st.sampled_from(["create", "power", "power", "limit", "delete", "maintenance", "repair", "fail"]),
    machine=st.integers(0, 5),
    host=st.integers(0, 2),
    power=st.sampled_from(Power),
    mhz=st.floats(0, 30_000),
    wait_s=st.sampled_from([0.0, 1.0, 15.0, 60.0, 400.0]),
)


class Play:
    """Carries out steps; names are fresh random ids in every play."""

    def __init__(self, config: SimulatedSettings = TINY) -> None:
        self.target = SimulatedTarget("sim://physics", config)
        self.specs: list[MachineSpec] = []

    async def begin(self) -> None:
        self.target.provider = await self.target.open("correct horse")
        self.specs = [self.target.make_spec() for _ in range(6)]

    async def act(self, step: Step) -> None:
        spec, cluster = self.specs[step.machine], f"domain-c{HOSTS[step.host][5]}"
        provider, control = self.target.provider, self.target.cloud.control
        try:
            if step.verb == "create":
                await provider.create(self._shaped(spec, cluster, step))
            elif step.verb == "power":
                await provider.set_power(spec.name, step.power)
            elif step.verb == "limit":
                await provider.set_limits(cluster, 1.5 * step.mhz, {one.name: step.mhz for one in self.specs})
            elif step.verb == "delete":
                await provider.delete(spec.name)
            elif step.verb == "maintenance":
                control.set_host_state(HOSTS[step.host], HostState.MAINTENANCE)
            elif step.verb == "fail":
                control.fail_host(HOSTS[step.host])
            else:
                control.repair_host(HOSTS[step.host])
        except ProviderError:
            pass
        self.target.clock.pass_time(step.wait_s)

    def _shaped(self, spec: MachineSpec, cluster: str, step: Step) -> MachineSpec:
        return MachineSpec(
            spec.name,
            spec.mark,
            cluster,
            None if step.machine % 2 else HOSTS[step.host],
            spec.template,
            2 + 2 * step.machine,
            4096,
            20.0,
            step.mhz,
            "",
        )

    def truth(self) -> Truth:
        return self.target.cloud.truth()


PRELUDE = (
    *(Step("create", number, number // 2, Power.ON, 8_000.0, 0) for number in range(6)),
    Step("repair", 0, 0, Power.ON, 0, 120),
    *(Step("power", number, 0, Power.ON, 0, 0) for number in range(6)),
    Step("repair", 0, 0, Power.ON, 0, 100),
)
"""Six machines of 2 to 12 vCPUs, all running, before anything else is tried."""


scripts = st.lists(steps, max_size=25).map(lambda tail: [*PRELUDE, *tail])


def played(script: Sequence[Step], look: Callable[[Play], None] | None = None) -> tuple[Truth, list[Sample]]:
    """Play a script, looking after every step; the truth and the back-filled samples at its end."""

    async def run() -> tuple[Truth, list[Sample]]:
        play = Play()
        await play.begin()
        began_at = play.target.clock.now()
        for step in script:
            await play.act(step)
            if look:
                look(play)
        play.target.clock.pass_time(20)
        return play.truth(), list(await play.target.provider.sample(began_at))

    return asyncio.run(run())


def check_moment(play: Play) -> None:
    truth = play.truth()
    caps = {one.cluster: one.cap[-1][1] if one.cap else None for one in play.target.cloud.state().clusters}
    for host in truth.hosts:
        machines = [one for one in truth.machines if one.host == host.host and one.power is Power.ON]
        limits = sum(one.limit_mhz for one in machines)
        assert host.machines == len(machines)
        assert 0 <= host.ours_mhz <= limits + 1e-6
        assert host.owner_mhz + host.ours_mhz <= host.capacity_mhz + 1e-6
    for cluster, cap in caps.items():
        assert cap is None or sum(h.ours_mhz for h in truth.hosts if h.cluster == cluster) <= cap + 1e-6
    for machine in truth.machines:
        assert machine.demand_mhz <= machine.limit_mhz
        assert machine.power is Power.ON or machine.demand_mhz == 0


@given(scripts)
@settings(max_examples=30, deadline=None)
def test_ours_never_passes_its_limits_nor_what_the_owner_leaves(script: list[Step]) -> None:
    played(script, check_moment)


@given(scripts)
@settings(max_examples=30, deadline=None)
def test_the_owner_gets_the_same_with_and_without_ours(script: list[Step]) -> None:
    outside = ("maintenance", "repair", "fail")
    quiet = [step if step.verb in outside else replace(step, verb="limit", mhz=0.0) for step in script]
    busy_truth, busy = played(script)
    quiet_truth, alone = played(quiet)
    assert [h.owner_mhz for h in busy_truth.hosts] == [h.owner_mhz for h in quiet_truth.hosts]
    assert len(busy) == len(alone)
    for sample, other in zip(busy, alone, strict=True):
        assert owner_of(sample) == pytest.approx(owner_of(other), abs=1e-6)


def owner_of(sample: Sample) -> list[float]:
    """Owner load per host, in MHz, as a judge computes it."""
    return [used - ours for used, ours in zip(sample.cpu_used_mhz, sample.cpu_ours_mhz, strict=True)]


@given(scripts)
@settings(max_examples=20, deadline=None)
def test_runs_repeat_exactly_whatever_the_names(script: list[Step]) -> None:
    first_truth, first = played(script)
    second_truth, second = played(script)
    assert first == second
    assert first_truth.hosts == second_truth.hosts
    assert [(m.ordinal, m.host, m.power, m.limit_mhz) for m in first_truth.machines] == [
        (m.ordinal, m.host, m.power, m.limit_mhz) for m in second_truth.machines
    ]


@given(scripts)
@settings(max_examples=30, deadline=None)
def test_samples_are_possible_and_in_order(script: list[Step]) -> None:
    _, samples = played(script)
    seen = [(sample.at, sample.cluster) for sample in samples]
    assert seen == sorted(set(seen))
    newest = max((sample.at for sample in samples), default=None)
    for sample in samples:
        assert sample.at.timestamp() % 20 == 0
        assert (sample.quality is Quality.MEASURED) == (sample.at == newest)
        rows = zip(
            sample.cpu_ours_mhz,
            sample.cpu_used_mhz,
            sample.cpu_capacity_mhz,
            sample.memory_ours_mib,
            sample.memory_used_mib,
            sample.memory_capacity_mib,
            strict=True,
        )
        for cpu_ours, cpu_used, cpu_all, memory_ours, memory_used, memory_all in rows:
            assert 0 <= cpu_ours <= cpu_used <= cpu_all + 1e-6
            assert 0 <= memory_ours <= memory_used <= memory_all
        for percent, running in zip(sample.contention_percent, sample.machines, strict=True):
            assert percent is None or 0 <= percent < math.inf
            assert percent is not None or running == 0


async def running_machine(play: Play, mhz: float) -> str:
    """The host of one booted machine of six vCPUs with this limit and cap."""
    await play.begin()
    await play.act(Step("create", 2, 0, Power.ON, mhz, 120))
    await play.act(Step("limit", 2, 0, Power.ON, mhz, 0))
    await play.act(Step("power", 2, 0, Power.ON, mhz, 200))
    return HOSTS[0]


async def test_ours_yields_at_once_and_contention_is_seen() -> None:
    play = Play()
    host = await running_machine(play, 12_000.0)
    control = play.target.cloud.control
    control.set_owner_load(host, 0.5)
    calm = next(one for one in play.truth().hosts if one.host == host)
    assert calm.ours_mhz == 12_000.0
    assert not calm.is_contended
    control.set_owner_load(host, 0.95)
    squeezed = next(one for one in play.truth().hosts if one.host == host)
    assert squeezed.owner_mhz == pytest.approx(0.95 * squeezed.capacity_mhz)
    assert squeezed.ours_mhz == pytest.approx(0.05 * squeezed.capacity_mhz)
    assert squeezed.is_contended
    play.target.clock.pass_time(40)
    sample = (await play.target.provider.sample(None))[0]
    percent = dict(zip(sample.hosts, sample.contention_percent, strict=True))[host]
    assert percent is not None
    assert percent > 5
    control.set_owner_load(host, 0.2)
    play.target.clock.pass_time(40)
    sample = (await play.target.provider.sample(None))[0]
    percent = dict(zip(sample.hosts, sample.contention_percent, strict=True))[host]
    assert percent is not None
    assert percent < 1


async def test_a_boot_takes_a_minute_and_some_processor_time() -> None:
    play = Play()
    await play.begin()
    await play.act(Step("create", 2, 0, Power.ON, 20_000.0, 120))
    await play.act(Step("power", 2, 0, Power.ON, 0.0, 1))
    booting = play.truth().machines[0]
    assert not booting.booted
    assert 0 < booting.demand_mhz <= 0.5 * 6 * 2600
    play.target.clock.pass_time(58)
    assert not play.truth().machines[0].booted
    play.target.clock.pass_time(32)
    booted = play.truth().machines[0]
    assert booted.booted
    assert booted.demand_mhz == 6 * 2600


async def test_an_order_overtakes_a_shutdown_under_way() -> None:
    play = Play()
    await running_machine(play, 9_000.0)
    name = play.specs[2].name
    await play.target.provider.set_power(name, Power.SHUTDOWN)
    assert (await play.target.provider.machines())[0].task == "shutdown"
    play.target.clock.pass_time(1)
    await play.target.provider.set_power(name, Power.OFF)
    assert play.truth().machines[0].power is Power.OFF
    await play.target.provider.set_power(name, Power.ON)
    play.target.clock.pass_time(120)
    assert play.truth().machines[0].booted


async def test_a_back_filled_sample_is_what_would_have_been_seen() -> None:
    play = Play()
    told: list[Sample] = []
    await running_machine(play, 9_000.0)
    began_at = (await play.target.provider.sample(None))[-1].at
    for round_number in range(20):
        play.target.clock.pass_time(20)
        told += await play.target.provider.sample(None)
        await play.act(Step("limit", 2, 0, Power.ON, 4_000.0 + 200 * round_number, 0))
        if round_number == 10:
            await play.target.provider.delete(play.specs[2].name)
            await play.target.provider.release("domain-c1")
    filled = await play.target.provider.sample(began_at)
    assert [(s.at, s.cluster, s.cpu_ours_mhz, s.cpu_limit_mhz, s.cap_mhz, s.machines) for s in filled] == [
        (s.at, s.cluster, s.cpu_ours_mhz, s.cpu_limit_mhz, s.cap_mhz, s.machines) for s in told
    ]


async def test_back_fill_reaches_one_hour_back() -> None:
    play = Play()
    await play.begin()
    began_at = (await play.target.provider.sample(None))[-1].at
    play.target.clock.pass_time(3 * 3600)
    samples = await play.target.provider.sample(began_at)
    assert len({sample.at for sample in samples}) == 180
    assert (samples[-1].at - samples[0].at).total_seconds() == 3580


async def test_disks_swap_and_suspend_files_fill_the_datastore() -> None:
    play = Play()
    await play.begin()
    provider, clock = play.target.provider, play.target.clock

    async def free_gib() -> float:
        clock.pass_time(20)
        found = (await provider.sample(None))[0].datastore_free_gib
        assert found is not None
        return found

    empty = await free_gib()
    await play.act(Step("create", 2, 0, Power.ON, 5_000.0, 120))
    assert empty - await free_gib() == pytest.approx(20)
    await play.act(Step("power", 2, 0, Power.ON, 0, 200))
    assert empty - await free_gib() == pytest.approx(24)
    await play.act(Step("power", 2, 0, Power.SUSPENDED, 0, 0))
    assert empty - await free_gib() == pytest.approx(24)
    await play.act(Step("delete", 2, 0, Power.ON, 0, 0))
    assert await free_gib() == pytest.approx(empty)


def test_what_guests_had_is_what_samples_say_but_for_what_was_starting() -> None:
    async def run() -> tuple[float, float]:
        play = Play()
        await play.begin()
        for step in PRELUDE:
            await play.act(step)
        clock, cloud = play.target.clock, play.target.cloud
        clock.pass_time(600.0 - clock.now().timestamp() % 20)  # nothing starts any more
        since = clock.now()
        clock.pass_time(240.0)
        samples = await play.target.provider.sample(since)
        mhz_s = sum(20.0 * mhz for one in samples for mhz in one.cpu_ours_mhz if one.at > since)
        core_mhz = cloud.state().clusters[0].core_mhz
        return mhz_s / core_mhz, sum(cloud.worked_s(since.timestamp(), 5.0).values())

    measured, worked = asyncio.run(run())
    assert worked == pytest.approx(measured, rel=1e-6)
    assert measured > 1000
