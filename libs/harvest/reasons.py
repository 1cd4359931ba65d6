"""The rule that binds, as data, in the order of what an operator wants to know first."""

from collections.abc import Sequence
from typing import NamedTuple

from libs.harvest.ladder import Push
from libs.harvest.owner import HostLoad
from libs.harvest.types import Policy, Reason, ReasonCode, State, Verdict
from libs.harvest.verdict import Datastore, Signal

_CODES = {"cpu": ReasonCode.OWNER_CPU, "memory": ReasonCode.OWNER_MEMORY}


class Held(NamedTuple):
    """What keeps lending down."""

    all_: Reason | None
    """On the whole cluster: nothing new is made. None: nothing but the count decides."""
    host: Reason | None
    """On the host that is worst off, if any is held at its floor; others have machines made for them all the same."""


def name_owner_reason(
    policy: Policy,
    state: State,
    signals: Sequence[Signal],
    loads: Sequence[HostLoad],
    datastore: Datastore,
    push: Push,
) -> Held:
    """Why nothing more is lent than is, by a judged state."""
    if state.exposed is not None:
        return Held(Reason(ReasonCode.EXPOSED, state.exposed), None)
    if not signals:
        return Held(Reason(ReasonCode.HOSTS, "connected", 0.0, float(len(loads))), None)
    if push.closed:
        return Held(Reason(ReasonCode.WINDOW), None)
    exceeded = _name_exceeded(signals)
    if exceeded is not None:
        return Held(exceeded, None)
    host = _name_host(policy, loads, {signal.name for signal in signals})
    return Held(_name_disk(policy, datastore) or _name_waiting(policy, state, signals), host)


def _name_exceeded(signals: Sequence[Signal]) -> Reason | None:
    for signal in sorted(signals, key=lambda signal: not signal.is_busy):
        if signal.is_busy:
            return Reason(_CODES[signal.name], signal.name, signal.value, signal.thresholds.reclaim)
        if signal.stops_new:
            return Reason(_CODES[signal.name], signal.name, signal.value, signal.thresholds.stop_new)
    return None


def _name_host(policy: Policy, loads: Sequence[HostLoad], measured: set[str]) -> Reason | None:
    """The host that is worst off, if any is held at its floor."""
    connected = [load for load in loads if load.connected]
    for load in connected:
        if load.fault:
            return Reason(ReasonCode.IMPOSSIBLE, load.fault, host=load.host)
    hottest = max(connected, key=lambda load: load.cpu)
    if hottest.cpu >= policy.cpu.reclaim:
        return Reason(ReasonCode.OWNER_CPU, "cpu", round(hottest.cpu, 4), policy.cpu.reclaim, hottest.host)
    fullest = max(connected, key=lambda load: load.memory)
    if policy.memory is not None and "memory" in measured and fullest.memory >= policy.memory.reclaim:
        value = round(fullest.memory, 4)
        return Reason(ReasonCode.OWNER_MEMORY, "memory", value, policy.memory.reclaim, fullest.host)
    return None


def _name_disk(policy: Policy, datastore: Datastore) -> Reason | None:
    if not datastore.short:
        return None
    return Reason(ReasonCode.DATASTORE, "free", datastore.free, policy.datastore_free_min)


def _name_waiting(policy: Policy, state: State, signals: Sequence[Signal]) -> Reason | None:
    if state.verdict is Verdict.IDLE:
        return None
    if state.idle_since is not None and state.sampled_at is not None:
        idle_s = (state.sampled_at - state.idle_since).total_seconds()
        return Reason(ReasonCode.DWELLING, "idle", round(idle_s, 1), policy.idle_dwell_s)
    above = [signal for signal in signals if not signal.is_idle]
    if not above:
        return None
    return Reason(_CODES[above[0].name], above[0].name, above[0].value, above[0].thresholds.idle)
