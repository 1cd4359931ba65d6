"""The MHz that may be lent on one host: what is left above a safe upper bound of the owner's load.

Down at once, up gently: a rise waits until it is worth a task in someone's vCenter, until the budget has rested
for `rise_s` since its last change, and while the host has had more changes than are allowed on average.
"""

import math
from dataclasses import dataclass, replace

from libs.harvest.owner import HostLoad
from libs.harvest.types import HostMemory, Policy

LEVEL_S = 600.0
"""Memory of the level and of the variance."""
PRIOR_SD = 0.05
"""Spread assumed of a host that was never seen before: what 30-second load has around its 5-minute mean."""
_GRAIN = 0.01
"""Of capacity: budgets are cut in steps of this, so that noise is not a task per sample."""
_CHANGE_S = 310.0
"""What a change of a budget costs of time: with what may be owed it makes at most 12 an hour over a day. A cut is
never refused: what it overdraws, raises wait for."""
_RAISE_OWED_S = 1_800.0
"""How much a raise may leave to be made up for."""
_MOST_OWED_S = 99_999.0
_CUT_AHEAD = 0.03
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
    """False for history: a back-filled sample never raises a limit."""


def learn(known: HostMemory | None, load: HostLoad, elapsed_s: float) -> HostMemory:
    """Take one believable measurement into a host's level and upward variance; the budget stays."""
    if known is None or known.capacity_mhz <= 0:
        budget = known.budget_mhz if known else 0.0
        return HostMemory(_share(load.cpu), PRIOR_SD**2, _ceil_share(load.cpu), budget, _capacity(load))
    weight = 1.0 - math.exp(-max(0.0, elapsed_s) / LEVEL_S)
    # Only what stands above the level is spread (twice, for the missing half): less load never lends less.
    above = max(0.0, load.cpu - known.level)
    return replace(
        known,
        level=_share(known.level + weight * (load.cpu - known.level)),
        variance=round((1.0 - weight) * (known.variance + 2.0 * weight * above * above), _VARIANCE_DIGITS),
        last=_ceil_share(load.cpu),
        capacity_mhz=_capacity(load),
    )


def upper_bound(policy: Policy, memory: HostMemory) -> float:
    """The share of a host that its owner will hardly pass before the next sample."""
    return max(memory.level, memory.last) + policy.sigma * math.sqrt(max(0.0, memory.variance))


def bounded_floor(policy: Policy, floor: float, capacity_mhz: float) -> float:
    """The floor of a host, never above the share that may ever be lent there; capacity 0 is unknown."""
    if policy.max_share <= 0:
        return 0.0
    return min(floor, float(math.floor(policy.max_share * capacity_mhz))) if capacity_mhz > 0 else floor


def offer(policy: Policy, memory: HostMemory) -> float:
    """What the owner leaves of a host in whole MHz; 0 when it is too little to be useful."""
    spare = policy.target - policy.margin - upper_bound(policy, memory)
    share = min(math.floor(spare / _GRAIN) * _GRAIN, policy.max_share)
    return (
        float(math.floor(share * memory.capacity_mhz)) if share > 0 and share >= policy.useful_share else 0.0
    )


def move(policy: Policy, memory: HostMemory, desired: float, floor: float, pace: Pace) -> HostMemory:
    """The host with its budget after this sample; a change begins a rest in which the budget may only fall."""
    rest_s = max(0.0, memory.rest_s - pace.elapsed_s)
    owed_s = max(0.0, memory.owed_s - pace.passed_s)
    rested = replace(memory, rest_s=round(rest_s, 1), owed_s=round(owed_s, 1))
    may_rise = pace.may_rise and rested.rest_s == 0.0 and rested.owed_s + _CHANGE_S <= _RAISE_OWED_S
    budget = _next(policy, rested, desired, floor, may_rise=may_rise)
    return rested if budget == memory.budget_mhz else replace(change(rested, budget), rest_s=policy.rise_s)


def change(memory: HostMemory, budget_mhz: float) -> HostMemory:
    """The host with another budget: every change is a task in someone's vCenter, and counted."""
    if budget_mhz == memory.budget_mhz:
        return memory
    return replace(memory, budget_mhz=budget_mhz, owed_s=min(memory.owed_s + _CHANGE_S, _MOST_OWED_S))


def _next(policy: Policy, memory: HostMemory, desired: float, floor: float, *, may_rise: bool) -> float:
    present = memory.budget_mhz
    if desired < present:
        return max(min(floor, desired), float(math.floor(desired - _CUT_AHEAD * memory.capacity_mhz)))
    if not may_rise:
        return present
    if desired * (1.0 - policy.dead_band) <= present:
        return max(floor, present)
    return max(floor, desired)


def _capacity(load: HostLoad) -> float:
    return round(load.capacity_mhz, 1)


def _share(value: float) -> float:
    return round(value, _SHARE_DIGITS)


def _ceil_share(value: float) -> float:
    """Rounded up: the last measurement is never understated."""
    return min(1.0, math.ceil(value * _SHARE_STEPS) / _SHARE_STEPS)
