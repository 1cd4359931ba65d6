"""What the owner's load says about the whole cluster. Idle needs all signals for a while, busy any."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.contracts.usage import Sample
from libs.harvest.fleet import Fleet, disk_gib_of
from libs.harvest.owner import HostLoad, number
from libs.harvest.types import HostMemory, MachineFact, Policy, State, Thresholds, Verdict


@dataclass(frozen=True, slots=True)
class Signal:
    """A fraction of the connected hosts' capacity that the owner uses."""

    name: str
    """`cpu` or `memory`."""
    value: float
    thresholds: Thresholds

    @property
    def is_busy(self) -> bool:
        return self.value >= self.thresholds.reclaim

    @property
    def stops_new(self) -> bool:
        return self.value >= self.thresholds.stop_new

    @property
    def is_idle(self) -> bool:
        return self.value < self.thresholds.idle


@dataclass(frozen=True, slots=True)
class Datastore:
    """Free space: None where it is not measured, 0 where it cannot be believed."""

    free: float | None
    short: bool
    room: int | None
    """Further machines (disk, swap file, suspend file) above the free space that stays the owner's."""


def read_signals(
    policy: Policy, loads: Sequence[HostLoad], lost: Sequence[HostMemory], memory_measured: bool
) -> tuple[Signal, ...]:
    """Owner load of the cluster, with `lost` hosts (which the sample fails to name) counted as full.

    Empty when no host is connected.
    """
    connected = [load for load in loads if load.connected]
    if not connected:
        return ()
    typical = _mean([load.capacity_mhz for load in connected if load.capacity_mhz > 0])
    cpu = [(load.capacity_mhz or typical, load.cpu) for load in connected]
    cpu += [(memory.capacity_mhz, 1.0) for memory in lost]
    signals = [Signal("cpu", _weighted(cpu), policy.cpu)]
    if policy.memory is not None and memory_measured:
        sizes = [load.memory_capacity_mib for load in connected if load.memory_capacity_mib > 0]
        typical = _mean(sizes)
        memory_use = [(load.memory_capacity_mib or typical, load.memory) for load in connected]
        memory_use += [(typical, 1.0) for _ in lost]
        signals.append(Signal("memory", _weighted(memory_use), policy.memory))
    return tuple(signals)


def find_lost(
    known: Mapping[str, HostMemory], loads: Sequence[HostLoad], fleet: Fleet, *, partial: bool
) -> dict[str, HostMemory]:
    """Known hosts that this sample should name and does not: ours run there, or the sample is partial."""
    seen = {load.host for load in loads}
    return {host: memory for host, memory in known.items() if host not in seen and (partial or host in fleet)}


def read_datastore(policy: Policy, sample: Sample, machines: Sequence[MachineFact]) -> Datastore:
    """The datastore's signal. Nothing measured is no obstacle, an impossible figure is a full datastore.

    What our thin disks may still grow is not room: where the cloud does not say how much that is, every disk of
    ours counts as still to be written in full.
    """
    if sample.datastore_capacity_gib is None and sample.datastore_free_gib is None:
        return Datastore(None, short=False, room=None)
    capacity, free = number(sample.datastore_capacity_gib), number(sample.datastore_free_gib)
    if capacity is None or free is None or capacity <= 0 or not 0 <= free <= capacity:
        return Datastore(0.0, short=True, room=0)
    machine_gib = policy.machine.disk_gib + 2.0 * policy.machine.memory_mib / 1024.0
    growth_gib = _find_growth_gib(policy, sample, machines)
    spare_gib = max(0.0, free - policy.datastore_free_min * capacity - growth_gib)
    room = min(int(spare_gib / machine_gib), 9999) if machine_gib > 0 else 9999
    share = free / capacity
    return Datastore(round(share, 4), short=share < policy.datastore_free_min, room=room)


def _find_growth_gib(policy: Policy, sample: Sample, machines: Sequence[MachineFact]) -> float:
    """What our disks may still take of the free space; one that starts may not be in the cloud's figure yet."""
    told = number(sample.datastore_uncommitted_gib)
    known = told is not None and told >= 0
    unknown = [machine for machine in machines if not known or machine.state == "starting"]
    disks_gib = math.fsum(disk_gib_of(policy, machine) for machine in unknown)
    return disks_gib + (told if told is not None and known else 0.0)


def judge(policy: Policy, state: State, signals: Sequence[Signal], at: datetime, **noted: Any) -> State:
    """The state with its verdict and dwell times at `at`, and what else was `noted`; no signal at all is `unknown`.

    After a gap an owner who was busy before it is so until load below `stop_new` is seen.
    """
    if not signals:
        return forget_verdict(state._replace(**noted), at)
    busy = any(signal.is_busy for signal in signals)
    stop = any(signal.stops_new for signal in signals)
    idle = all(signal.is_idle for signal in signals)
    was_busy = state.verdict is Verdict.BUSY or (
        state.verdict is Verdict.UNKNOWN and state.pressed_since is not None
    )
    busy_since = (state.busy_since or at) if busy else None
    idle_since = (state.idle_since or at) if idle else None
    if has_dwelt(busy_since, policy.busy_dwell_s, at) or (was_busy and stop):
        verdict = Verdict.BUSY
    elif stop:
        verdict = Verdict.STOP_NEW
    elif has_dwelt(idle_since, policy.idle_dwell_s, at):
        verdict = Verdict.IDLE
    else:
        verdict = Verdict.NORMAL
    since = state.verdict_since if verdict is state.verdict and state.verdict_since else at
    return state._replace(
        verdict=verdict, verdict_since=since, idle_since=idle_since, busy_since=busy_since, **noted
    )


def forget_verdict(state: State, at: datetime) -> State:
    """The state of a cluster about which nothing is known: idleness starts again, a busy owner stays busy."""
    since = state.verdict_since if state.verdict is Verdict.UNKNOWN and state.verdict_since else at
    return state._replace(verdict=Verdict.UNKNOWN, verdict_since=since, idle_since=None, stuck_since=None)


def has_dwelt(since: datetime | None, dwell_s: float, at: datetime) -> bool:
    """Whether something true since `since` has been so for long enough."""
    return since is not None and (at - since).total_seconds() >= dwell_s


def _weighted(pairs: Sequence[tuple[float, float]]) -> float:
    """Mean of the shares by capacity, full where no capacity is known; independent of the order of hosts."""
    total = math.fsum(weight for weight, _ in pairs)
    return round(math.fsum(weight * share for weight, share in pairs) / total, 6) if total > 0 else 1.0


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
