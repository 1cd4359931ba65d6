"""The engine's controller of budgets alone, all hosts and several spreads at once: for frontiers and ablation.

No machines, no ladder, no steering: `sigma` is constant. What it lends stands within half a point of what `decide`
lends under the same constants, a hundred times as fast; nothing but a bench may go by it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from libs.harvest import budgets
from libs.harvest.backtest.trace import Floats, Load
from libs.harvest.document import PRESETS

_PRESET = PRESETS["balanced"]
TARGET, FULL, RECLAIM = _PRESET["target"], 1.0, _PRESET["cpu"]["reclaim"]
_EPSILON = 1e-6
_FLOOR = 200.0 / 2600.0
"""Of a host, by which one machine as wide as it is kept alive: counts as nothing lent."""


@dataclass(frozen=True, slots=True)
class Knobs:
    """The constants of the engine's bound and of its moves, each of which may be turned off."""

    level_s: float = budgets._LEVEL_S
    fast_s: float = budgets._FAST_S
    slow_s: float = budgets._SLOW_S
    peak_s: float = budgets._PEAK_S
    fast_weight: float = budgets._FAST_WEIGHT
    peak_weight: float = budgets._PEAK_WEIGHT
    fall_weight: float = budgets._FALL_WEIGHT
    high_weight: float = budgets._HIGH_WEIGHT
    narrowing: float = budgets._NARROWING
    margin: float = _PRESET["margin"]
    useful: float = _PRESET["useful_share"]
    dead_band: float = _PRESET["dead_band"]
    rise_s: float = _PRESET["rise_s"]
    hold: float = budgets._HOLD
    deeper: float = budgets._CUT_AHEAD
    worth: float = budgets._WORTH
    change_s: float = budgets._CHANGE_S
    owed_s: float = budgets._RAISE_OWED_S
    whole_looks: bool = False
    """A look amid an interval cuts to the bound, as a whole sample does."""


UNLIMITED = Knobs(change_s=0.0, rise_s=0.0, worth=0.0, dead_band=0.0, hold=0.0, deeper=0.0)
"""Without an allowance of changes."""


class Bound(Protocol):
    """What owners will hardly pass, by spread (rows) and host (columns)."""

    last: Floats

    def learn(self, load: Floats, elapsed_s: float) -> None:
        """One sample of every host."""
        ...

    def above(self) -> Floats:
        """The bound now."""
        ...


class Own:
    """`libs.harvest.budgets.learn` and `upper_bound`."""

    def __init__(self, knobs: Knobs, sigmas: Floats, first: Floats) -> None:
        self.knobs, self.sigmas = knobs, sigmas[:, None]
        self.level, self.peak, self.last, self.high, self.high_before = (first.copy() for _ in range(5))
        self.fast = self.slow = np.full(first.size, budgets.PRIOR_SD**2)
        self.passed_s = 0.0

    def learn(self, load: Floats, elapsed_s: float) -> None:
        """A fall is learnt one sample late."""
        k = self.knobs
        level, fast, slow, peak = (
            1.0 - np.exp(-elapsed_s / memory_s) for memory_s in (k.level_s, k.fast_s, k.slow_s, k.peak_s)
        )
        rise, fall = np.maximum(0.0, load - self.level), np.maximum(0.0, self.level - self.last)
        square = rise * rise + k.fall_weight * fall * fall
        self.level = self.level + level * (load - self.level)
        self.peak = np.maximum(load, self.peak + peak * (self.level - self.peak))
        self.fast = (1.0 - fast) * (self.fast + fast * square)
        self.slow = (1.0 - slow) * (self.slow + slow * square)
        hour, self.passed_s = self.passed_s // 3600.0, self.passed_s + elapsed_s
        if self.passed_s // 3600.0 != hour:
            self.high, self.high_before = load, self.high
        self.high, self.last = np.maximum(self.high, load), load

    def above(self) -> Floats:
        """Level, peak, the high of an hour or two, and two spreads."""
        k = self.knobs
        present = np.maximum(self.level, self.last)
        present = present + k.peak_weight * np.maximum(0.0, self.peak - present)
        spread = self.sigmas * np.sqrt(k.fast_weight * self.fast + (1.0 - k.fast_weight) * self.slow)
        highest = np.maximum(0.0, np.maximum(self.high, self.high_before) - present)
        present = present + np.minimum(1.0, k.high_weight * self.sigmas) * highest
        return np.asarray(present + np.minimum(spread, budgets._MOST_SPREAD) * (1.0 - k.narrowing * present))


class Plain:
    """The baseline's: a moving mean or the last sample, and deviations above it."""

    def __init__(self, knobs: Knobs, sigmas: Floats, first: Floats) -> None:
        self.sigmas, self.level, self.last = sigmas[:, None], first.copy(), first.copy()
        self.variance = np.full(first.size, 0.05**2)

    def learn(self, load: Floats, elapsed_s: float) -> None:
        """Weight .05 per sample."""
        above = load - self.level
        self.level = self.level + 0.05 * above
        self.variance = 0.95 * (self.variance + 0.05 * above * above)
        self.last = load

    def above(self) -> Floats:
        """Its margin is 2 %, the engine's 1 %."""
        return np.asarray(np.maximum(self.level, self.last) + self.sigmas * np.sqrt(self.variance) + 0.01)


