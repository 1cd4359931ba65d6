"""A replay of what was really measured: hosts that come and go, stretches without a sample, machines at their floor."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from libs.harvest.backtest.coarse import Coarse
from libs.harvest.backtest.fine import Fine
from libs.harvest.backtest.lender import Crew, Engine, Orders
from libs.harvest.backtest.run import Options, prepare, widen
from libs.harvest.backtest.trace import Floats, Load, resample
from libs.harvest.document import PRESETS, parse
from libs.harvest.types import Policy

MACHINE = {"template": "worker", "vcpus": 16, "memory_mib": 32768, "disk_gib": 20.0}


def load(*owners: list[float], step_s: float = 300.0) -> Load:
    return Load(np.array(owners), step_s, np.full(len(owners), 16.0))


def run(replay: Coarse | Fine) -> dict[str, Any]:
    for _ in replay.days():
        pass
    return replay.figures().as_json()


def balanced(given: Load) -> Policy:
    rules = {"machine": MACHINE, "rise_s": 0, "idle_dwell_s": 0, "cooldown_s": 0}
    return widen(parse({**PRESETS["balanced"], **rules}), given)


class AtTheFloor:
    """Eight workers on every host that may do nothing, kept alive by a twentieth of it."""

    crew = Crew(2, 8)

    def hear(self, at_s: float, interval_s: float, owner: Floats, *, early: bool) -> Orders:
        count = np.full(owner.size, 8)
        return Orders(np.zeros(owner.size), count, count, held=np.full(owner.size, 0.05))


@pytest.mark.parametrize("kind", [Coarse, Fine])
def test_machines_at_their_floor_are_counted_where_the_host_stands_above_ninety_percent(kind: Any) -> None:
    figures = run(kind(load([0.0, 0.84, 0.86, 0.95, 0.5]), AtTheFloor()))

    assert figures["floor_contention_percent"] == 50.0
    assert figures["floor_added_percent"] == 25.0
    assert figures["contention_percent"] == figures["core_hours"] == 0.0


def test_the_engine_keeps_its_machines_alive_where_it_lends_nothing() -> None:
    given = load([0.2] * 60 + [0.88] * 20)
    figures = run(prepare(balanced(given), given, Options(guard_s=0)))

    # The floor of 16 vCPUs is 3.2 of 41.6 GHz: with it the busy host stands at 95.7 %,
    # until it suspends them.
    assert 2 < figures["floor_contention_percent"] <= 100 * 20 / 79


def test_a_host_that_is_away_is_neither_busy_nor_contended_nor_counted() -> None:
    here = [0.2] * 200
    alone = load(here)
    beside = replace(
        load(here, [0.2] * 100 + [1.0] * 100), absent=np.array([[False] * 200, [False] * 100 + [True] * 100])
    )
    single, both = (run(prepare(balanced(one), one, Options())) for one in (alone, beside))

    assert both["contention_percent"] == 0.0
    assert both["fluid_core_hours"] == pytest.approx(0.7 * 16 * (199 + 99) / 12, rel=1e-3)
    assert both["harvest_fluid_percent"] == pytest.approx(single["harvest_fluid_percent"], abs=3)
    counted = replace(beside, absent=None)
    assert run(prepare(balanced(counted), counted, Options()))["contention_percent"] > 0


def test_time_that_nobody_measured_is_left_out_and_known_to_have_passed() -> None:
    given = replace(load([0.2] * 200), numbers=np.concatenate([np.arange(100), np.arange(400, 500)]))
    lender = Engine(balanced(given), given, resident=False)
    replay = Coarse(given, lender)
    figures = run(replay)

    assert figures["days"] == pytest.approx(199 / 288, abs=1e-3)
    assert lender.state.sampled_at is not None
    assert (lender.state.sampled_at - given.begins).total_seconds() == 499 * 300
    assert replay.lent[99] > 0.5
    assert replay.lent[-1] > 0.5


def test_memory_that_is_known_bounds_the_machines() -> None:
    full = replace(load([0.2] * 100), memory=np.full((1, 100), 0.85), memory_mib=65536.0)
    assert run(prepare(balanced(full), full, Options()))["core_hours"] > 50
    known = replace(full, memory_binds=True)
    assert run(prepare(balanced(known), known, Options()))["core_hours"] == 0.0


def test_a_part_of_a_load_keeps_what_is_known_of_it() -> None:
    absent = np.array([[False] * 6 + [True] * 6])
    given = replace(load([0.5] * 12, step_s=60.0), absent=absent)
    part = given.between(1 / 288, 3 / 288)
    assert (part.begins - given.begins).total_seconds() == 300
    assert part.absent is not None
    assert part.absent.tolist() == [[False] + [True] * 6]
    longer = resample(given, 120.0)
    assert longer.absent is not None
    assert longer.absent.tolist() == [[False] * 3 + [True] * 3]
