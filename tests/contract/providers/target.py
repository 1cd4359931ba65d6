"""The cloud that a conformance test runs against, and the steps that such tests share."""

import math
from collections.abc import Sequence
from typing import Protocol

from libs.common.contracts.usage import HostState, Sample
from libs.providers.base import MachineSeen, MachineSpec, Power, Provider

TRIES = 20


class Target(Protocol):
    """A cloud under test."""

    provider: Provider
    cluster: str
    """Reference of a cluster with room for a few machines."""
    template: str
    """Name of a template that exists."""

    def make_spec(
        self, name: str | None = None, host: str | None = None, template: str | None = None
    ) -> MachineSpec:
        """A spec that fits the cloud: a fresh machine id, and its name unless one is given; `cluster` and
        `template` of this target; 1 or 2 vCPUs, a limit of at least 500 MHz and below what its vCPUs could
        use."""

    async def open(self, password: str) -> Provider:
        """Another session on the same cloud with this password."""

    async def set_owner_load(self, host: str, fraction: float) -> None:
        """Make the owner's machines use this fraction of the host's CPU from now on."""

    async def settle(self) -> None:
        """Let time pass: until clones and boots are over and at least one new, whole interval is there."""

    async def add_foreign(self, name: str) -> None:
        """Put a machine into the cloud that bears no mark of ours, whatever its name looks like."""

    async def exists(self, name: str) -> bool:
        """Whether a machine of this name is in the cloud, seen past the driver."""


async def seen(target: Target, name: str) -> MachineSeen | None:
    """The machine as the driver lists it; fails when it is listed twice."""
    found = [machine for machine in await target.provider.machines() if machine.name == name]
    assert len(found) <= 1, f"{name} is listed {len(found)} times"
    return found[0] if found else None


async def deploy(target: Target, spec: MachineSpec) -> MachineSeen:
    """Create as a caller does: again and again until the machine is configured."""
    for _ in range(TRIES):
        await target.provider.create(spec)
        machine = await seen(target, spec.name)
        if machine is not None and machine.configured:
            return machine
        await target.settle()
    raise AssertionError(f"{spec.name} was never configured")


async def bring(target: Target, name: str, power: Power, expected: Power | None = None) -> MachineSeen:
    """Ask for a power state and wait until the cloud shows it."""
    await target.provider.set_power(name, power)
    for _ in range(TRIES):
        machine = await seen(target, name)
        if machine is not None and machine.power is (expected or power):
            return machine
        await target.settle()
    raise AssertionError(f"{name} was never seen {expected or power}")


async def newest(target: Target, cluster: str | None = None) -> Sample:
    """The newest sample of the target's cluster."""
    samples = [
        sample
        for sample in await target.provider.sample(None)
        if sample.cluster == (cluster or target.cluster)
    ]
    assert samples, "no sample of the cluster"
    return samples[-1]


def check_columns(sample: Sample) -> None:
    """Every column has one value per host, and every value is possible."""
    width = len(sample.hosts)
    assert width == len(set(sample.hosts)) > 0
    columns: Sequence[Sequence[object]] = (
        sample.host_names,
        sample.states,
        sample.cpu_capacity_mhz,
        sample.cpu_used_mhz,
        sample.cpu_ours_mhz,
        sample.cpu_limit_mhz,
        sample.memory_capacity_mib,
        sample.memory_used_mib,
        sample.memory_ours_mib,
        sample.contention_percent,
        sample.machines,
    )
    assert [len(column) for column in columns] == [width] * len(columns)
    assert sample.is_whole()
    assert sample.at.utcoffset() is not None
    assert sample.interval_s > 0
    for index in range(width):
        assert isinstance(sample.states[index], HostState)
        assert sample.cpu_capacity_mhz[index] > 0
        assert sample.memory_capacity_mib[index] > 0
        assert 0 <= sample.cpu_ours_mhz[index] < math.inf
        assert 0 <= sample.cpu_limit_mhz[index] < math.inf
        assert sample.machines[index] >= 0
        assert (sample.machines[index] > 0) or sample.cpu_limit_mhz[index] == 0


async def delete_and_wait(target: Target, name: str) -> None:
    """Delete and wait until it is no longer listed."""
    await target.provider.delete(name)
    for _ in range(TRIES):
        if await seen(target, name) is None:
            return
        await target.settle()
    raise AssertionError(f"{name} is still listed")
