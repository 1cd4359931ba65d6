"""What an observation changes in the state: a believable sample, or its absence."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.contracts.usage import Coming, Quality, Sample
from libs.harvest.admission import find_room_mib
from libs.harvest.budgets import (
    UNKNOWN,
    Aim,
    Pace,
    Weights,
    bounded_floor,
    change,
    learn,
    move,
    offer,
    plain_bound,
    room_beside,
    upper_bound,
    useful,
)
from libs.harvest.coming import EVERYWHERE, reserve, reserved_on
from libs.harvest.count import Room, bound_wanted, find_room, grow, has_cooled_down
from libs.harvest.crowded import note_full
from libs.harvest.fleet import Fleet, floor_mhz, group_by_host, is_kept, memory_mib_of
from libs.harvest.ladder import climb_or_descend, read_push
from libs.harvest.life import find_young
from libs.harvest.owner import HostLoad, memory_is_measured, number, patience_s, read_hosts
from libs.harvest.reasons import name_owner_reason
from libs.harvest.steering import Trial, look_after, sigma_of, steer
from libs.harvest.types import (
    Facts,
    HostMemory,
    MachineFact,
    Policy,
    Reason,
    ReasonCode,
    Rung,
    State,
    Steering,
    Trend,
    Verdict,
)
from libs.harvest.verdict import (
    Datastore,
    find_lost,
    forget_verdict,
    has_dwelt,
    judge,
    read_datastore,
    read_signals,
)


@dataclass(frozen=True, slots=True)
class Scene:
    """A believable sample, read."""

    at: datetime
    loads: tuple[HostLoad, ...]
    lost: Mapping[str, HostMemory]
    """Known hosts that should be in the sample and are not."""
    fleet: Fleet
    floors: Mapping[str, float]
    """What keeps the machines of a host alive, by host that has any."""
    pace: Pace
    weights: Weights
    sigmas: tuple[float, float]
    """Deviations to be kept free by the engine's own and by the plain bound."""
    plain_leads: bool
    reserved: Mapping[str, tuple[float, Coming]]
    """What is kept free for announced load."""
    floored: bool
    """The rung leaves nothing above the floor."""


def hear(policy: Policy, state: State, sample: Sample, facts: Facts) -> tuple[State, Room]:
    """The state after a sample in which nothing as a whole is impossible (single hosts may be), and what has room."""
    state = _adopt(policy, state, facts)
    known = dict(state.hosts)
    fleet = group_by_host(facts.machines, sample.hosts)
    loads = read_hosts(sample, known)
    lost = find_lost(known, loads, fleet, partial=sample.quality is Quality.PARTIAL)
    datastore = read_datastore(policy, sample, facts.machines)
    signals = read_signals(policy, loads, list(lost.values()), memory_is_measured(sample))
    pace = _find_pace(policy, state, sample, facts)
    judged = judge(policy, state, signals, sample.at, **_note(state, sample, datastore))
    push = read_push(policy, judged, facts, sample.at, fresh=pace.may_rise)
    judged = climb_or_descend(policy, judged, push, sample.at)
    floors = {host: floor_mhz(policy, machines) for host, machines in fleet.items()}
    steering = _steer(policy, state, facts, loads, floors, pace)
    scene = Scene(
        sample.at,
        loads,
        lost,
        fleet,
        floors,
        pace,
        Weights.over(pace.elapsed_s, turns=_has_turned(state.sampled_at, sample.at)),
        sigma_of(policy, steering),
        plain_leads=state.steering is not None and state.steering.plain_leads,
        reserved=reserve(facts.coming, facts.now),
        floored=judged.rung >= Rung.FLOOR,
    )
    judged = judged._replace(
        sampled_at=sample.at,
        steering=steering,
        hosts=_remember(policy, known, scene, sample),
        room_mib=find_room_mib(policy, sample, loads, fleet, judged.room_mib),
    )
    room = find_room(policy, judged, dict(judged.hosts), fleet)
    judged = _let_go(policy, _retreat(policy, state, judged, facts, sample.at), scene, room)
    held = name_owner_reason(policy, judged, signals, loads, datastore, push)
    everywhere = scene.reserved.get(EVERYWHERE)
    if held.all_ is not None:
        return judged._replace(reason=held.host or held.all_), room
    if everywhere is not None:
        announced = Reason(ReasonCode.ANNOUNCED, everywhere[1].value, round(everywhere[0], 4))
        return judged._replace(reason=held.host or announced), room
    grown = _grow(policy, judged, facts, scene, room)
    if held.host is not None and grown.wanted == judged.wanted:
        return grown._replace(reason=held.host), room
    return _name_host_announced(grown, scene), room


