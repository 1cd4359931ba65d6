"""The safe upper bound of an owner's load."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.harvest.budgets import UNKNOWN, Weights, learn, upper_bound
from libs.harvest.owner import HostLoad
from libs.harvest.types import HostMemory, Trend
from tools.bench._harvest_quick import Knobs, Own

STEP_S = 300.0
SHARE = st.floats(0.0, 1.0)


def load(cpu: float) -> HostLoad:
    return HostLoad("a", True, 40_000.0, cpu, 0.0, 0.0, 0.0)


def after(loads: list[float], *, from_hour: int = 0) -> Trend:
    """The trend after samples every five minutes; an hour of the clock begins with each twelfth."""
    memory = HostMemory(UNKNOWN, 0.0)
    for number, cpu in enumerate(loads, start=from_hour * 12):
        weights = Weights.over(STEP_S, turns=number > 0 and number % 12 == 0)
        memory = HostMemory(learn(memory, load(cpu), weights), 0.0, 40_000.0)
    return memory.trend


def test_how_high_it_was_counts_for_an_hour_or_two_and_no_longer() -> None:
    calm = after([0.2] * 48)
    early, late = after([0.2] * 12 + [0.6] + [0.2] * 35), after([0.2] * 30 + [0.6] + [0.2] * 17)
    assert (calm.high, calm.high_before) == (0.2, 0.2)
    assert max(early.high, early.high_before) == 0.2
    assert (late.high, late.high_before) == (0.2, 0.6)
    alike = late._replace(high=0.2, high_before=0.2)
    assert upper_bound(late, 5.0) == pytest.approx(upper_bound(alike, 5.0) + 0.4 * 0.4, abs=0.06)


def test_a_full_host_is_given_a_narrower_spread() -> None:
    low, high = (Trend(at, 0.001, 0.001, at, at, high=at, high_before=at) for at in (0.1, 0.7))
    assert upper_bound(high, 5.0) - 0.7 < 0.6 * (upper_bound(low, 5.0) - 0.1)


@given(st.lists(SHARE, min_size=1, max_size=20), SHARE, SHARE, st.floats(0.0, 60.0), st.booleans())
def test_more_load_never_means_a_lower_bound(
    loads: list[float], one: float, other: float, sigma: float, turns: bool
) -> None:
    known = HostMemory(after(loads), 0.0, 40_000.0)
    weights = Weights.over(STEP_S, turns=turns)
    low, high = (learn(known, load(cpu), weights) for cpu in sorted((one, other)))
    assert upper_bound(low, sigma) <= upper_bound(high, sigma) + 1e-4 * (1.0 + math.sqrt(sigma))


@given(st.lists(st.tuples(SHARE, SHARE), min_size=1, max_size=30), st.floats(0.0, 8.0))
def test_the_bench_s_bound_of_all_hosts_at_once_is_the_engine_s(
    loads: list[tuple[float, float]], sigma: float
) -> None:
    owner = np.array(loads)
    quick = Own(Knobs(), np.array([sigma]), owner[0])
    for now in owner[1:]:
        quick.learn(now, STEP_S)
    engine = [upper_bound(after(list(host)), sigma) for host in owner.T]
    assert quick.above()[0] == pytest.approx(engine, abs=0.02)
