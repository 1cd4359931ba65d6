"""What it is worth to others to be told of half of what comes: they step back as the engine does by itself."""

import numpy as np

from libs.harvest.backtest.announced import AHEAD_S, Rise
from libs.harvest.backtest.lender import Lender, Orders
from libs.harvest.backtest.trace import Floats, Load

_TARGET, _SPREAD, _SIGMAS = 0.88, 0.11, 2.0


class Forewarned:
    """A lender that steps back for what it is told, until the owner's load itself is seen."""

    def __init__(self, lender: Lender, load: Load, rises: tuple[Rise, ...]) -> None:
        self.lender, self.crew, self._step_s = lender, lender.crew, load.step_s
        caps = np.ones(load.owner.shape, dtype=np.float32)
        for rise in rises:
            tick = round(rise.begins_s / load.step_s)
            bound = max(0.0, _TARGET - rise.level * (1.0 + _SIGMAS * _SPREAD))
            first = max(0, tick - round(AHEAD_S / load.step_s))
            caps[rise.host, first : tick + 1] = np.minimum(caps[rise.host, first : tick + 1], bound)
        self._caps = np.ascontiguousarray(caps.T)

    def hear(self, at_s: float, interval_s: float, owner: Floats, *, early: bool) -> Orders:
        """The lender's orders, no higher than what was announced leaves."""
        orders = self.lender.hear(at_s, interval_s, owner, early=early)
        caps = self._caps[round(at_s / self._step_s)]
        return Orders(np.minimum(orders.ceilings, caps), orders.running, orders.resident, orders.held)
