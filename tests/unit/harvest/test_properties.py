"""What holds for every cluster, every history and every nonsense that a cloud may report."""

import json
import math
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.contracts.usage import Exposure, HostState, Quality, Sample
from libs.harvest.budgets import bounded_floor
from libs.harvest.decide import decide
from libs.harvest.fleet import floor_mhz, group_by_host
from libs.harvest.owner import patience_s
from libs.harvest.replay import replay
from libs.harvest.state import from_json, to_json
from libs.harvest.types import (
    Decision,
    Facts,
    MachineFact,
    Missing,
    Observation,
    Policy,
    Rung,
    State,
    Thresholds,
    Window,
)
from libs.harvest.words import explain
from tests.unit.harvest.story import CAPACITY_MHZ, MEMORY_MIB, POLICY, START, budgets, sample

every = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SHARE = st.floats(0.0, 1.0)
HOSTS = "abcd"
DWELL = st.sampled_from([0.0, 20.0, 60.0, 600.0])


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    idle, stop, reclaim = sorted(draw(st.lists(SHARE, min_size=3, max_size=3, unique=True)))
    ladder = replace(
        POLICY.ladder,
        stop_new_after_s=draw(DWELL),
        suspend_after_s=draw(DWELL),
        drain_after_s=draw(DWELL),
        drain_grace_s=draw(DWELL),
        suspend=draw(st.booleans()),
    )
    night = Window(frozenset(range(7)), time(18), time(12, 5))
    return replace(
        POLICY,
        cpu=Thresholds(idle, stop, reclaim),
        memory=draw(st.sampled_from([None, Thresholds(0.5, 0.7, 0.9)])),
        ladder=ladder,
        target=draw(st.floats(0.5, 1.0)),
        margin=draw(st.floats(0.0, 0.2)),
        sigma=draw(st.floats(0.0, 6.0)),
        idle_dwell_s=draw(DWELL),
        busy_dwell_s=draw(DWELL),
        cooldown_s=draw(DWELL),
        max_share=draw(SHARE),
        max_machines=draw(st.integers(0, 12)),
        machines_per_host=draw(st.integers(1, 4)),
        step_machines=draw(st.integers(1, 4)),
        useful_share=draw(st.floats(0.0, 0.3)),
        dead_band=draw(st.floats(0.0, 0.3)),
        rise_s=draw(st.sampled_from([0.0, 40.0, 300.0])),
        windows=draw(st.sampled_from([(), (night,)])),
        release=draw(st.sampled_from(["suspend", "destroy"])),
    )


@st.composite
def machine_sets(draw: st.DrawFn) -> tuple[MachineFact, ...]:
    hosts = draw(st.lists(st.sampled_from([*HOSTS, "z", None]), max_size=6))
    states = st.sampled_from(["running", "starting", "suspended", "draining"])
    sizes = st.sampled_from([None, 2048, 8192, 100_000])
    return tuple(
        MachineFact(f"m{n}", host, draw(states), draw(st.integers(1, 8)), float(n), draw(SHARE), draw(sizes))
        for n, host in enumerate(hosts)
    )


@st.composite
def good_samples(draw: st.DrawFn, at: datetime = START) -> Sample:
    loads = draw(st.lists(st.tuples(SHARE, SHARE, SHARE), min_size=4, max_size=4))
    states = st.sampled_from([*[HostState.CONNECTED] * 6, HostState.MAINTENANCE])
    return sample(
        [owner for owner, _, _ in loads],
        at=at,
        ours=[ours * (1.0 - owner) for owner, ours, _ in loads],
        states=tuple(draw(states) for _ in loads),
        memory_used_mib=tuple(memory * MEMORY_MIB for _, _, memory in loads),
        datastore_capacity_gib=draw(st.sampled_from([None, 1000.0])),
        datastore_free_gib=draw(st.floats(0.0, 1000.0)),
        datastore_uncommitted_gib=draw(st.sampled_from([None, 0.0, 300.0])),
        interval_s=draw(st.sampled_from([20.0, 20.0, 20.0, 300.0])),
        ha_reserve_memory_mib=draw(st.sampled_from([None, None, 0.0, 0.25 * MEMORY_MIB, 1.5 * MEMORY_MIB])),
    )


