"""What an observation changes in the state: a believable sample, or its absence."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from libs.common.contracts.usage import Quality, Sample
from libs.harvest.budgets import Pace, bounded_floor, learn, move, offer
from libs.harvest.count import bound_wanted, find_room, grow, has_cooled_down
from libs.harvest.fleet import Fleet, floor_mhz, group_by_host, is_kept
from libs.harvest.ladder import climb_or_descend, read_push
from libs.harvest.owner import HostLoad, memory_is_measured, number, read_hosts
from libs.harvest.reasons import name_owner_reason
from libs.harvest.types import Facts, HostMemory, Policy, Reason, ReasonCode, Rung, State, Verdict
from libs.harvest.verdict import find_lost, forget_verdict, judge, read_datastore, read_signals


@dataclass(frozen=True, slots=True)
class Scene:
    """A believable sample, read."""

    at: datetime
    loads: tuple[HostLoad, ...]
    lost: Mapping[str, HostMemory]
    """Known hosts that should be in the sample and are not."""
    fleet: Fleet
    pace: Pace
    floored: bool
    """The rung leaves nothing above the floor."""


def hear(policy: Policy, state: State, sample: Sample, facts: Facts) -> State:
    """The state after a sample in which nothing as a whole is impossible; single hosts may be."""
    state = _adopt(policy, state, facts)
    known = dict(state.hosts)
    fleet = group_by_host(facts.machines, sample.hosts)
    loads = read_hosts(sample, known)
    lost = find_lost(known, loads, fleet, partial=sample.quality is Quality.PARTIAL)
    datastore = read_datastore(policy, sample)
    signals = read_signals(policy, loads, list(lost.values()), memory_is_measured(sample))
    fresh = sample.quality is not Quality.BACKFILLED
    pace = Pace(_elapsed_s(policy, state, sample), may_rise=fresh)
    before = replace(state, disk_room=datastore.room, datastore_short=datastore.short)
    judged = judge(policy, before, signals, datastore.short, sample.at)
    push = read_push(policy, judged, facts, sample.at, fresh=fresh)
    judged = climb_or_descend(policy, judged, push, sample.at)
    scene = Scene(sample.at, loads, lost, fleet, pace, floored=judged.rung >= Rung.FLOOR)
    judged = replace(judged, sampled_at=sample.at, hosts=_remember(policy, known, scene, sample))
    judged = _retreat(policy, state, judged, facts, sample.at)
    reason = name_owner_reason(policy, judged, signals, loads, datastore, push)
    return _grow(policy, judged, facts, scene, reason)


def hear_nothing(policy: Policy, state: State, facts: Facts, reason: Reason | None) -> State:
    """The state when nothing believable was heard at `facts.now`.

    With a reason the cluster is unknown and every budget falls to the floor; without one the gap is still
    short and only what the facts and the clock force is changed.
    """
    before = _adopt(policy, state, facts)
    judged = before if reason is None else replace(forget_verdict(before, facts.now), reason=reason)
    push = read_push(policy, judged, facts, facts.now, fresh=False)
    judged = climb_or_descend(policy, judged, push, facts.now)
    if judged.rung >= Rung.FLOOR:
        judged = replace(judged, hosts=_fall_to_floor(policy, judged, facts))
    if reason is None and push.closed:
        judged = replace(judged, reason=Reason(ReasonCode.WINDOW))
    return _retreat(policy, before, judged, facts, facts.now)


def _adopt(policy: Policy, state: State, facts: Facts) -> State:
    """A state that never judged wants the machines it finds: losing the state is no reason to destroy."""
    if state.rung_since is not None:
        return state
    return replace(
        state, wanted=bound_wanted(policy, facts, sum(is_kept(machine) for machine in facts.machines))
    )


def _elapsed_s(policy: Policy, state: State, sample: Sample) -> float:
    """Observed time that this sample stands for; a gap counts as no more than what is not yet stale."""
    if state.sampled_at is not None:
        elapsed_s = (sample.at - state.sampled_at).total_seconds()
    else:
        elapsed_s = number(sample.interval_s) or 0.0
    return min(max(0.0, elapsed_s), policy.stale_after_s)


def _remember(
    policy: Policy, known: Mapping[str, HostMemory], scene: Scene, sample: Sample
) -> tuple[tuple[str, HostMemory], ...]:
    measured = memory_is_measured(sample)
    hosts = {
        load.host: _budget_host(policy, known.get(load.host), load, scene, measured) for load in scene.loads
    }
    for host, memory in scene.lost.items():
        floor = bounded_floor(policy, floor_mhz(policy, scene.fleet.get(host, ())), memory.capacity_mhz)
        hosts[host] = replace(memory, budget_mhz=min(memory.budget_mhz, floor), room=0)
    hosts.update(_meet_unseen(policy, hosts, scene.fleet))
    return tuple(sorted(hosts.items()))


def _budget_host(
    policy: Policy, known: HostMemory | None, load: HostLoad, scene: Scene, memory_measured: bool
) -> HostMemory:
    blank = known or HostMemory(1.0, 0.0, 1.0, 0.0)
    if not load.connected:
        return replace(blank, budget_mhz=0.0, room=0)
    memory = blank if load.fault else learn(known, load, scene.pace.elapsed_s)
    ours = scene.fleet.get(load.host, ())
    memory = replace(memory, room=_count_room(policy, load, len(ours), memory_measured))
    floor = bounded_floor(policy, floor_mhz(policy, ours), memory.capacity_mhz)
    pressed = (
        scene.floored or load.cpu >= policy.cpu.reclaim or _is_memory_pressed(policy, load, memory_measured)
    )
    desired = floor if load.fault or pressed else max(floor, offer(policy, memory))
    return move(policy, memory, desired, floor, scene.pace)


def _is_memory_pressed(policy: Policy, load: HostLoad, measured: bool) -> bool:
    return measured and policy.memory is not None and load.memory >= policy.memory.reclaim


def _count_room(policy: Policy, load: HostLoad, ours: int, measured: bool) -> int:
    """Machines that fit beside the owner's memory in all, at full size; no limit where it is not measured."""
    if not measured:
        return policy.machines_per_host
    if load.memory_fault:
        return 0
    size = max(1, policy.machine.memory_mib)
    excess = max(0.0, load.memory_ours_mib - ours * size)
    spare = (policy.target - load.memory) * load.memory_capacity_mib - excess
    return max(0, min(int(spare / size), 9999))