def _name_host_announced(state: State, scene: Scene) -> State:
    """Where nothing else is to be said: the host of which most is kept free."""
    named = [(share, host) for host, (share, _) in scene.reserved.items() if host in dict(state.hosts)]
    if not named or state.reason is None or state.reason.code is not ReasonCode.LENDING:
        return state
    share, host = max(named)
    kind = scene.reserved[host][1].value
    return state._replace(reason=Reason(ReasonCode.ANNOUNCED, kind, round(share, 4), host=host))


def hear_nothing(policy: Policy, state: State, facts: Facts, reason: Reason | None) -> State:
    """The state when nothing believable was heard at `facts.now`.

    With a reason the cluster is unknown and every budget falls to the floor; without one the gap is still
    short and only what the facts and the clock force is changed.
    """
    before = _adopt(policy, state, facts)
    judged = before if reason is None else forget_verdict(before, facts.now)._replace(reason=reason)
    push = read_push(policy, judged, facts, facts.now, fresh=False)
    judged = climb_or_descend(policy, judged, push, facts.now)
    if judged.rung >= Rung.FLOOR:
        judged = judged._replace(hosts=_fall_to_floor(policy, judged, facts))
    elif facts.coming:
        judged = judged._replace(hosts=_step_back(policy, judged, facts))
    if reason is None and push.closed:
        judged = judged._replace(reason=Reason(ReasonCode.WINDOW))
    return _retreat(policy, before, judged, facts, facts.now)


def _adopt(policy: Policy, state: State, facts: Facts) -> State:
    """A state that never judged wants the machines it finds: losing the state is no reason to destroy."""
    if state.rung_since is not None:
        return state
    return state._replace(
        wanted=bound_wanted(policy, facts, sum(is_kept(machine) for machine in facts.machines))
    )


def _note(state: State, sample: Sample, datastore: Datastore) -> dict[str, Any]:
    """What the sample says of the cluster besides its load, as fields of the state."""
    return {
        "disk_room": datastore.room,
        "datastore_short": datastore.short,
        "exposed": _read_exposure(state, sample),
        "short_since": (state.short_since or sample.at) if datastore.short else None,
        "interval_s": number(sample.interval_s),
    }


def _read_exposure(state: State, sample: Sample) -> str | None:
    """Why ours do not give way by themselves now; history does not tell."""
    if sample.quality is Quality.BACKFILLED:
        return state.exposed
    return None if sample.exposed is None else str(sample.exposed)


def _find_pace(policy: Policy, state: State, sample: Sample, facts: Facts) -> Pace:
    """How much time this sample stands for; a gap counts as observed for no longer than it is not yet stale."""
    passed_s = number(sample.interval_s) or 0.0
    if state.sampled_at is not None:
        passed_s = max(0.0, (sample.at - state.sampled_at).total_seconds())
    longest_s = patience_s(policy, sample.interval_s, facts.interval_s)
    interval_s = number(sample.interval_s) or 0.0
    return Pace(
        min(passed_s, longest_s), passed_s, interval_s, may_rise=sample.quality is not Quality.BACKFILLED
    )


def _has_turned(before: datetime | None, at: datetime) -> bool:
    """Whether an hour of the clock has begun since."""
    return before is not None and before.timestamp() // 3600.0 != at.timestamp() // 3600.0


def _remember(
    policy: Policy, known: Mapping[str, HostMemory], scene: Scene, sample: Sample
) -> tuple[tuple[str, HostMemory], ...]:
    measured = memory_is_measured(sample)
    hosts = {
        load.host: _budget_host(policy, known.get(load.host), load, scene, measured) for load in scene.loads
    }
    for host, memory in scene.lost.items():
        floor = bounded_floor(policy, scene.floors.get(host, 0.0), memory.capacity_mhz)
        hosts[host] = change(memory, min(memory.budget_mhz, floor))._replace(spare_mib=0)
    hosts.update(_meet_unseen(policy, hosts, scene.fleet))
    return tuple(sorted(hosts.items()))