@st.composite
def histories(draw: st.DrawFn) -> tuple[Policy, State, Facts]:
    """A policy, a state that some good samples and gaps led to, and the facts of the next moment."""
    policy, machines = draw(policies()), draw(machine_sets())
    at, state = START, State()
    for gap_s in draw(st.lists(st.sampled_from([20, 20, 20, 40, 90, 700]), max_size=5)):
        at += timedelta(seconds=gap_s)
        state, _ = decide(policy, state, draw(good_samples(at)), Facts(at, machines))
    granted = draw(st.sampled_from([None, None, 0, 1, 5]))
    now = at + timedelta(seconds=draw(st.sampled_from([20, 20, 55, 300])))
    paused, draining = draw(st.sampled_from([(None, False)] * 4 + [("red", False), (None, True)]))
    return policy, state, Facts(now, machines, granted, paused, draining)


WEIRD = st.one_of(
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -1.0, None, 1e300, 10**400, True]),
    st.floats(),
)
COLUMNS = (
    "cpu_capacity_mhz",
    "cpu_used_mhz",
    "cpu_ours_mhz",
    "cpu_limit_mhz",
    "memory_capacity_mib",
    "memory_used_mib",
    "memory_ours_mib",
    "contention_percent",
)


@st.composite
def observations(draw: st.DrawFn) -> tuple[Observation, datetime]:
    """Anything at all that the types allow, and more."""
    now = START + timedelta(seconds=draw(st.integers(-100_000, 100_000)))
    at = now + timedelta(seconds=draw(st.sampled_from([0, 0, 0, -20, -100, 30, 90, 10**9])))
    if draw(st.integers(0, 4)) == 0:
        return Missing(at), now
    length = draw(st.integers(0, 4))
    columns: dict[str, Any] = {name: tuple(draw(WEIRD) for _ in range(length)) for name in COLUMNS}
    if draw(st.integers(0, 3)) == 0:
        columns[draw(st.sampled_from(COLUMNS))] = ()
    return sample(
        [0.2] * length,
        at=draw(st.sampled_from([at, at.replace(tzinfo=None)])),
        states=tuple(draw(st.sampled_from(HostState)) for _ in range(length)),
        hosts=tuple(draw(st.sampled_from(HOSTS)) for _ in range(length)),
        interval_s=draw(WEIRD),
        quality=draw(st.sampled_from(Quality)),
        datastore_capacity_gib=draw(WEIRD),
        datastore_free_gib=draw(WEIRD),
        datastore_uncommitted_gib=draw(WEIRD),
        ha_reserve_memory_mib=draw(WEIRD),
        **columns,
    ), now


def floors(policy: Policy, facts: Facts, known: Collection[str] = HOSTS) -> dict[str, float]:
    """The floor of every host; the capacity of an unknown one bounds nothing."""
    fleet = group_by_host(facts.machines, HOSTS)
    capacities = {host: CAPACITY_MHZ if host in known else 0.0 for host in (*HOSTS, "z")}
    return {
        host: bounded_floor(policy, floor_mhz(policy, fleet.get(host, ())), capacity)
        for host, capacity in capacities.items()
    }


def at_most(lower: Decision, upper: Decision) -> bool:
    """Whether one decision lends no more than another on any host, and wants and runs no more machines."""
    less, more = budgets(lower), budgets(upper)
    return (
        all(budget <= more.get(host, 0.0) for host, budget in less.items())
        and lower.cap_mhz <= upper.cap_mhz
        and lower.wanted <= upper.wanted
        and lower.rung >= upper.rung
        and len(lower.placements) <= len(upper.placements)
    )


@every
@given(histories(), st.data())
def test_never_above_cap_quota_or_target(history: tuple[Policy, State, Facts], data: st.DataObject) -> None:
    policy, state, facts = history
    heard = data.draw(good_samples(facts.now))
    _, decision = decide(policy, state, heard, facts)
    granted = policy.max_machines if facts.granted_machines is None else facts.granted_machines
    assert 0 <= decision.running <= decision.wanted <= min(policy.max_machines, granted)
    assert len(decision.placements) <= decision.wanted
    assert decision.cap_mhz == sum(budgets(decision).values())
    least = floors(policy, facts)
    for index, host in enumerate(heard.hosts):
        budget = budgets(decision)[host]
        owner = heard.cpu_used_mhz[index] - heard.cpu_ours_mhz[index]
        assert budget <= policy.max_share * CAPACITY_MHZ
        assert budget <= max(least[host], (policy.target - policy.margin) * CAPACITY_MHZ - owner + 1e-6)
        assert heard.states[index] is HostState.CONNECTED or budget == 0


