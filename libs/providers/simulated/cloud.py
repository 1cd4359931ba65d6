"""A simulated cloud as its makers see it: its control, and the truth that no driver is told."""

from dataclasses import dataclass, field

from libs.common.clock import Clock
from libs.common.contracts.usage import HostState
from libs.providers.base import Cause, Power, Unavailable
from libs.providers.simulated.control import Control
from libs.providers.simulated.physics import (
    CONTENDED,
    HostLoad,
    demand_mhz,
    is_on,
    is_starting,
    limit_of,
    loads_at,
    machines_by_host,
    state_of,
)
from libs.providers.simulated.state import CloudState, ClusterRecord, MachineRecord, value_at
from libs.providers.simulated.store import Store

_POWER = {"off": Power.OFF, "boot": Power.ON, "resume": Power.ON, "suspended": Power.SUSPENDED}


@dataclass(frozen=True, slots=True)
class HostTruth:
    """A host at this moment."""

    host: str
    cluster: str
    state: HostState
    capacity_mhz: float
    owner_mhz: float
    ours_mhz: float
    demand_mhz: float
    """What ours would use if the owner used nothing."""
    machines: int
    """Of ours, powered on."""

    @property
    def owner_fraction(self) -> float:
        return self.owner_mhz / self.capacity_mhz

    @property
    def is_contended(self) -> bool:
        """Ours run, and together with the owner ask for more than 90 % of the host."""
        return self.machines > 0 and self.owner_mhz + self.demand_mhz > CONTENDED * self.capacity_mhz


@dataclass(frozen=True, slots=True)
class MachineTruth:
    """A machine of ours at this moment, with what its guest was given."""

    name: str
    ordinal: int
    cluster: str
    host: str
    power: Power
    configured: bool
    booted: bool
    vcpus: int
    limit_mhz: float
    demand_mhz: float
    user_data: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Truth:
    """Everything at one moment; machines in order of their creation."""

    hosts: tuple[HostTruth, ...]
    machines: tuple[MachineTruth, ...]
    foreign: tuple[str, ...]


class Cloud:
    """A cloud that exists, seen at the times of a clock."""

    def __init__(self, url: str, store: Store, clock: Clock) -> None:
        self.url = url
        self.store = store
        self.clock = clock
        self.control = Control(store, clock)

    def now_s(self) -> float:
        """Seconds since the epoch on the caller's clock."""
        return self.clock.now().timestamp()

    def state(self) -> CloudState:
        """The newest state, not to be altered. Raises Unavailable when the cloud is gone."""
        state = self.store.read()
        if state is None:
            raise Unavailable(Cause.UNREACHABLE, "the simulated cloud does not exist")
        return state

    def truth(self) -> Truth:
        """What is true now, whatever samples and faults say."""
        state, now_s = self.state(), self.now_s()
        by_host = machines_by_host(state.machines)
        hosts: list[HostTruth] = []
        for cluster in state.clusters:
            loads = loads_at(state, cluster, by_host, now_s)
            hosts += [_host_truth(cluster, index, load, now_s) for index, load in enumerate(loads)]
        clusters = {cluster.cluster: cluster for cluster in state.clusters}
        machines = [
            _machine_truth(clusters[machine.cluster], machine, now_s)
            for machine in state.machines
            if machine.deleted_at_s is None and not clusters[machine.cluster].gone
        ]
        return Truth(tuple(hosts), tuple(machines), tuple(state.foreign))

    def worked_s(self, since_s: float, step_s: float = 60.0) -> dict[str, float]:
        """CPU seconds that guests of ours had since then, by their machines' names: what starts has none for them."""
        state, until_s = self.state(), self.now_s()
        by_host = machines_by_host(state.machines)
        steps = max(1, round((until_s - since_s) / step_s))
        length_s = (until_s - since_s) / steps
        worked: dict[str, float] = {}
        for cluster in state.clusters:
            for index in range(steps):
                at_s = since_s + length_s * (index + 0.5)
                loads = loads_at(state, cluster, by_host, at_s)
                for host, load in zip(cluster.hosts, loads, strict=True):
                    wishes = {m.name: demand_mhz(cluster, m, at_s) for m in by_host.get(host.host, ())}
                    whole = sum(wishes.values())
                    for machine in by_host.get(host.host, ()) if whole > 0 else ():
                        if not is_starting(machine, at_s):
                            share = load.ours_mhz / whole / cluster.core_mhz
                            had = worked.get(machine.name, 0.0)
                            worked[machine.name] = had + wishes[machine.name] * share * length_s
        return worked


def power_of(machine: MachineRecord, at_s: float) -> Power:
    """The power state as an inventory shows it."""
    return _POWER[value_at(machine.power, at_s) or "off"]


def _host_truth(cluster: ClusterRecord, index: int, load: HostLoad, now_s: float) -> HostTruth:
    host = cluster.hosts[index]
    return HostTruth(
        host=host.host,
        cluster=cluster.cluster,
        state=state_of(host, now_s),
        capacity_mhz=cluster.capacity_mhz,
        owner_mhz=load.owner_mhz,
        ours_mhz=load.ours_mhz,
        demand_mhz=load.demand_mhz,
        machines=load.running,
    )


def _machine_truth(cluster: ClusterRecord, machine: MachineRecord, now_s: float) -> MachineTruth:
    return MachineTruth(
        name=machine.name,
        ordinal=machine.ordinal,
        cluster=machine.cluster,
        host=machine.host,
        power=power_of(machine, now_s),
        configured=machine.is_configured(now_s),
        booted=is_on(machine, now_s) and not is_starting(machine, now_s),
        vcpus=machine.vcpus,
        limit_mhz=limit_of(machine, now_s),
        demand_mhz=demand_mhz(cluster, machine, now_s),
        user_data=machine.user_data,
    )