def _budget_host(
    policy: Policy, known: HostMemory | None, load: HostLoad, scene: Scene, memory_measured: bool
) -> HostMemory:
    known = known or HostMemory(UNKNOWN, 0.0)
    if not load.connected:
        return change(known, 0.0)._replace(spare_mib=0, wish=0.0, plain_wish=0.0, full_s=0.0)
    ours = scene.fleet.get(load.host, ())
    trend, capacity_mhz, wish, plain_wish = known.trend, known.capacity_mhz, 0.0, 0.0
    if not load.fault:
        trend = learn(known, load, scene.weights)
        if load.capacity_mhz != capacity_mhz:
            capacity_mhz = round(load.capacity_mhz, 1)
        wish, plain_wish = _wish(policy, known, trend, scene)
    kept = reserved_on(load.host, scene.reserved) if scene.reserved else 0.0
    floor = bounded_floor(policy, scene.floors.get(load.host, 0.0), capacity_mhz)
    pressed = (
        scene.floored or load.cpu >= policy.cpu.reclaim or _is_memory_pressed(policy, load, memory_measured)
    )
    before, offered = (known.plain_wish, plain_wish) if scene.plain_leads else (known.wish, wish)
    desired, room = floor, room_beside(policy, trend) - kept
    if not load.fault and not pressed:
        free = useful(policy, offered - kept if scene.pace.may_rise else room)
        desired = max(floor, float(math.floor(free * capacity_mhz)))
    moved = move(policy, known, Aim(desired, floor, room * capacity_mhz, capacity_mhz), scene.pace)
    return HostMemory(
        trend,
        moved.budget_mhz,
        capacity_mhz,
        _find_spare_mib(policy, load, ours, measured=memory_measured),
        moved.rest_s,
        moved.owed_s,
        wish,
        plain_wish,
        note_full(known.full_s, before, offered, scene.pace.elapsed_s),
    )


def _wish(policy: Policy, known: HostMemory, trend: Trend, scene: Scene) -> tuple[float, float]:
    """What the engine's own and the plain bound would lend; a look amid an interval only takes what must go."""
    if not scene.pace.may_rise:
        room = useful(policy, room_beside(policy, trend))
        return min(known.wish, room), min(known.plain_wish, room)
    own, plain = scene.sigmas
    return offer(policy, upper_bound(trend, own)), offer(policy, plain_bound(trend, plain))


def _steer(
    policy: Policy,
    state: State,
    facts: Facts,
    loads: Sequence[HostLoad],
    floors: Mapping[str, float],
    pace: Pace,
) -> Steering | None:
    """The steering after what the budgets of until now did; where nothing was lent nothing is learnt."""
    if state.rung is not Rung.LEND or facts.paused is not None or facts.draining:
        return state.steering
    known, trials, is_lent = dict(state.hosts), [], any(floors.values())
    for load in loads:
        memory = known.get(load.host)
        if load.connected and memory is not None and memory.capacity_mhz > 0:
            floor = floors.get(load.host, 0.0)
            # Where others of ours run, nothing is lent on a host on which none does.
            budget = memory.budget_mhz if memory.budget_mhz > floor and (floor or not is_lent) else 0.0
            trials.append(Trial(load.cpu, memory.wish, memory.plain_wish, budget / memory.capacity_mhz))
    return steer(policy, state.steering, trials, look_after(pace.elapsed_s, pace.interval_s))


def _is_memory_pressed(policy: Policy, load: HostLoad, measured: bool) -> bool:
    return policy.memory is not None and measured and load.memory >= policy.memory.reclaim


def _find_spare_mib(
    policy: Policy, load: HostLoad, ours: Sequence[MachineFact], *, measured: bool
) -> int | None:
    """What fits beside the owner's memory in all, ours counted at full size; None where it is not measured."""
    if not measured:
        return None
    if load.memory_fault:
        return 0
    excess = load.memory_ours_mib
    for machine in ours:
        excess -= memory_mib_of(policy, machine)
    spare = (policy.target - load.memory) * load.memory_capacity_mib
    return max(0, int(spare - excess if excess > 0.0 else spare))