class Controller:
    """Budgets that follow a bound as `libs.harvest.budgets.move` lets them."""

    def __init__(self, knobs: Knobs, bound: Bound, shape: tuple[int, int]) -> None:
        self.knobs, self.bound = knobs, bound
        self.budget, self.rest, self.owed = np.zeros(shape), np.zeros(shape), np.zeros(shape)

    def hear(self, load: Floats, elapsed_s: float, *, early: bool = False) -> Floats:
        """What may be lent after a sample; `early`: a look amid an interval, which only takes what must go."""
        k = self.knobs
        self.bound.learn(load, elapsed_s)
        room = TARGET - k.margin - self.bound.last
        if early and not k.whole_looks:
            offered = np.broadcast_to(room, self.budget.shape)
        else:
            offered = np.floor((TARGET - k.margin - self.bound.above()) * 100.0 + _EPSILON) / 100.0
        offered = np.where(offered >= max(k.useful, _EPSILON), np.minimum(offered, 1.0), 0.0)
        desired = np.where(load >= RECLAIM, _FLOOR, np.maximum(_FLOOR, offered))
        self._move(desired, room, elapsed_s, early=early)
        return np.where(self.budget > _FLOOR, self.budget, 0.0)

    def _move(self, desired: Floats, room: Floats, elapsed_s: float, *, early: bool) -> None:
        k, budget = self.knobs, self.budget
        rest, owed = np.maximum(0.0, self.rest - elapsed_s), np.maximum(0.0, self.owed - elapsed_s)
        if early:
            moved_to = np.minimum(budget, desired)
        else:
            deeper = desired - k.deeper
            cut = np.where(deeper >= k.useful, np.maximum(_FLOOR, deeper), np.minimum(_FLOOR, desired))
            held = (desired > _FLOOR) & (desired >= budget - k.hold) & (budget <= room)
            free = (rest <= 0.0) & (owed + k.change_s <= k.owed_s)
            worth = desired > budget + k.worth * owed / k.owed_s
            rises = free & worth & (desired * (1.0 - k.dead_band) > budget)
            moved_to = np.where(
                desired < budget, np.where(held, budget, cut), np.where(rises, desired, budget)
            )
        moved = moved_to != budget
        self.budget, self.rest = moved_to, np.where(moved, k.rise_s, rest)
        self.owed = np.where(moved, owed + k.change_s, owed)


@dataclass(frozen=True, slots=True)
class Curve:
    """What came of each spread, of which a larger one lends less: percent, per mille, per host-hour."""

    sigmas: Floats
    fluid: Floats
    contention: Floats
    hard: Floats
    over: Floats
    changes: Floats

    def at(self, harm: Floats, allowed: float, told: Floats) -> float:
        """Of `told`, what it is where `harm` is as allowed: between two spreads by the logarithm of the harm."""
        order = np.argsort(harm)
        if not harm[order[0]] <= allowed <= harm[order[-1]]:
            return float("nan")
        known = np.log(np.maximum(harm[order], 1e-9))
        return float(np.interp(np.log(allowed), known, told[order]))

    def within(self, contention: float, hard: float) -> float:
        """Fluid where neither is more than this."""
        return min(self.at(self.contention, contention, self.fluid), self.at(self.hard, hard, self.fluid))


Maker = Callable[[Floats, Floats], Controller]
"""A controller of these spreads, begun with a first sample of every host."""


def own(knobs: Knobs) -> Maker:
    """The engine's."""
    return lambda sigmas, first: Controller(knobs, Own(knobs, sigmas, first), (sigmas.size, first.size))


def plain(knobs: Knobs) -> Maker:
    """The plain bound under the engine's moves."""
    return lambda sigmas, first: Controller(knobs, Plain(knobs, sigmas, first), (sigmas.size, first.size))


def replay(load: Load, make: Maker, sigmas: list[float], guard_s: float) -> Curve:
    """A load under a constant spread, for each: five-minute means with a guard, or any steps without one (0)."""
    owner, step_s, spreads = np.ascontiguousarray(load.owner.T), load.step_s, np.array(sigmas)
    control, sums, share = make(spreads, owner[0]), Sums(spreads.size), guard_s / step_s
    before = np.zeros((spreads.size, load.hosts))
    for step in range(1, owner.shape[0]):
        now = owner[step]
        lent = control.hear(owner[step - 1], step_s - guard_s)
        sums.change(before, lent)
        before = lent
        if guard_s:
            sums.take(now, lent, share)
            before = np.minimum(lent, control.hear(now, guard_s, early=True))
            sums.change(lent, before)
        sums.take(now, before, 1.0 - share)
    return sums.curve(load, spreads)


class Sums:
    """Over hosts and steps, by spread."""

    def __init__(self, spreads: int) -> None:
        self.lent, self.contended, self.hard, self.over, self.changes = (np.zeros(spreads) for _ in range(5))

    def take(self, owner: Floats, lent: Floats, weight: float) -> None:
        """One step, or a part of one."""
        total = np.where(lent > 0.0, owner + lent, 0.0)
        self.lent += weight * np.minimum(lent, 1.0 - owner).sum(axis=1)
        self.contended += weight * (total > TARGET + _EPSILON).sum(axis=1)
        self.hard += weight * (total > FULL + _EPSILON).sum(axis=1)
        self.over += weight * np.maximum(0.0, total - TARGET).sum(axis=1)

    def change(self, before: Floats, lent: Floats) -> None:
        """Limits that are another now."""
        self.changes += (np.abs(lent - before) > _EPSILON).sum(axis=1)

    def curve(self, load: Load, spreads: Floats) -> Curve:
        """Shares of what there was."""
        fluid = np.maximum(0.0, TARGET - load.owner[:, 1:]).sum()
        time = load.hosts * (load.owner.shape[1] - 1)
        return Curve(
            spreads,
            100.0 * self.lent / fluid,
            100.0 * self.contended / time,
            100.0 * self.hard / time,
            1000.0 * self.over / time,
            self.changes / (time * load.step_s / 3600.0),
        )
