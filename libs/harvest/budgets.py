"""The MHz that may be lent on one host: what is left above a safe upper bound of the owner's load.

Down at once, up gently: a rise waits until the budget has rested for `rise_s` since its last change, until it is
worth a task in someone's vCenter, which is the more the more changes the host has had of late, and while the host
has had more changes than are allowed on average. The constants were fitted on one month of a trace and judged on
another (`docs/harvest.md`).
"""

import math
from dataclasses import dataclass, replace

from libs.harvest.owner import HostLoad
from libs.harvest.types import HostMemory, Policy, Trend

_LEVEL_S = 288.0
_FAST_S = 200.0
_SLOW_S = 2100.0
_PEAK_S = 80.0
"""Memories of the level, of the two spreads and of the peak."""
_FAST_WEIGHT = 0.70
"""Of the fast spread in the sum of both."""
_PEAK_WEIGHT = 0.50
"""How much of what the peak stands above the level counts."""
_FALL_WEIGHT = 1.1
"""Of the square of a fall beside that of a rise: who falls far may come back as far."""
PRIOR_SD = 0.0325
"""Spread assumed of a host that was never seen before: what 30-second load has around its 5-minute mean."""
UNKNOWN = Trend(1.0, 0.0, 0.0, 1.0, 1.0)
_GRAIN = 0.01
"""Of capacity: budgets are cut in steps of this, so that noise is not a task per sample."""
_CHANGE_S = 310.0
"""What a change of a budget costs of time: with what may be owed it makes at most 12 an hour over a day. A cut is
never refused: what it overdraws, raises wait for."""
_RAISE_OWED_S = 1_800.0
"""How much a raise may leave to be made up for."""
_MOST_OWED_S = 99_999.0
_WORTH = 0.15
"""Of capacity: what a raise must bring while the allowance of changes is all but used up."""
_HOLD = 0.011
"""Of capacity: by how little a budget may stand above what is offered before it is cut."""
_CUT_AHEAD = 0.015
"""Of capacity: a cut goes this much deeper than it must, or an owner who rises slowly costs a task per sample."""
_SHARE_DIGITS = 5
_SHARE_STEPS = 100_000
_VARIANCE_DIGITS = 7


@dataclass(frozen=True, slots=True)
class Pace:
    """How a budget may move on this sample."""

    elapsed_s: float
    """Since the sample before; bounded, so that a gap is not taken for observed time."""
    passed_s: float
    """The same without a bound: the allowance of changes is made up for in gaps too."""
    may_rise: bool
    """False for history and for a fresh look amid an interval: they never raise a limit."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What a sample weighs in each memory, by the time it stands for."""

    level: float
    fast: float
    slow: float
    peak: float

    @classmethod
    def over(cls, elapsed_s: float) -> "Weights":
        """Of a sample this long after the one before it."""
        memories_s = (_LEVEL_S, _FAST_S, _SLOW_S, _PEAK_S)
        return cls(*(1.0 - math.exp(-max(0.0, elapsed_s) / memory_s) for memory_s in memories_s))


def learn(known: HostMemory | None, load: HostLoad, weights: Weights) -> Trend:
    """The trend of a host after one believable measurement."""
    last = _ceil_share(load.cpu)
    if known is None or known.capacity_mhz <= 0:
        return Trend(_share(load.cpu), PRIOR_SD**2, PRIOR_SD**2, last, last)
    old = known.trend
    # A fall is learnt one sample late: less load never lends less.
    fall, rise = max(0.0, old.level - old.last), max(0.0, load.cpu - old.level)
    square = rise * rise + _FALL_WEIGHT * fall * fall
    level = _share(old.level + weights.level * (load.cpu - old.level))
    return Trend(
        level,
        round((1.0 - weights.fast) * (old.fast + weights.fast * square), _VARIANCE_DIGITS),
        round((1.0 - weights.slow) * (old.slow + weights.slow * square), _VARIANCE_DIGITS),
        max(last, _share(old.peak + weights.peak * (level - old.peak))),
        last,
    )


