"""Thirty-second owner load around five-minute means, as real machines show it (`make_ticks`)."""

from dataclasses import replace

import numpy as np

from libs.harvest.backtest.trace import BadTrace, Floats, Load, resample

TICK_S = 30.0
MEAN_S = 300.0
_TICKS = 10
_RHO, _TAIL, _CV_MEDIAN, _CV_SIGMA = 0.3, 4.0, 0.11, 0.55
"""Fitted on 3,220 five-minute stretches of machines that were measured every 10 s."""


def make_ticks(load: Load, seed: int) -> Load:
    """Ten ticks per 5-minute interval with the interval's mean, or a finer trace brought to ticks.

    A tick is mean x (1 + cv x z), re-centred, within 0 and 1: z is AR(1) with Student-t innovations, cv is lognormal
    per host and interval. Each host's intervals begin at a tick of its own.
    """
    if load.step_s <= TICK_S:
        return resample(load, TICK_S)
    if load.step_s != MEAN_S:
        raise BadTrace(
            f"a fine replay needs steps of 300 s, or of 30 s and less; these are {load.step_s:g} s"
        )
    chance = np.random.default_rng(seed)
    hosts, steps = load.owner.shape
    starts = chance.integers(0, _TICKS, size=(hosts,))
    spread = _CV_MEDIAN * np.exp(_CV_SIGMA * chance.standard_normal((hosts, steps)))
    noise = _autoregress(chance.standard_t(_TAIL, (hosts, steps * _TICKS)) / np.sqrt(_TAIL / (_TAIL - 2.0)))
    noise = noise.reshape(hosts, steps, _TICKS)
    noise -= noise.mean(axis=2, keepdims=True)
    noise *= spread[:, :, None]
    noise += 1.0
    noise *= load.owner[:, :, None]
    owner = np.clip(noise, 0.0, 1.0).reshape(hosts, steps * _TICKS)
    levels = np.repeat(load.owner, _TICKS, axis=1)
    for host in range(hosts):
        owner[host] = np.roll(owner[host], int(starts[host]))
        levels[host] = np.roll(levels[host], int(starts[host]))
    memory = None if load.memory is None else np.repeat(load.memory, _TICKS, axis=1)
    return replace(load, owner=owner, levels=levels, memory=memory, absent=None, numbers=None, step_s=TICK_S)


def _autoregress(shocks: Floats) -> Floats:
    for tick in range(1, shocks.shape[1]):
        shocks[:, tick] += _RHO * shocks[:, tick - 1]
    return shocks