def _meet_unseen(policy: Policy, hosts: Mapping[str, HostMemory], fleet: Fleet) -> dict[str, HostMemory]:
    """Hosts of which nothing was ever heard but that machines of ours run there: those are kept alive."""
    return {
        host: HostMemory(UNKNOWN, bounded_floor(policy, floor_mhz(policy, machines), 0.0))
        for host, machines in fleet.items()
        if host and host not in hosts and floor_mhz(policy, machines) > 0
    }


def _fall_to_floor(policy: Policy, state: State, facts: Facts) -> tuple[tuple[str, HostMemory], ...]:
    known = dict(state.hosts)
    fleet = group_by_host(facts.machines, known)
    hosts = {}
    for host, memory in known.items():
        floor = bounded_floor(policy, floor_mhz(policy, fleet.get(host, ())), memory.capacity_mhz)
        hosts[host] = change(memory, min(memory.budget_mhz, floor))
    hosts.update(_meet_unseen(policy, hosts, fleet))
    return tuple(sorted(hosts.items()))


def _step_back(policy: Policy, state: State, facts: Facts) -> tuple[tuple[str, HostMemory], ...]:
    """No budget above what announced load leaves, between two samples: it is not waited for."""
    reserved = reserve(facts.coming, facts.now)
    fleet = group_by_host(facts.machines, dict(state.hosts))
    hosts = []
    for host, memory in state.hosts:
        kept = reserved_on(host, reserved)
        room = max(0.0, room_beside(policy, memory.trend) - kept) * memory.capacity_mhz
        floor = bounded_floor(policy, floor_mhz(policy, fleet.get(host, ())), memory.capacity_mhz)
        most = max(floor, float(math.floor(room))) if kept > 0.0 else memory.budget_mhz
        hosts.append((host, change(memory, min(memory.budget_mhz, most))))
    return tuple(hosts)


def _retreat(policy: Policy, before: State, state: State, facts: Facts, at: datetime) -> State:
    """Take back what may not be wanted any more; a retreat starts the cooldown."""
    gone = state.rung is Rung.DESTROY or facts.draining
    wanted = 0 if gone else bound_wanted(policy, facts, state.wanted)
    climbed = state.rung > before.rung and state.rung >= Rung.NO_NEW
    retreated = wanted < before.wanted or climbed
    grown_at = at if retreated else state.grown_at
    if wanted == state.wanted and grown_at == state.grown_at:
        return state
    return state._replace(wanted=wanted, grown_at=grown_at)


def _let_go(policy: Policy, state: State, scene: Scene, room: Room) -> State:
    """Want suspended machines no more that had no room to wake up for a cooldown of an idle cluster."""
    stuck = [name for name in room.stuck if name not in find_young(policy, scene.fleet)] if room.stuck else []
    if stuck and has_dwelt(state.stuck_since, policy.cooldown_s, scene.at):
        wanted = max(0, min(state.wanted, room.kept - len(stuck)))
        return state._replace(wanted=wanted, grown_at=scene.at, stuck_since=None)
    lends = state.verdict is Verdict.IDLE and state.rung is Rung.LEND and scene.pace.may_rise
    stuck_since = (state.stuck_since or scene.at) if lends and stuck else None
    return state if stuck_since == state.stuck_since else state._replace(stuck_since=stuck_since)


def _grow(policy: Policy, state: State, facts: Facts, scene: Scene, room: Room) -> State:
    """One step more where everything allows it."""
    if not scene.pace.may_rise or state.verdict is not Verdict.IDLE or state.rung is not Rung.LEND:
        return state._replace(reason=Reason(ReasonCode.LENDING))
    wanted, reason = grow(policy, state, facts, room)
    if wanted == state.wanted:
        return state._replace(reason=reason)
    if not has_cooled_down(policy, state, scene.at):
        rested_s = (scene.at - state.grown_at).total_seconds() if state.grown_at else 0.0
        return state._replace(
            reason=Reason(ReasonCode.COOLING_DOWN, "rest", round(rested_s, 1), policy.cooldown_s)
        )
    return state._replace(wanted=wanted, grown_at=scene.at, reason=reason)
