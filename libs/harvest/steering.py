"""How far a cluster's engine goes: one gain on the spread that is kept free, steered on what was measured.

Two bounds of the owner's load run side by side: the engine's own, and a plain one (a moving mean and its deviation)
as a shadow. Each has a gain, which rises while its owners were contended for more of the time than the policy
allows, and falls while for less, by contention and by hard contention apart: the higher one counts. At the same
contention the one that lends more leads. The gain itself is the memory: it moves by what one sample showed, so that
some days of samples say where it stands.

What is allowed is meant for a cloud that is looked at once a minute or more often. A surprise lasts until the next
look, so where looks are rarer as many surprises take more time, and as much more is allowed: else the gain would
keep free what no gain can.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from libs.harvest.types import Policy, Steering, Track

WEEK_S = 604_800.0
_TURN_S = 259_200.0
"""How long as much contention as is allowed twice over takes to raise a gain by a factor of e."""
_PROMPT_S = 75.0
"""A longer time to react than this makes as much more contention of the same surprises."""
_LEAST_GAIN, _MOST_GAIN = 0.5, 3.0
_LEAST_PLAIN_GAIN = 0.4
_PLAIN_SIGMAS = 0.5
"""Deviations of the plain bound at gain 1, per deviation of the policy."""
_LEAST_LED_S = WEEK_S
"""How long both are watched before the other may lead, and again after it does."""
_MOST_REACTION_S = 300.0
_BETTER = 1.05
"""How many times as much the other must lend."""
_FASTEST = 0.25
"""By how much the logarithm of a gain may move at one sample."""
_FULL = 1.0
_EPSILON = 1e-6
_DIGITS = 8


class Trial(NamedTuple):
    """What a bound lent, or would have lent, on one host while its owner used `owner` of it."""

    owner: float
    lent: float
    plain_lent: float
    budget: float
    """What really was lent; no more than a floor counts as nothing."""


def begin(policy: Policy) -> Steering:
    """Nothing is known: what the policy allows is taken for what happened, for a day."""
    track = Track(1.0, 1.0, policy.contention_max, policy.hard_max, 0.0)
    return Steering(track, track)


def sigma_of(policy: Policy, steering: Steering | None) -> tuple[float, float]:
    """The deviations that the engine's own and the plain bound keep free."""
    if steering is None or not policy.steered:
        return policy.sigma, _PLAIN_SIGMAS * policy.sigma
    return policy.sigma * steering.own.gain, _PLAIN_SIGMAS * policy.sigma * steering.plain.gain


class Look(NamedTuple):
    """What a sample stands for."""

    elapsed_s: float
    """Since the one before it."""
    reaction_s: float
    """How long a surprise lasts until it is seen."""


def look_after(elapsed_s: float, interval_s: float) -> Look:
    """Of a sample of `interval_s`; where a look amid it came before, that is how soon a surprise is seen."""
    within_s = interval_s - elapsed_s
    return Look(elapsed_s, within_s if 0.0 < within_s < elapsed_s else elapsed_s)


def allowed(policy: Policy, reaction_s: float) -> tuple[float, float]:
    """The shares of host time that may stand above the target and above all of a host."""
    times = max(1.0, min(reaction_s, _MOST_REACTION_S) / _PROMPT_S)
    return policy.contention_max * times, policy.hard_max * times


def steer(policy: Policy, steering: Steering | None, trials: Sequence[Trial], look: Look) -> Steering:
    """The steering after a sample on these hosts, on all of which something might have been lent."""
    steering = steering or begin(policy)
    elapsed_s, limits = look.elapsed_s, allowed(policy, look.reaction_s)
    if not trials or elapsed_s <= 0.0:
        return steering
    weight = elapsed_s / min(steering.observed_s + elapsed_s, WEEK_S)
    step = (weight, elapsed_s / _TURN_S)
    own, plain = _measure(policy, trials, plain_leads=steering.plain_leads)
    steered = Steering(
        _follow(limits, steering.own, own, step, _LEAST_GAIN),
        _follow(limits, steering.plain, plain, step, _LEAST_PLAIN_GAIN),
        min(steering.observed_s + elapsed_s, 2.0 * WEEK_S),
        steering.plain_leads,
        steering.led_s + elapsed_s,
    )
    return _choose(limits, steered)


class _Shares(NamedTuple):
    """Of the hosts of one sample: contended, hard, and what was offered and left."""

    contended: float
    hard: float
    lent: float


def _measure(policy: Policy, trials: Sequence[Trial], *, plain_leads: bool) -> tuple[_Shares, _Shares]:
    """What the engine's own and the plain bound did: the one that leads by its budgets, the other by its wishes."""
    above, full = policy.target + _EPSILON, _FULL + _EPSILON
    contended, hard, plain_contended, plain_hard = 0, 0, 0, 0
    offered: list[float] = []
    plain_offered: list[float] = []
    for owner, lent, plain_lent, budget in trials:
        left = 1.0 - owner
        offered.append(lent if lent < left else left)
        plain_offered.append(plain_lent if plain_lent < left else left)
        given, plain_given = (lent, budget) if plain_leads else (budget, plain_lent)
        if given > 0.0 and owner + given > above:
            contended, hard = contended + 1, hard + (owner + given > full)
        if plain_given > 0.0 and owner + plain_given > above:
            plain_contended, plain_hard = plain_contended + 1, plain_hard + (owner + plain_given > full)
    hosts = len(trials)
    return (
        _Shares(contended / hosts, hard / hosts, math.fsum(offered) / hosts),
        _Shares(plain_contended / hosts, plain_hard / hosts, math.fsum(plain_offered) / hosts),
    )


def _follow(
    limits: tuple[float, float], track: Track, shares: _Shares, step: tuple[float, float], least_gain: float
) -> Track:
    """One track after a sample that weighs `step` in the means and in the gain."""
    (weight, passed), (soft, hard) = step, limits
    return Track(
        _turn(track.soft_gain, passed * (shares.contended / soft - 1.0), least_gain),
        _turn(track.hard_gain, passed * (shares.hard / hard - 1.0), least_gain),
        round(track.contended + weight * (shares.contended - track.contended), _DIGITS),
        round(track.hard + weight * (shares.hard - track.hard), _DIGITS),
        round(track.lent + weight * (shares.lent - track.lent), _DIGITS),
    )


def _turn(gain: float, push: float, least_gain: float) -> float:
    return round(min(_MOST_GAIN, max(least_gain, gain * math.exp(min(_FASTEST, push)))), _DIGITS)


def _choose(limits: tuple[float, float], steering: Steering) -> Steering:
    """Who leads from the next sample on: a change now might lend more for more load."""
    if steering.led_s < _LEAST_LED_S:
        return steering
    leader, other = steering.own, steering.plain
    if steering.plain_leads:
        leader, other = other, leader
    within = other.contended <= limits[0] and other.hard <= limits[1]
    if within and other.lent > _BETTER * leader.lent:
        return replace(steering, plain_leads=not steering.plain_leads, led_s=0.0)
    return steering
