"""Levels that are announced before they come: how a replay tells of what a cloud or a calendar would have told."""

from dataclasses import dataclass

import numpy as np

from libs.harvest.backtest.trace import Floats, Load

POINTS, AHEAD_S = 0.10, 60.0
_BLOCK_S = 300.0


@dataclass(frozen=True, slots=True)
class Rise:
    """A host's owner goes up to another level."""

    host: int
    begins_s: float
    """Seconds from the beginning of the replay."""
    share: float
    """By how much, of the host."""
    level: float
    """To which it rises."""


def announce(load: Load, seed: int, probability: float) -> tuple[Rise, ...]:
    """A part of the rises by more than ten points, by time; each is known `AHEAD_S` before it begins."""
    levels = _find_levels(load)
    rises = np.diff(levels, axis=1, prepend=levels[:, :1])
    told = (rises > POINTS) & (np.random.default_rng(seed).random(rises.shape) < probability)
    hosts, steps = np.nonzero(told)
    order = np.argsort(steps, kind="stable")
    return tuple(
        Rise(int(host), load.at_s(int(step)), float(rises[host, step]), float(levels[host, step]))
        for host, step in zip(hosts[order], steps[order], strict=True)
    )


def _find_levels(load: Load) -> Floats:
    """The mean around which each tick is; of measured ticks that of its five minutes."""
    if load.levels is not None:
        return load.levels
    ticks = max(1, round(_BLOCK_S / load.step_s))
    whole = load.owner.shape[1] // ticks * ticks
    means = load.owner[:, :whole].reshape(load.hosts, -1, ticks).mean(axis=2)
    levels = load.owner.copy()
    levels[:, :whole] = np.repeat(means, ticks, axis=1)
    return levels
