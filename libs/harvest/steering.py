"""How far a cluster's engine goes: one gain on the spread that is kept free, steered on what was measured.

Two bounds of the owner's load run side by side: the engine's own, and a plain one (a moving mean and its deviation)
as a shadow. Each has a gain, which rises while its owners were contended for more of the time than the policy
allows, and falls while for less, by contention and by hard contention apart: the higher one counts. At the same
contention the one that lends more leads. The gain itself is the memory: it moves by what one sample showed, so that
a week of samples says where it stands.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from libs.harvest.types import Policy, Steering, Track

WEEK_S = 604_800.0
_LEAST_GAIN, _MOST_GAIN = 0.5, 3.0
_LEAST_PLAIN_GAIN = 0.4
_PLAIN_SIGMAS = 0.5
"""Deviations of the plain bound at gain 1, per deviation of the policy."""
_LEAST_LED_S = WEEK_S
"""How long both are watched before the other may lead, and again after it does."""
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


def steer(policy: Policy, steering: Steering | None, trials: Sequence[Trial], elapsed_s: float) -> Steering:
    """The steering after a sample of `elapsed_s` on these hosts, on all of which something might have been lent."""
    steering = steering or begin(policy)
    if not trials or elapsed_s <= 0.0:
        return steering
    weight = elapsed_s / min(steering.observed_s + elapsed_s, WEEK_S)
    step = (weight, elapsed_s / WEEK_S)
    own, plain = _measure(policy, trials, plain_leads=steering.plain_leads)
    steered = Steering(
        _follow(policy, steering.own, own, step, _LEAST_GAIN),
        _follow(policy, steering.plain, plain, step, _LEAST_PLAIN_GAIN),
        min(steering.observed_s + elapsed_s, 2.0 * WEEK_S),
        steering.plain_leads,
        steering.led_s + elapsed_s,
    )
    return _choose(policy, steered)


class _Shares(NamedTuple):
    """Of the hosts of one sample: contended, hard, and what was offered and left."""

    contended: float
    hard: float
    lent: float


def _measure(policy: Policy, trials: Sequence[Trial], *, plain_leads: bool) -> tuple[_Shares, _Shares]:
    """What the engine's own and the plain bound did: the one that leads by its budgets, the other by its wishes."""
    above, full = policy.target + _EPSILON, _FULL + _EPSILON
    contended, hard, plain_contended, plain_hard = 0, 0, 0, 0
    for owner, lent, plain_lent, budget in trials:
        given, plain_given = (lent, budget) if plain_leads else (budget, plain_lent)
        if given > 0.0 and owner + given > above:
            contended, hard = contended + 1, hard + (owner + given > full)
        if plain_given > 0.0 and owner + plain_given > above:
            plain_contended, plain_hard = plain_contended + 1, plain_hard + (owner + plain_given > full)
    hosts = len(trials)
    offered = math.fsum([min(trial.lent, 1.0 - trial.owner) for trial in trials])
    plain_offered = math.fsum([min(trial.plain_lent, 1.0 - trial.owner) for trial in trials])
    return (
        _Shares(contended / hosts, hard / hosts, offered / hosts),
        _Shares(plain_contended / hosts, plain_hard / hosts, plain_offered / hosts),
    )


def _follow(
    policy: Policy, track: Track, shares: _Shares, step: tuple[float, float], least_gain: float
) -> Track:
    """One track after a sample that weighs `step` in the means and in the gain."""
    weight, passed = step
    return Track(
        _turn(track.soft_gain, passed * (shares.contended / policy.contention_max - 1.0), least_gain),
        _turn(track.hard_gain, passed * (shares.hard / policy.hard_max - 1.0), least_gain),
        round(track.contended + weight * (shares.contended - track.contended), _DIGITS),
        round(track.hard + weight * (shares.hard - track.hard), _DIGITS),
        round(track.lent + weight * (shares.lent - track.lent), _DIGITS),
    )


def _turn(gain: float, push: float, least_gain: float) -> float:
    return round(min(_MOST_GAIN, max(least_gain, gain * math.exp(min(_FASTEST, push)))), _DIGITS)


def _choose(policy: Policy, steering: Steering) -> Steering:
    """Who leads from the next sample on: a change now might lend more for more load."""
    if steering.led_s < _LEAST_LED_S:
        return steering
    leader, other = steering.own, steering.plain
    if steering.plain_leads:
        leader, other = other, leader
    allowed = other.contended <= policy.contention_max and other.hard <= policy.hard_max
    if allowed and other.lent > _BETTER * leader.lent:
        return replace(steering, plain_leads=not steering.plain_leads, led_s=0.0)
    return steering