@every
@given(histories(), st.data())
def test_more_owner_load_never_lends_more(history: tuple[Policy, State, Facts], data: st.DataObject) -> None:
    policy, state, facts = history
    light = data.draw(good_samples(facts.now))
    more = [data.draw(SHARE) for _ in light.hosts]
    used = tuple(
        use + share * (CAPACITY_MHZ - use + ours)
        for use, ours, share in zip(light.cpu_used_mhz, light.cpu_ours_mhz, more, strict=True)
    )
    memory = tuple(use + data.draw(SHARE) * (MEMORY_MIB - use) for use in light.memory_used_mib)
    heavy = replace(light, cpu_used_mhz=used, memory_used_mib=memory)
    assert at_most(decide(policy, state, heavy, facts)[1], decide(policy, state, light, facts)[1])


@every
@given(histories(), st.data())
def test_an_impossible_column_never_lends_more_than_a_good_one(
    history: tuple[Policy, State, Facts], data: st.DataObject
) -> None:
    policy, state, facts = history
    good = data.draw(good_samples(facts.now))
    # Capacities that were never seen cannot be weighed: let the engine know the hosts.
    warmed, _ = decide(policy, state, replace(good, at=facts.now - timedelta(seconds=5)), facts)
    column = data.draw(
        st.sampled_from(["cpu_capacity_mhz", "cpu_used_mhz", "cpu_ours_mhz", "memory_used_mib"])
    )
    wrong = data.draw(st.sampled_from([math.nan, math.inf, -math.inf, -1.0, None, 1e12]))
    index = data.draw(st.integers(0, 3))
    values: Any = tuple(wrong if at == index else value for at, value in enumerate(getattr(good, column)))
    changes: dict[str, Any] = {column: values}
    bad = replace(good, **changes)
    _, honest = decide(policy, warmed, good, facts)
    _, disbelieved = decide(policy, warmed, bad, facts)
    assert at_most(disbelieved, honest)


@every
@given(histories(), st.data(), st.sampled_from(Exposure))
def test_machines_that_do_not_give_way_never_get_more(
    history: tuple[Policy, State, Facts], data: st.DataObject, exposure: Exposure
) -> None:
    policy, state, facts = history
    good = data.draw(good_samples(facts.now))
    _, exposed = decide(policy, state, replace(good, exposed=exposure), facts)
    assert at_most(exposed, decide(policy, state, good, facts)[1])
    assert exposed.rung >= Rung.FLOOR
    least = floors(policy, facts)
    assert all(budget <= least[host] for host, budget in budgets(exposed).items())


@every
@given(histories(), st.data())
def test_silence_and_unusable_samples_never_lend_more_than_before(
    history: tuple[Policy, State, Facts], data: st.DataObject
) -> None:
    policy, state, facts = history
    good = data.draw(good_samples(facts.now))
    choices: list[Observation] = [
        Missing(facts.now),
        replace(good, at=facts.now - timedelta(seconds=patience_s(policy, good.interval_s) + 1)),
        replace(good, at=facts.now + timedelta(seconds=61)),
        replace(good, quality=Quality.BACKFILLED),
        replace(good, cpu_used_mhz=(1.0,)),
    ]
    unusable = data.draw(st.sampled_from(choices))
    known = {host: memory.budget_mhz for host, memory in state.hosts}
    before_wanted = state.wanted if state.rung_since else len(facts.machines)
    _, decision = decide(policy, state, unusable, facts)
    least = floors(policy, facts, [host for host, memory in state.hosts if memory.capacity_mhz])
    for host, budget in budgets(decision).items():
        assert budget <= known.get(host, least[host])
    assert decision.wanted <= before_wanted
    silent = state.sampled_at is None or facts.now - state.sampled_at > timedelta(
        seconds=patience_s(policy, state.interval_s)
    )
    impossible = isinstance(unusable, Sample) and unusable.at >= facts.now
    if unusable is not choices[3] and (silent or impossible):
        assert all(budget <= least[host] for host, budget in budgets(decision).items())
        assert decision.placements == ()


GAPS = st.lists(st.sampled_from([5, 20, 55, 80, 300, 5000]), min_size=1, max_size=6)


@every
@given(histories(), GAPS, st.data())
def test_a_permutation_of_gaps_never_raises(
    history: tuple[Policy, State, Facts], gaps: list[int], data: st.DataObject
) -> None:
    policy, state, facts = history
    facts = replace(facts, paused=None, draining=False, granted_machines=None)
    silences = [facts.now + timedelta(seconds=gap) for gap in gaps]
    state, last = decide(policy, state, Missing(facts.now), facts)
    for now in data.draw(st.permutations(silences)):
        state, decision = decide(policy, state, Missing(now), facts)
        assert at_most(decision, last)
        last = decision