def _meet_unseen(policy: Policy, hosts: Mapping[str, HostMemory], fleet: Fleet) -> dict[str, HostMemory]:
    """Hosts of which nothing was ever heard but that machines of ours run there: those are kept alive."""
    return {
        host: HostMemory(1.0, 0.0, 1.0, bounded_floor(policy, floor_mhz(policy, machines), 0.0))
        for host, machines in fleet.items()
        if host and host not in hosts and floor_mhz(policy, machines) > 0
    }


def _fall_to_floor(policy: Policy, state: State, facts: Facts) -> tuple[tuple[str, HostMemory], ...]:
    known = dict(state.hosts)
    fleet = group_by_host(facts.machines, known)
    hosts = {}
    for host, memory in known.items():
        floor = bounded_floor(policy, floor_mhz(policy, fleet.get(host, ())), memory.capacity_mhz)
        hosts[host] = replace(memory, budget_mhz=min(memory.budget_mhz, floor))
    hosts.update(_meet_unseen(policy, hosts, fleet))
    return tuple(sorted(hosts.items()))


def _retreat(policy: Policy, before: State, state: State, facts: Facts, at: datetime) -> State:
    """Take back what may not be wanted any more; a retreat starts the cooldown."""
    gone = state.rung is Rung.DESTROY or facts.draining
    wanted = 0 if gone else bound_wanted(policy, facts, state.wanted)
    climbed = state.rung > before.rung and state.rung >= Rung.NO_NEW
    retreated = wanted < before.wanted or climbed
    return replace(state, wanted=wanted, grown_at=at if retreated else state.grown_at)


def _grow(policy: Policy, state: State, facts: Facts, scene: Scene, reason: Reason | None) -> State:
    """One step more where everything allows it; `reason` is what already forbids it."""
    if reason is not None:
        return replace(state, reason=reason)
    if not scene.pace.may_rise or state.verdict is not Verdict.IDLE or state.rung is not Rung.LEND:
        return replace(state, reason=Reason(ReasonCode.LENDING))
    room = find_room(policy, dict(state.hosts), scene.fleet, state.disk_room)
    wanted, reason = grow(policy, state, facts, room)
    if wanted == state.wanted:
        return replace(state, reason=reason)
    if not has_cooled_down(policy, state, scene.at):
        rested_s = (scene.at - state.grown_at).total_seconds() if state.grown_at else 0.0
        return replace(
            state, reason=Reason(ReasonCode.COOLING_DOWN, "rest", round(rested_s, 1), policy.cooldown_s)
        )
    return replace(state, wanted=wanted, grown_at=scene.at, reason=reason)
