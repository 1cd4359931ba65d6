"""The MHz that may be lent on one host: what is left above a safe upper bound of the owner's load.

Down at once, up gently: a rise waits until the budget has rested for `rise_s` since its last change, until it is
worth a task in someone's vCenter, which is the more the more changes the host has had of late, and while the host
has had more changes than are allowed on average. The constants were fitted on one month of a trace and judged on
another (`docs/harvest.md`).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from libs.harvest.owner import HostLoad
from libs.harvest.types import HostMemory, Policy, Trend

_LEVEL_S = 288.0
_FAST_S = 200.0
_SLOW_S = 1200.0
_PEAK_S = 80.0
"""Memories of the level, of the two spreads and of the peak."""
_FAST_WEIGHT = 0.70
"""Of the fast spread in the sum of both."""
_PEAK_WEIGHT = 0.50
"""How much of what the peak stands above the level counts."""
_HIGH_WEIGHT = 0.08
"""How much of what the last hour or two stood above the present counts, per deviation that is kept free."""
_NARROWING = 0.8
"""How much narrower the spread of a full host is than that of an empty one: above it there is no room to jump."""
_MOST_SPREAD = 1.2
"""Wider, and more load could leave more (below 1 / _NARROWING); nothing is lent long before that."""
_FALL_WEIGHT = 0.8
"""Of the square of a fall beside that of a rise: who falls far may come back as far."""
PRIOR_SD = 0.0325
"""Spread assumed of a host that was never seen before: what 30-second load has around its 5-minute mean."""
UNKNOWN = Trend(1.0, 0.0, 0.0, 1.0, 1.0)
_GRAINS = 100
"""Of capacity: budgets are cut in steps of a hundredth, so that noise is not a task per sample."""
_CHANGE_S = 325.0
"""What a change of a budget costs of time: with what may be owed it makes at most 12 an hour over a day. A cut is
never refused: what it overdraws, raises wait for."""
_RAISE_OWED_S = 7_200.0
"""How much a raise may leave to be made up for: a restless hour may use what quiet ones left."""
_MOST_OWED_S = 99_999.0
_WORTH = 0.20
"""Of capacity: what a raise must bring while the allowance of changes is all but used up."""
_HOLD = 0.011
"""Of capacity: by how little a budget may stand above what is offered before it is cut."""
_CUT_AHEAD = 0.03
"""Of capacity: a cut goes this much deeper than it must, or an owner who rises slowly costs a task per sample."""
_PLAIN_S = 585.0
"""Memory of the plain bound, which runs beside the engine's own."""
_SHARE_STEPS = 100_000
_VARIANCE_STEPS = 10_000_000


@dataclass(frozen=True, slots=True)
class Pace:
    """How a budget may move on this sample."""

    elapsed_s: float
    """Since the sample before; bounded, so that a gap is not taken for observed time."""
    passed_s: float
    """The same without a bound: the allowance of changes is made up for in gaps too."""
    interval_s: float
    """That the sample covers."""
    may_rise: bool
    """False for history and for a fresh look amid an interval: they never raise a limit."""


class Weights(NamedTuple):
    """What a sample weighs in each memory, by the time it stands for."""

    level: float
    fast: float
    slow: float
    peak: float
    plain: float
    turns: bool = False
    """An hour of the clock has begun since the sample before."""

    @classmethod
    @lru_cache(maxsize=256)
    def over(cls, elapsed_s: float, *, turns: bool = False) -> "Weights":
        """Of a sample this long after the one before it. Remembered: all clusters of a round ask for the same."""
        memories_s = (_LEVEL_S, _FAST_S, _SLOW_S, _PEAK_S, _PLAIN_S)
        level, fast, slow, peak, plain = (
            1.0 - math.exp(-max(0.0, elapsed_s) / memory_s) for memory_s in memories_s
        )
        return cls(level, fast, slow, peak, plain, turns)


def learn(known: HostMemory, load: HostLoad, weights: Weights) -> Trend:
    """The trend of a host after one believable measurement."""
    cpu, last = load.cpu, _ceil_share(load.cpu)
    if known.capacity_mhz <= 0:
        level, variance = _share(cpu), PRIOR_SD**2
        return Trend(level, variance, variance, last, last, level, variance, last, last)
    level, fast, slow, peak, before, plain_level, plain_variance, high, high_before = known.trend
    to_level, to_fast, to_slow, to_peak, to_plain, turns = weights
    if turns:
        high, high_before = last, high
    # A fall is learnt one sample late: less load never lends less.
    square = _square(level, before, cpu, _FALL_WEIGHT)
    plain_square = _square(plain_level, before, cpu, 1.0)
    # Rounded as `_share` does: a call for each of them would cost a third of all this.
    level = int((level + to_level * (cpu - level)) * _SHARE_STEPS + 0.5) / _SHARE_STEPS
    peak = int((peak + to_peak * (level - peak)) * _SHARE_STEPS + 0.5) / _SHARE_STEPS
    plain_level = int((plain_level + to_plain * (cpu - plain_level)) * _SHARE_STEPS + 0.5) / _SHARE_STEPS
    fast = (1.0 - to_fast) * (fast + to_fast * square)
    slow = (1.0 - to_slow) * (slow + to_slow * square)
    plain_variance = (1.0 - to_plain) * (plain_variance + to_plain * plain_square)
    return Trend(
        level,
        int(fast * _VARIANCE_STEPS + 0.5) / _VARIANCE_STEPS,
        int(slow * _VARIANCE_STEPS + 0.5) / _VARIANCE_STEPS,
        peak if peak > last else last,
        last,
        plain_level,
        int(plain_variance * _VARIANCE_STEPS + 0.5) / _VARIANCE_STEPS,
        high if high > last else last,
        high_before,
    )


