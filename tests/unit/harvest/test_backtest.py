"""The replays' arithmetic, on traces small enough to work out by hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from libs.harvest.backtest.coarse import Coarse, find_oracle
from libs.harvest.backtest.fine import Fine
from libs.harvest.backtest.lender import Crew, Orders
from libs.harvest.backtest.placement import place, to_load
from libs.harvest.backtest.run import Actuator, Model, Options, prepare, read_load, replay_of, widen
from libs.harvest.backtest.ticks import make_ticks
from libs.harvest.backtest.trace import BadTrace, Floats, Load, MachinesTrace, hold, resample
from libs.harvest.document import PRESETS, parse

NAN = float("nan")
MACHINE = {"template": "worker", "vcpus": 16, "memory_mib": 32768, "disk_gib": 20.0}


def load(*owners: Sequence[float], step_s: float = 300.0) -> Load:
    return Load(np.array(owners), step_s, np.full(len(owners), 16.0))


class Fixed:
    """Lends the same on every host; with `early`, so much after a fresh level."""

    def __init__(self, ceiling: float, workers: Sequence[int], *, early: float = 1.0) -> None:
        self.crew = Crew(2, 8)
        self.ceiling, self.workers, self.early = ceiling, list(workers), early
        self.heard: list[tuple[float, float, bool]] = []

    def hear(self, at_s: float, interval_s: float, owner: Floats, *, early: bool) -> Orders:
        self.heard.append((at_s, interval_s, early))
        workers = self.workers.pop(0) if len(self.workers) > 1 and not early else self.workers[0]
        count = np.full(owner.size, workers)
        return Orders(np.full(owner.size, self.early if early else self.ceiling), count, count)


def run(replay: Coarse | Fine) -> dict[str, Any]:
    for _ in replay.days():
        pass
    return replay.figures().as_json()


def test_machines_are_placed_where_least_is_left_over() -> None:
    hosts = place(np.array([16, 10, 6, 8]), 1.0, seed=7)
    rooms = [sum(v for v, host in zip((16, 10, 6, 8), hosts, strict=True) if host == n) for n in range(3)]
    assert sorted(rooms) == [8, 16, 16]
    assert place(np.array([4] * 9), 2.0, seed=1).max() == 1


def test_a_machine_that_fits_on_no_host_is_said() -> None:
    with pytest.raises(BadTrace, match="no host has room for 40 vCPUs"):
        place(np.array([40]), 2.0, seed=7)


def test_gaps_up_to_an_hour_are_held_and_longer_ones_are_off() -> None:
    hour, longer = [5.0] + [NAN] * 12 + [1.0], [5.0] + [NAN] * 13
    assert hold(np.array([hour]), 300.0, 0.0)[0].tolist() == [5.0] * 13 + [1.0]
    assert hold(np.array([longer]), 300.0, 0.0)[0].tolist() == [5.0] + [0.0] * 13
    assert hold(np.array([[NAN, 2.0]]), 300.0, 1.0)[0].tolist() == [1.0, 2.0]


def test_the_load_of_a_host_is_the_sum_of_its_machines_and_never_above_all() -> None:
    trace = MachinesTrace(np.array([[20800.0, 41600.0], [10400.0, 41600.0]]), np.array([8, 8]), 300.0)
    assert to_load(trace, 1.0, 7).owner.tolist() == [[0.75, 1.0]]


def test_ticks_keep_the_mean_of_their_interval_and_repeat_with_the_seed() -> None:
    means = load([0.2, 0.4] * 200, [0.3] * 400)
    ticks = make_ticks(means, 7)
    assert ticks.owner.shape == (2, 4000)
    assert ticks.owner.mean(axis=1) == pytest.approx(means.owner.mean(axis=1), abs=1e-3)
    assert 0.02 < ticks.owner[1].std() < 0.08
    assert (make_ticks(means, 7).owner == ticks.owner).all()
    assert (make_ticks(means, 8).owner != ticks.owner).any()


def test_a_fine_trace_is_brought_to_ticks() -> None:
    ten = load([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], step_s=10.0)
    assert make_ticks(ten, 7).owner[0] == pytest.approx([0.2, 0.5])
    assert resample(ten, 20.0).step_s == 20.0


def test_contention_is_host_time_above_ninety_percent_while_something_is_lent() -> None:
    owner = [0.0, 0.0, 0.35, 0.45, 0.8]
    figures = run(Coarse(load(owner), Fixed(0.6, [8])))
    assert figures["contention_percent"] == 75.0
    assert figures["hard_percent"] == 50.0
    assert figures["over_permille"] == pytest.approx(1000 * (0.05 + 0.15 + 0.5) / 4)
    assert run(Coarse(load(owner), Fixed(0.6, [0])))["contention_percent"] == 0.0


def test_a_guard_cuts_what_is_contended_after_its_seconds() -> None:
    lender = Fixed(0.6, [8], early=0.3)
    figures = run(Coarse(load([0.0, 0.5, 0.5]), lender, guard_s=30.0))
    assert figures["contention_percent"] == 10.0
    assert lender.heard[:3] == [(300.0, 300.0, False), (330.0, 30.0, True), (600.0, 300.0, False)]


def test_work_stops_at_what_the_owner_leaves_the_workers_and_the_ceiling() -> None:
    lent = []
    for ceiling, workers in ((0.5, 8), (0.9, 2), (0.9, 8)):
        figures = run(Coarse(load([0.4] * 13), Fixed(ceiling, [workers])))
        booting = 0.6 * min(ceiling, 0.6, workers / 8)
        lent.append((figures["core_hours"] / 16 * 12 + booting) / 12)
    assert lent == pytest.approx([0.5, 0.25, 0.6], abs=1e-4)


def test_a_killed_worker_loses_its_work_since_the_last_checkpoint() -> None:
    # Two intervals of 5 min make a checkpoint: killed after three, one of them is lost.
    after_three = run(Coarse(load([0.0] * 6), Fixed(0.9, [8, 8, 8, 0, 0])))
    after_two = run(Coarse(load([0.0] * 6), Fixed(0.9, [8, 8, 0, 0, 0])))
    assert after_three["core_hours"] == pytest.approx(after_two["core_hours"])
    assert after_three["waste_percent"] > after_two["waste_percent"]
    assert after_three["deploys_per_host_day"] == pytest.approx(8 * 288 / 5)


def test_the_oracle_deploys_whole_machines_and_never_contends() -> None:
    owner = np.array([[0.2, 0.2, 0.95, 0.2]])
    # 5 workers of an eighth fit beside 20 %; each boots once and comes back once.
    expected = 2 * (5 * 3 * 300 - 5 * 180 - 5 * 30) / 3600
    assert find_oracle(owner, load([0.2]), Crew(2, 8)) == pytest.approx(expected)


def test_fluid_is_all_that_stands_below_ninety_percent() -> None:
    figures = run(Fine(load([0.5] * 241, step_s=30.0), Fixed(0.3, [8])))
    assert figures["fluid_core_hours"] == pytest.approx(0.4 * 16 * 2)
    assert figures["harvest_fluid_percent"] == pytest.approx(75.0)
    assert figures["harvest_percent"] is None


def test_one_ceiling_for_a_cluster_is_split_evenly() -> None:
    hot_and_cold = load([0.1] * 10 + [0.8] * 30, [0.1] * 40)
    policy = widen(
        parse({**PRESETS["balanced"], "machine": MACHINE, "rise_s": 0, "idle_dwell_s": 0}), hot_and_cold
    )
    per_host = run(prepare(policy, hot_and_cold, Options(guard_s=0)))
    split = run(prepare(policy, hot_and_cold, Options(guard_s=0, actuator=Actuator.CLUSTER)))
    assert per_host["contention_percent"] == pytest.approx(100 / 78, abs=0.01)  # the step itself
    assert split["contention_percent"] > 30.0


def test_a_replay_with_the_same_seed_repeats() -> None:
    chance = np.random.default_rng(3)
    trace = MachinesTrace(chance.uniform(0, 5000, (20, 300)), np.full(20, 4), 300.0)
    results = []
    for model in (Model.COARSE, Model.FINE):
        options = Options(model=model, days=(0.0, 0.25))
        found = read_load(trace, options)
        policy = widen(parse({**PRESETS["balanced"], "machine": MACHINE}), found)
        first, second = (run(prepare(policy, found, options)) for _ in range(2))
        assert first == second
        results.append(first["harvest_fluid_percent"])
    assert min(results) > 10


def test_days_that_are_not_there_are_refused() -> None:
    with pytest.raises(BadTrace, match=r"days 3 to 4 are not in a trace of 1\.0 days"):
        read_load(load([0.1] * 288), Options(days=(3, 4)))
    with pytest.raises(BadTrace, match="shorter than two intervals"):
        read_load(load([0.1]), Options())


def test_a_replay_left_early_counts_what_was_done() -> None:
    replay = replay_of(Fixed(0.3, [8]), replace(load([0.5] * 600)), Options(guard_s=0))
    assert next(replay.days()) == 1.0
    assert replay.figures().days == pytest.approx(1.0)
