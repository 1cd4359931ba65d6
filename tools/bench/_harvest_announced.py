"""What it would be worth to be told: levels that rise by more than 10 points, half of them, a minute before they come.

The engine is not told of events yet; here whoever lends is held down from outside, as somebody who was told would do.
"""

import numpy as np

from libs.harvest.backtest.lender import Lender, Orders
from libs.harvest.backtest.trace import Floats, Load

POINTS, PROBABILITY, AHEAD_S = 0.10, 0.5, 60.0
_TARGET, _SPREAD, _SIGMAS = 0.88, 0.11, 2.0
_BLOCK_S = 300.0


def find_rises(load: Load) -> tuple[Floats, Floats]:
    """The level of each tick, and by how much it stands above that of the tick before."""
    levels = load.levels
    if levels is None:
        ticks = round(_BLOCK_S / load.step_s)
        whole = load.owner.shape[1] // ticks * ticks
        means = load.owner[:, :whole].reshape(load.hosts, -1, ticks).mean(axis=2)
        levels = np.empty_like(load.owner)
        levels[:, :whole] = np.repeat(means, ticks, axis=1)
        levels[:, whole:] = levels[:, whole - 1 : whole]
    return levels, np.diff(levels, axis=1, prepend=levels[:, :1])


class Forewarned:
    """A lender that steps back for what it is told, until the owner's load itself is seen."""

    def __init__(self, lender: Lender, load: Load, seed: int = 7) -> None:
        self.lender, self.crew, self._step_s = lender, lender.crew, load.step_s
        levels, rises = find_rises(load)
        told = (rises > POINTS) & (np.random.default_rng(seed).random(rises.shape) < PROBABILITY)
        caps = np.ones(load.owner.shape, dtype=np.float32)
        for host, tick in zip(*np.nonzero(told), strict=True):
            level = float(levels[host, tick])
            bound = max(0.0, _TARGET - level * (1.0 + _SIGMAS * _SPREAD))
            first = max(0, tick - round(AHEAD_S / load.step_s))
            caps[host, first : tick + 1] = np.minimum(caps[host, first : tick + 1], bound)
        self._caps = np.ascontiguousarray(caps.T)

    def hear(self, at_s: float, interval_s: float, owner: Floats, *, early: bool) -> Orders:
        """The lender's orders, no higher than what was announced leaves."""
        orders = self.lender.hear(at_s, interval_s, owner, early=early)
        caps = self._caps[round(at_s / self._step_s)]
        return Orders(np.minimum(orders.ceilings, caps), orders.running, orders.resident, orders.held)
