"""An open session on a simulated cloud: the driver's contract over state, physics and faults."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from libs.providers.base import (
    Begun,
    Capability,
    Cause,
    ClusterSeen,
    ClusterUsage,
    HostHardware,
    MachineSeen,
    MachineSpec,
    Mark,
    Power,
    ProviderError,
    Rejected,
    TemplateSeen,
    Unavailable,
    Validation,
)
from libs.providers.simulated import rules
from libs.providers.simulated.cloud import Cloud, power_of
from libs.providers.simulated.measure import take_samples
from libs.providers.simulated.physics import limit_of
from libs.providers.simulated.settings import SimulatedSettings
from libs.providers.simulated.state import CloudState, ClusterRecord, MachineRecord

DEADLINE_S = 30.0
_KEPT = ("the cloud existed before and keeps the settings it was created with",)
Result = TypeVar("Result")


async def reach(cloud: Cloud) -> CloudState:
    """One call on the wire: waits as long as the cloud is slow, and fails as it is broken."""
    latency_s = cloud.state().faults.latency_s
    if latency_s > 0:
        await cloud.clock.sleep(min(latency_s, DEADLINE_S))
    if latency_s > DEADLINE_S:
        raise Unavailable(Cause.TIMEOUT, f"no answer within {DEADLINE_S:.0f} s")
    state = cloud.state()
    if state.faults.unavailable:
        raise Unavailable(Cause.UNREACHABLE, "the simulated cloud does not answer")
    if state.faults.auth_failure:
        raise Rejected(Cause.AUTH, "the simulated cloud does not accept this login")
    return state


class SimulatedProvider:
    """Keeps to the letter what `Provider` promises; strict where a real cloud is."""

    def __init__(self, cloud: Cloud, settings: SimulatedSettings, installation_id: UUID) -> None:
        self.capabilities = frozenset(Capability) - frozenset(cloud.state().settings.without)
        self._cloud = cloud
        self._settings = settings
        self._installation_id = installation_id
        self._closed = False

    async def validate(self) -> Validation:
        state = await self._reach()
        return Validation(
            product="Tides simulated cloud",
            api_version="1",
            instance_id=state.instance_id,
            clusters=tuple(_describe(cluster) for cluster in state.clusters if not cluster.gone),
            warnings=_KEPT if self._asks_other_than(state.settings) else (),
        )

    async def sample(self, since: datetime | None) -> Sequence[ClusterUsage]:
        state = await self._reach()
        samples = take_samples(state, since, self._cloud.now_s())
        if Capability.BACKFILL not in self.capabilities and samples:
            return [sample for sample in samples if sample.at == samples[-1].at]
        return samples

    async def hardware(self) -> Sequence[HostHardware]:
        state = await self._reach()
        return [one for cluster in state.clusters if not cluster.gone for one in _describe_hosts(cluster)]

    async def machines(self) -> Sequence[MachineSeen]:
        state = await self._reach()
        if state.faults.inventory_unreadable:
            raise Unavailable(Cause.UNREACHABLE, "the inventory cannot be read")
        now_s = self._cloud.now_s()
        gone = {cluster.cluster for cluster in state.clusters if cluster.gone}
        limits = Capability.LIMITS in self.capabilities
        return [
            _see(machine, now_s) if limits else replace(_see(machine, now_s), limit_mhz=None)
            for machine in state.machines
            if machine.deleted_at_s is None and machine.cluster not in gone
        ]

    async def recall(self, begun: Sequence[Begun]) -> None:
        """The cloud itself knows what it is making."""

    async def find_template(self, name: str) -> TemplateSeen | None:
        state = await self._reach()
        for known, reference in state.templates.items():
            if name in (known, reference):
                return TemplateSeen(
                    reference=reference, name=known, disk_gib=16.0, guest_os="debian12_64Guest"
                )
        return None

    async def keep_as_template(self, name: str) -> TemplateSeen:
        if Capability.TEMPLATES not in self.capabilities:
            raise Rejected(Cause.INVALID, "this cloud makes no templates")
        await self._change(
            lambda state, now_s: rules.keep_as_template(state, name, self._installation_id, now_s)
        )
        found = await self.find_template(name)
        if found is None:
            raise Unavailable(Cause.CONFLICT, f"{name} was marked and is not to be found")
        return found

    async def create(self, spec: MachineSpec) -> None:
        if spec.mark.installation_id != self._installation_id:
            raise Rejected(Cause.INVALID, "the mark names another installation")
        await self._change(lambda state, now_s: rules.create(state, spec, now_s))

    async def delete(self, name: str) -> None:
        await self._change(lambda state, now_s: rules.delete(state, name, self._installation_id, now_s))

    async def set_power(self, name: str, power: Power) -> None:
        await self._change(
            lambda state, now_s: rules.set_power(state, name, power, self._installation_id, now_s)
        )

    async def set_limits(self, cluster: str, cap_mhz: float, machines: Mapping[str, float]) -> int:
        if Capability.LIMITS not in self.capabilities:
            raise Rejected(Cause.INVALID, "this cloud cannot limit machines")
        outcome = await self._change(
            lambda state, now_s: rules.set_limits(
                state, cluster, cap_mhz, machines, self._installation_id, now_s
            )
        )
        if isinstance(outcome, ProviderError):
            raise outcome
        return outcome

    async def release(self, cluster: str) -> None:
        await self._change(lambda state, now_s: rules.release(state, cluster, now_s))

    async def aclose(self) -> None:
        self._closed = True

    def _asks_other_than(self, kept: SimulatedSettings) -> bool:
        asked = self._settings.model_copy(update={"faults": kept.faults})
        return asked not in (kept, SimulatedSettings(faults=kept.faults))

    async def _reach(self) -> CloudState:
        if self._closed:
            raise Unavailable(Cause.UNREACHABLE, "the session is closed")
        return await reach(self._cloud)

    async def _change(self, alter: Callable[[CloudState, float], Result]) -> Result:
        """Carry out and, when that fault is set, lose the answer."""
        lose = (await self._reach()).faults.lose_answers
        now_s = self._cloud.now_s()

        def act(state: CloudState) -> Result:
            result = alter(state, now_s)
            state.prune(now_s)
            return result

        result = self._cloud.store.change(act)
        if lose:
            raise Unavailable(Cause.TIMEOUT, "the answer was lost")
        return result


def _describe_hosts(cluster: ClusterRecord) -> list[HostHardware]:
    models = ("Simulated GPU",) if cluster.gpus else ()
    return [
        HostHardware(host.host, cluster.cores, 2 * cluster.cores, cluster.numa_nodes, cluster.gpus, models)
        for host in cluster.hosts
    ]


def _describe(cluster: ClusterRecord) -> ClusterSeen:
    hosts = len(cluster.hosts)
    return ClusterSeen(
        cluster=cluster.cluster,
        name=cluster.name,
        hosts=hosts,
        cores=cluster.cores * hosts,
        cpu_mhz=cluster.capacity_mhz * hosts,
        memory_mib=cluster.memory_mib * hosts,
    )


def _see(machine: MachineRecord, now_s: float) -> MachineSeen:
    configured = machine.is_configured(now_s)
    return MachineSeen(
        name=machine.name,
        mark=Mark(machine.installation_id, machine.machine_id),
        cluster=machine.cluster,
        host=machine.host,
        power=power_of(machine, now_s),
        configured=configured,
        limit_mhz=limit_of(machine, now_s) if configured else None,
        task=_task(machine, now_s),
        progress=_progress(machine, now_s),
        error=machine.error,
        task_id=f"task-{machine.ordinal}" if now_s < machine.cloned_at_s else None,
    )


def _progress(machine: MachineRecord, now_s: float) -> int | None:
    if now_s >= machine.cloned_at_s:
        return None
    return math.floor(100.0 * (now_s - machine.created_at_s) / (machine.cloned_at_s - machine.created_at_s))


def _task(machine: MachineRecord, now_s: float) -> str | None:
    if now_s < machine.cloned_at_s:
        return "clone"
    return "shutdown" if machine.power and machine.power[-1][0] > now_s else None
