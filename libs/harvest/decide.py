"""The one door of the engine: what was measured and what is known in, what is to be true out.

Pure and total: no I/O, no clock, no chance, and no observation raises. A decision is a function of policy,
state and facts alone, so an observation that changes no state repeats the decision before it.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from libs.common.contracts.usage import Sample
from libs.harvest.budgets import bounded_floor
from libs.harvest.count import Room, bound_wanted, count_running, find_room, find_unable, place_missing
from libs.harvest.crowded import find_crowded
from libs.harvest.fleet import Fleet, floor_mhz, group_by_host, order_victims
from libs.harvest.hear import hear, hear_nothing
from libs.harvest.ladder import can_suspend
from libs.harvest.life import find_young, spare_young
from libs.harvest.owner import FUTURE_S, find_fault, patience_s
from libs.harvest.types import (
    TIMES,
    Decision,
    Facts,
    HostBudget,
    HostMemory,
    Missing,
    Observation,
    Policy,
    Reason,
    ReasonCode,
    Rung,
    State,
)


def decide(policy: Policy, state: State, observation: Observation, facts: Facts) -> tuple[State, Decision]:
    """Judge one observation: the next state, and all that is to be true now.

    A sample not newer than the newest believed one changes nothing. A sample that cannot be believed, and
    silence for longer than `patience_s`, bring every budget to the floor. A naive time is taken for UTC.
    """
    if facts.now.tzinfo is not UTC:
        facts = replace(facts, now=_aware(facts.now))
    if isinstance(observation, Missing):
        facts = replace(facts, now=max(facts.now, _aware(observation.now)))
        state = _forget_future(state, facts.now)
        return _conclude(policy, _hear_silence(policy, state, facts), facts)
    sample = observation
    if sample.at.tzinfo is not UTC:
        sample = replace(sample, at=_aware(sample.at))
    state = _forget_future(state, facts.now)
    if state.sampled_at is not None and sample.at <= state.sampled_at:
        return _conclude(policy, state, facts)
    state, room = _hear_sample(policy, state, sample, facts)
    return _conclude(policy, state, facts, room)


def _hear_silence(policy: Policy, state: State, facts: Facts) -> State:
    if state.sampled_at is None:
        return hear_nothing(policy, state, facts, Reason(ReasonCode.MISSING, "never"))
    silent_s = (facts.now - state.sampled_at).total_seconds()
    longest_s = patience_s(policy, state.interval_s, facts.interval_s)
    if silent_s <= longest_s:
        return hear_nothing(policy, state, facts, None)
    return hear_nothing(policy, state, facts, Reason(ReasonCode.MISSING, "silence", silent_s, longest_s))


def _hear_sample(policy: Policy, state: State, sample: Sample, facts: Facts) -> tuple[State, Room | None]:
    oldest_s = patience_s(policy, sample.interval_s, facts.interval_s)
    fault = find_fault(sample, facts.now, oldest_s)
    if fault is not None:
        code, what, value = fault
        bound = oldest_s if code is ReasonCode.STALE else None
        return hear_nothing(policy, state, facts, Reason(code, what, value, bound)), None
    if state.sampled_at is not None:
        state = _hear_gap(policy, state, sample.at, facts)
    state, room = hear(policy, state, sample, facts)
    # Of hosts that are not in the sample what is there may be known by no host: that is looked at anew.
    return state, room if len(state.hosts) == len(sample.hosts) else None


def _hear_gap(policy: Policy, state: State, until: datetime, facts: Facts) -> State:
    """The state at `until` when nothing was heard before: only a long gap changes it."""
    assert state.sampled_at is not None
    is_long = (until - state.sampled_at).total_seconds() > patience_s(
        policy, state.interval_s, facts.interval_s
    )
    return _hear_silence(policy, state, replace(facts, now=until)) if is_long else state


def _conclude(policy: Policy, state: State, facts: Facts, room: Room | None = None) -> tuple[State, Decision]:
    """What follows from a state; `room` is what has room under its budgets, if that is known."""
    known = dict(state.hosts)
    fleet = group_by_host(facts.machines, known) if room is None else room.fleet
    held = facts.paused is not None or facts.draining
    hosts = _hold_down(policy, known, fleet) if held else known
    rung = max(
        state.rung, Rung.DRAIN if facts.draining else Rung.NO_NEW if facts.paused is not None else Rung.LEND
    )
    gone = facts.draining or rung is Rung.DESTROY
    wanted = 0 if gone else bound_wanted(policy, facts, state.wanted)
    if room is None or held:
        room = find_room(policy, state, hosts, fleet)
    may_suspend = can_suspend(policy, state.datastore_short)
    unable = () if may_suspend else find_unable(rung, fleet, room)
    crowded = find_crowded(policy, hosts, fleet) if may_suspend and rung < Rung.SUSPEND else ()
    if crowded:
        room = replace(room, powered=room.powered - len(set(crowded) - set(room.uncarried)))
    young = find_young(policy, fleet)
    wanted = wanted if gone else spare_young(wanted, young, unable)
    wanted = min(wanted, room.kept - len(unable)) if unable else wanted
    placements = () if unable else place_missing(rung, state.verdict, wanted, room)
    able = [host for host, memory in hosts.items() if memory.budget_mhz > 0]
    decision = Decision(
        at=facts.now,
        verdict=state.verdict,
        rung=rung,
        budgets=tuple([_to_budget(host, memory) for host, memory in hosts.items()]),
        cap_mhz=sum([memory.budget_mhz for memory in hosts.values()]),
        wanted=wanted,
        running=count_running(rung, state.verdict, wanted, room, len(placements)),
        placements=placements,
        victims=order_victims(
            fleet, able, (*unable, *(one for one in room.stuck if one not in young)), young
        ),
        reason=_name_reason(state, facts),
        steering=state.steering,
        suspend=crowded,
    )
    return state, decision


def _hold_down(policy: Policy, hosts: Mapping[str, HostMemory], fleet: Fleet) -> dict[str, HostMemory]:
    """The hosts with no budget above its floor."""
    held = {}
    for host, memory in hosts.items():
        floor = bounded_floor(policy, floor_mhz(policy, fleet.get(host, ())), memory.capacity_mhz)
        held[host] = memory._replace(budget_mhz=min(memory.budget_mhz, floor))
    return held


def _to_budget(host: str, memory: HostMemory) -> HostBudget:
    owner_mhz = round(memory.trend.last * memory.capacity_mhz, 1)
    return HostBudget(host, memory.budget_mhz, owner_mhz, memory.capacity_mhz)


def _name_reason(state: State, facts: Facts) -> Reason:
    if facts.draining:
        return Reason(ReasonCode.DRAINING)
    if facts.paused is not None:
        return Reason(ReasonCode.PAUSED, facts.paused)
    return state.reason or Reason(ReasonCode.MISSING, "never")


def _forget_future(state: State, now: datetime) -> State:
    """After a clock was set back: times ahead become the present, and the last sample is forgotten."""
    ahead: dict[str, Any] = {}
    latest = _later(now, FUTURE_S)
    for name in TIMES:
        value = getattr(state, name)
        if value is not None and value > latest:
            ahead[name] = None if name == "sampled_at" else now
    return state._replace(**ahead) if ahead else state


def _later(time: datetime, by_s: float) -> datetime:
    try:
        return time + timedelta(seconds=by_s)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _aware(time: datetime) -> datetime:
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        return time.replace(tzinfo=UTC)