def upper_bound(policy: Policy, trend: Trend) -> float:
    """The share of a host that its owner will hardly pass before the next sample."""
    present = max(trend.level, trend.last)
    lately = present + _PEAK_WEIGHT * max(0.0, trend.peak - present)
    variance = _FAST_WEIGHT * trend.fast + (1.0 - _FAST_WEIGHT) * trend.slow
    return lately + policy.sigma * math.sqrt(max(0.0, variance))


def bounded_floor(policy: Policy, floor: float, capacity_mhz: float) -> float:
    """The floor of a host, never above the share that may ever be lent there; capacity 0 is unknown."""
    if policy.max_share <= 0:
        return 0.0
    return min(floor, float(math.floor(policy.max_share * capacity_mhz))) if capacity_mhz > 0 else floor


def offer(policy: Policy, memory: HostMemory) -> float:
    """What the owner leaves of a host in whole MHz; 0 when it is too little to be useful."""
    spare = policy.target - policy.margin - upper_bound(policy, memory.trend)
    return _useful(policy, memory, math.floor(spare / _GRAIN) * _GRAIN)


def fit(policy: Policy, memory: HostMemory) -> float:
    """What stands beside the owner's last load without passing the target, in whole MHz; 0 when it is too little."""
    return _useful(policy, memory, policy.target - policy.margin - memory.trend.last)


def move(policy: Policy, memory: HostMemory, desired: float, floor: float, pace: Pace) -> HostMemory:
    """The host with its budget after this sample; a change begins a rest in which the budget may only fall."""
    rest_s = round(max(0.0, memory.rest_s - pace.elapsed_s), 1)
    owed_s = round(max(0.0, memory.owed_s - pace.passed_s), 1)
    present, budget = memory.budget_mhz, memory.budget_mhz
    if desired < present:
        budget = _cut(policy, memory, desired, floor, pace)
    elif pace.may_rise and rest_s == 0.0 and owed_s + _CHANGE_S <= _RAISE_OWED_S:
        least = present + _WORTH * memory.capacity_mhz * owed_s / _RAISE_OWED_S
        budget = desired if desired * (1.0 - policy.dead_band) > present and desired > least else present
        budget = max(floor, budget)
    if budget != present:
        rest_s, owed_s = policy.rise_s, min(owed_s + _CHANGE_S, _MOST_OWED_S)
    return HostMemory(memory.trend, budget, memory.capacity_mhz, memory.spare_mib, rest_s, owed_s)


def change(memory: HostMemory, budget_mhz: float) -> HostMemory:
    """The host with another budget: every change is a task in someone's vCenter, and counted."""
    if budget_mhz == memory.budget_mhz:
        return memory
    return replace(memory, budget_mhz=budget_mhz, owed_s=min(memory.owed_s + _CHANGE_S, _MOST_OWED_S))


def _cut(policy: Policy, memory: HostMemory, desired: float, floor: float, pace: Pace) -> float:
    """A little deeper than what is desired, or not at all while it is hardly less and the owner has room."""
    present, capacity = memory.budget_mhz, memory.capacity_mhz
    if not pace.may_rise:
        return desired
    if desired > floor and desired >= present - _HOLD * capacity and present <= fit(policy, memory):
        return present
    deeper = float(math.floor(desired - _CUT_AHEAD * capacity))
    return max(min(floor, desired), deeper if deeper >= policy.useful_share * capacity else 0.0)


def _useful(policy: Policy, memory: HostMemory, share: float) -> float:
    share = min(share, policy.max_share)
    return (
        float(math.floor(share * memory.capacity_mhz)) if share > 0 and share >= policy.useful_share else 0.0
    )


def _share(value: float) -> float:
    return round(value, _SHARE_DIGITS)


def _ceil_share(value: float) -> float:
    """Rounded up: the last measurement is never understated."""
    return min(1.0, math.ceil(value * _SHARE_STEPS) / _SHARE_STEPS)