@every
@given(policies(), st.permutations([0, 0, 0, 0, 5, 35, 80, 80, 300, 700]), st.data())
def test_whatever_the_gaps_a_busy_owner_is_given_way(
    policy: Policy, gaps: list[int], data: st.DataObject
) -> None:
    policy = replace(policy, cpu=Thresholds(0.2, 0.4, 0.6), release="suspend")
    machines, state, at = data.draw(machine_sets()), State(), START
    rungs: list[int] = []
    for gap_s in 4 * gaps:
        at += timedelta(seconds=20)
        state, decision = decide(policy, state, sample([0.9] * 4, at=at), Facts(at, machines))
        assert decision.cap_mhz <= sum(floors(policy, Facts(at, machines)).values())
        rungs.append(decision.rung)
        at += timedelta(seconds=gap_s)
        state, decision = decide(policy, state, Missing(at), Facts(at, machines))
        rungs.append(decision.rung)
    ladder = policy.ladder
    dwell_s = ladder.stop_new_after_s + ladder.suspend_after_s + ladder.drain_after_s + ladder.drain_grace_s
    # Every rung is left at the first sample or beat after its dwell: it may be late by one gap.
    lately = dwell_s + policy.busy_dwell_s + 5 * 720 <= (at - START).total_seconds()
    assert rungs == sorted(rungs)
    assert rungs[-1] == Rung.DESTROY or not lately


@every
@given(histories(), st.data())
def test_a_state_written_and_read_back_decides_the_same(
    history: tuple[Policy, State, Facts], data: st.DataObject
) -> None:
    policy, state, facts = history
    restored = from_json(json.loads(json.dumps(to_json(state))))
    observation: Observation = data.draw(st.one_of(good_samples(facts.now), st.just(Missing(facts.now))))
    assert restored == state
    assert decide(policy, restored, observation, facts) == decide(policy, state, observation, facts)


@every
@given(histories(), st.data())
def test_the_order_of_hosts_and_machines_does_not_matter(
    history: tuple[Policy, State, Facts], data: st.DataObject
) -> None:
    policy, state, facts = history
    heard = data.draw(good_samples(facts.now))
    order = data.draw(st.permutations(range(4)))
    per_host = ("hosts", "host_names", "states", "machines", *COLUMNS)
    columns: dict[str, Any] = {name: tuple(getattr(heard, name)[at] for at in order) for name in per_host}
    shuffled = replace(heard, **columns)
    mixed = replace(facts, machines=tuple(data.draw(st.permutations(facts.machines))))
    assert decide(policy, state, shuffled, mixed) == decide(policy, state, heard, facts)


@every
@given(policies(), st.lists(observations(), max_size=8), st.data())
def test_nothing_that_is_observed_raises(
    policy: Policy, story: list[tuple[Observation, datetime]], data: st.DataObject
) -> None:
    state = State()
    for observation, now in story:
        facts = Facts(
            now=data.draw(st.sampled_from([now, now.replace(tzinfo=None)])),
            machines=data.draw(machine_sets()),
            granted_machines=data.draw(st.sampled_from([None, -3, 0, 10**30])),
            paused=data.draw(st.sampled_from([None, ""])),
            draining=data.draw(st.booleans()),
        )
        state, decision = decide(policy, state, observation, facts)
        assert math.isfinite(decision.cap_mhz)
        assert all(math.isfinite(budget) and budget >= 0 for budget in budgets(decision).values())
        assert explain(decision, policy)
        assert from_json(json.loads(json.dumps(to_json(state), allow_nan=False))) == state


@every
@given(policies(), st.lists(observations(), max_size=6), machine_sets())
def test_a_replay_repeats_the_decisions(
    policy: Policy, story: list[tuple[Observation, datetime]], machines: tuple[MachineFact, ...]
) -> None:
    told = [(observation, Facts(now, machines)) for observation, now in story]
    live, state = [], State()
    for observation, facts in told:
        state, decision = decide(policy, from_json(to_json(state)), observation, facts)
        live.append(decision)
    assert replay(policy, State(), told) == tuple(live)


@pytest.mark.parametrize("year", [1, 9999])
def test_the_ends_of_the_calendar_do_not_raise(year: int) -> None:
    edge = datetime(year, 1 if year == 1 else 12, 1 if year == 1 else 31, 23 * (year > 1), tzinfo=UTC)
    policy = replace(
        POLICY, windows=(Window(frozenset({0}), time(1), time(2)),), time_zone="Pacific/Auckland"
    )
    state, _ = decide(policy, State(), sample([0.1]), Facts(START))
    for observation in (sample([0.1], at=edge), Missing(edge)):
        decide(policy, state, observation, Facts(START))
        decide(policy, state, observation, Facts(edge))