def _square(level: float, last: float, cpu: float, fall_weight: float) -> float:
    """What the load stands above its level, and the load before it stood below, squared."""
    square = (cpu - level) ** 2 if cpu > level else 0.0
    return square + fall_weight * (level - last) ** 2 if last < level else square


def upper_bound(trend: Trend, sigma: float) -> float:
    """The share of a host that its owner will hardly pass before the next sample."""
    level, fast, slow, peak, last, _, _, high, high_before = trend
    present = level if level > last else last
    if peak > present:
        present += _PEAK_WEIGHT * (peak - present)
    highest = high if high > high_before else high_before
    if highest > present:
        weight = _HIGH_WEIGHT * sigma
        present += (weight if weight < 1.0 else 1.0) * (highest - present)
    spread = sigma * math.sqrt(_FAST_WEIGHT * fast + (1.0 - _FAST_WEIGHT) * slow)
    return present + (spread if spread < _MOST_SPREAD else _MOST_SPREAD) * (1.0 - _NARROWING * present)


def plain_bound(trend: Trend, sigma: float) -> float:
    """The same by a moving mean and its deviation alone."""
    level = trend.plain_level
    return (level if level > trend.last else trend.last) + sigma * math.sqrt(trend.plain_variance)


def bounded_floor(policy: Policy, floor: float, capacity_mhz: float) -> float:
    """The floor of a host, never above the share that may ever be lent there; capacity 0 is unknown."""
    if policy.max_share <= 0:
        return 0.0
    return min(floor, float(math.floor(policy.max_share * capacity_mhz))) if capacity_mhz > 0 else floor


def offer(policy: Policy, bound: float) -> float:
    """What an owner who will hardly pass `bound` leaves, as a share; 0 when it is too little to be useful."""
    return useful(policy, math.floor((policy.target - policy.margin - bound) * _GRAINS) / _GRAINS)


def useful(policy: Policy, share: float) -> float:
    """The share or the most that may ever be lent; 0 when it is too little to be useful."""
    most = policy.max_share
    share = share if share < most else most
    return share if share > 0.0 and share >= policy.useful_share else 0.0


def room_beside(policy: Policy, trend: Trend) -> float:
    """What stands beside the owner's last load without passing the target, as a share."""
    return math.floor((policy.target - policy.margin - trend.last) * _SHARE_STEPS) / _SHARE_STEPS


class Aim(NamedTuple):
    """Where a budget is to go, in MHz."""

    desired: float
    floor: float
    room: float
    """What stands beside the owner's last load."""
    capacity: float


class Moved(NamedTuple):
    """A budget after a sample, with its rest and what it owes."""

    budget_mhz: float
    rest_s: float
    owed_s: float


def move(policy: Policy, known: HostMemory, aim: Aim, pace: Pace) -> Moved:
    """The budget after this sample; a change begins a rest in which it may only fall."""
    rest_s, owed_s = _left_s(known.rest_s, pace.elapsed_s), _left_s(known.owed_s, pace.passed_s)
    present, budget = known.budget_mhz, known.budget_mhz
    if aim.desired < present:
        budget = _cut(policy, present, aim, pace)
    elif pace.may_rise and rest_s == 0.0 and owed_s + _CHANGE_S <= _RAISE_OWED_S:
        least = present + _WORTH * aim.capacity * owed_s / _RAISE_OWED_S
        worth = aim.desired * (1.0 - policy.dead_band) > present and aim.desired > least
        budget = max(aim.floor, aim.desired if worth else present)
    if budget == present:
        return Moved(present, rest_s, owed_s)
    return Moved(budget, policy.rise_s, min(owed_s + _CHANGE_S, _MOST_OWED_S))


def change(memory: HostMemory, budget_mhz: float) -> HostMemory:
    """The host with another budget: every change is a task in someone's vCenter, and counted."""
    if budget_mhz == memory.budget_mhz:
        return memory
    owed_s = min(memory.owed_s + _CHANGE_S, _MOST_OWED_S)
    return memory._replace(budget_mhz=budget_mhz, owed_s=owed_s)


def _cut(policy: Policy, present: float, aim: Aim, pace: Pace) -> float:
    """A little deeper than what is desired, or not at all while it is hardly less and the owner has room."""
    desired, floor, room, capacity = aim
    if not pace.may_rise:
        return desired
    if desired > floor and desired >= present - _HOLD * capacity and present <= room:
        return present
    deeper = float(math.floor(desired - _CUT_AHEAD * capacity))
    return max(min(floor, desired), deeper if deeper >= policy.useful_share * capacity else 0.0)


def _left_s(time_s: float, passed_s: float) -> float:
    return round(time_s - passed_s, 1) if time_s > passed_s else 0.0


def _share(value: float) -> float:
    """Rounded for the store; far quicker than `round`."""
    return int(value * _SHARE_STEPS + 0.5) / _SHARE_STEPS


def _ceil_share(value: float) -> float:
    """Rounded up: the last measurement is never understated."""
    return math.ceil(value * _SHARE_STEPS) / _SHARE_STEPS if value < 1.0 else 1.0
