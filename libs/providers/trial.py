"""A trial of a driver on a real cloud: every call that Tides makes, on one machine that is taken away again."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from libs.common.contracts.usage import HostState, Sample
from libs.common.ids import new_id
from libs.providers.base import (
    Capability,
    Cause,
    MachineSeen,
    MachineSpec,
    Mark,
    Power,
    Provider,
    ProviderError,
    Unavailable,
)

CREATE_S, POWER_S, SAMPLE_S, SHUTDOWN_S, DELETE_S = 900.0, 120.0, 120.0, 120.0, 300.0
LOOK_EVERY_S = 2.0
LIMIT_MHZ, RAISED_MHZ = 500.0, 1000.0
VCPUS, MEMORY_MIB = 1, 1024

Act = tuple[str, Callable[[], Awaitable[str]]]
"""A call by its name, and what it does: a note of what was seen. Raises ProviderError."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call, or the wait for what it promised."""

    call: str
    ok: bool
    ms: float
    note: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where and of what the one machine is made; without a template only what looks is tried."""

    installation_id: UUID
    """Of nobody: whoever runs Tides on this cloud takes the machine for another's and leaves it alone."""
    cluster: str | None = None
    """Name or reference; None: the first with a connected host."""
    template: str | None = None


class Trial:
    """One trial; each step is told as soon as it is over."""

    def __init__(self, provider: Provider, wanted: Wanted, tell: Callable[[Step], None]) -> None:
        self._provider = provider
        self._wanted = wanted
        self._tell = tell
        self._cluster: Sample | None = None
        self._spec: MachineSpec | None = None
        self._saw = ""

    async def run(self) -> None:
        """Try everything, up to the first call that fails; whatever was made is taken away, also when cancelled."""
        looking: list[Act] = [
            ("validate", self._validate),
            ("sample", self._sample),
            ("machines", self._machines),
        ]
        if not await self._all(looking) or self._wanted.template is None:
            return
        making: list[Act] = [("find_template", self._find_template), ("create", self._create), *self._acts()]
        try:
            await self._all(making)
        finally:
            await self._take_away()

    def _acts(self) -> list[Act]:
        able = self._provider.capabilities
        acts: list[Act] = [
            ("set_limits: low", lambda: self._limit(LIMIT_MHZ)),
            ("set_power: on", lambda: self._power(Power.ON, POWER_S)),
            ("set_limits: raised", lambda: self._limit(RAISED_MHZ)),
            ("sample: our machine", self._sample_ours),
        ]
        if Capability.SUSPEND in able:
            acts.append(("set_power: suspended", lambda: self._power(Power.SUSPENDED, POWER_S)))
            acts.append(("set_power: resumed", lambda: self._power(Power.ON, POWER_S)))
        if Capability.GUEST_SHUTDOWN in able:
            acts.append(("set_power: guest shutdown", self._shut_down))
        return [*acts, ("set_power: off", lambda: self._power(Power.OFF, POWER_S))]

    async def _all(self, steps: Sequence[Act]) -> bool:
        for call, work in steps:
            if not await self._try(call, work):
                return False
        return True

    async def _try(self, call: str, work: Callable[[], Awaitable[str]]) -> bool:
        began = time.perf_counter()
        try:
            note, ok = await work(), True
        except ProviderError as refusal:
            note, ok = str(refusal), False
        self._tell(Step(call, ok, round(1000 * (time.perf_counter() - began), 1), note))
        return ok

    async def _take_away(self) -> None:
        if self._spec is not None:
            await self._try("delete", self._delete)
        await self._try("release", self._release)

    async def _validate(self) -> str:
        found = await self._provider.validate()
        lacking = [each.privilege for each in found.missing]
        notes = [f"{found.product}, API {found.api_version}"]
        notes += [f"missing privileges: {', '.join(lacking)}"] if lacking else []
        return "; ".join([*notes, *(each.detail for each in found.blockers)])

    async def _sample(self) -> str:
        samples = await self._provider.sample(None)
        for sample in samples:
            fits = self._wanted.cluster in (None, sample.cluster, sample.name)
            if fits and HostState.CONNECTED in sample.states:
                self._cluster = sample
                break
        if self._cluster is None:
            asked = self._wanted.cluster or "with a connected host"
            raise Unavailable(Cause.NOT_FOUND, f"no sample of a cluster {asked}")
        hosts = sum(len(sample.hosts) for sample in samples)
        return f"{len(samples)} clusters, {hosts} hosts; trying {self._cluster.name}"

    async def _machines(self) -> str:
        return f"{len(await self._provider.machines())} machines bear a mark of Tides"

    async def _find_template(self) -> str:
        found = await self._provider.find_template(str(self._wanted.template))
        if found is None:
            raise Unavailable(Cause.NOT_FOUND, f"no template {self._wanted.template!r} in scope")
        machine_id = new_id()
        assert self._cluster is not None
        self._spec = MachineSpec(
            name=f"tides-{machine_id}",
            mark=Mark(self._wanted.installation_id, machine_id),
            cluster=self._cluster.cluster,
            host=None,
            template=found.reference,
            vcpus=VCPUS,
            memory_mib=MEMORY_MIB,
            disk_gib=found.disk_gib,
            limit_mhz=LIMIT_MHZ,
            user_data="#cloud-config\n",
        )
        return f"{found.name}, {found.disk_gib:.1f} GiB, {found.guest_os or 'unknown guest'}"

    async def _create(self) -> str:
        spec = self._made()

        async def is_configured() -> bool:
            await self._provider.create(spec)
            seen = await self._look()
            return seen is not None and seen.configured

        await self._until(is_configured, CREATE_S, "the machine to be made and configured")
        return spec.name

    async def _limit(self, mhz: float) -> str:
        spec = self._made()
        changes = await self._provider.set_limits(spec.cluster, mhz, {spec.name: mhz})

        async def is_set() -> bool:
            seen = await self._look()
            return seen is not None and seen.limit_mhz == mhz

        await self._until(is_set, POWER_S, f"the limit to be read back as {mhz:.0f} MHz")
        return f"{mhz:.0f} MHz, {changes} changes, read back"

    async def _power(self, power: Power, within_s: float) -> str:
        await self._provider.set_power(self._made().name, power)

        async def is_so() -> bool:
            seen = await self._look()
            return seen is not None and seen.power is power

        await self._until(is_so, within_s, f"the machine to be {power.value}")
        return ""

    async def _shut_down(self) -> str:
        """A guest without tools is no failure of the cloud's: it is switched off then, as Tides does it."""
        await self._provider.set_power(self._made().name, Power.SHUTDOWN)

        async def is_off() -> bool:
            seen = await self._look()
            return seen is not None and seen.power is Power.OFF

        try:
            await self._until(is_off, SHUTDOWN_S, "the guest to shut down")
        except Unavailable:
            return f"the guest did not shut down within {SHUTDOWN_S:.0f} s; it is switched off next"
        return ""

    async def _sample_ours(self) -> str:
        cluster = self._made().cluster

        async def is_measured() -> bool:
            samples = [one for one in await self._provider.sample(None) if one.cluster == cluster]
            self._saw = f"{sum(samples[-1].cpu_ours_mhz):.0f} MHz ours" if samples else ""
            return bool(samples) and sum(samples[-1].machines) > 0

        await self._until(is_measured, SAMPLE_S, "a sample that shows our machine")
        return self._saw

    async def _delete(self) -> str:
        name = self._made().name

        async def is_gone() -> bool:
            await self._provider.delete(name)
            return await self._look() is None

        await self._until(is_gone, DELETE_S, "the machine to be gone")
        return ""

    async def _release(self) -> str:
        assert self._cluster is not None
        await self._provider.release(self._cluster.cluster)
        return "our pool and folder"

    async def _look(self) -> MachineSeen | None:
        name = self._made().name
        return next((each for each in await self._provider.machines() if each.name == name), None)

    def _made(self) -> MachineSpec:
        assert self._spec is not None
        return self._spec

    async def _until(self, condition: Callable[[], Awaitable[bool]], within_s: float, what: str) -> None:
        deadline = time.monotonic() + within_s
        while not await condition():
            if time.monotonic() > deadline:
                raise Unavailable(Cause.TIMEOUT, f"waited {within_s:.0f} s for {what}")
            await asyncio.sleep(LOOK_EVERY_S)
