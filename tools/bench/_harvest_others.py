"""How others lend, in the terms of the replays: for comparison only."""

from collections import deque

import numpy as np

from libs.harvest.backtest.lender import Crew, Orders
from libs.harvest.backtest.trace import Floats, Ints, Load

LIMIT = 0.90
WIDTH, MOST = 0.125, 8
_NO_LIMIT = 1.0


def _fit(room: Floats) -> Ints:
    return np.clip(np.floor(room / WIDTH + 1e-9), 0, MOST).astype(np.int64)


class _Counts:
    """Whole workers of 2 vCPU without a ceiling."""

    crew = Crew(2, MOST)

    def __init__(self, load: Load) -> None:
        self.load = load
        self.running = np.zeros(load.hosts, dtype=np.int64)
        self.resident = self.running.copy()

    def orders(self) -> Orders:
        """What stands now."""
        return Orders(np.full(self.running.size, _NO_LIMIT), self.running.copy(), self.resident.copy())


class CloudTides(_Counts):
    """Total use at one sample: below `start` one worker more, above `destroy` all of them destroyed."""

    def __init__(self, load: Load, start: float, destroy: float) -> None:
        super().__init__(load)
        self.start, self.destroy = start, destroy

    def hear(self, at_s: float, interval_s: float, owner: Floats, *, early: bool) -> Orders:
        """No early look: it knows none."""
        if not early:
            total = np.minimum(1.0, owner + self.running * WIDTH)
            more = np.minimum(MOST, self.running + 1)
            self.running = np.where(total > self.destroy, 0, np.where(total < self.start, more, self.running))
            self.resident = self.running
        return self.orders()


class Condor(_Counts):
    """HTCondor's UWCS timers around a block of 8 cores: start 15 min, continue 5 min, preempt 10 min."""

    BLOCK = 4

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self.idle_s = np.zeros(load.hosts)
        self.suspended_s = np.zeros(load.hosts)

    def hear(self, at_s: float, interval_s: float, owner: Floats, *, early: bool) -> Orders:
        """Idle is an owner at 30 % or less."""
        if early:
            return self.orders()
        idle = owner <= 0.3
        self.idle_s = np.where(idle, self.idle_s + interval_s, 0.0)
        here, runs = self.resident > 0, self.running > 0
        self.suspended_s = np.where(here & ~runs, self.suspended_s + interval_s, 0.0)
        resident = np.where(~here & (self.idle_s >= 900.0), self.BLOCK, self.resident)
        resident = np.where(here & (self.suspended_s >= 600.0) & ~idle, 0, resident)
        wakes = (self.idle_s >= 300.0) & (resident > 0)
        self.running = np.where(wakes, resident, np.where(idle, np.minimum(self.running, resident), 0))
        self.resident = resident
        return self.orders()


class Window(_Counts):
    """Whole workers below a figure of the recent past: N sigma over 2 h, or a quantile of 24 h."""

    def __init__(self, load: Load, hours: float, *, sigma: float | None) -> None:
        super().__init__(load)
        self.past: deque[Floats] = deque(maxlen=round(hours * 3600.0 / load.step_s))
        self.sigma = sigma
        self._ordered: Floats | None = None

    def hear(self, at_s: float, interval_s: float, owner: Floats, *, early: bool) -> Orders:
        """Workers that do not fit are suspended; with a quantile, contention counts at once (a safeguard)."""
        if early:
            return self.orders()
        self.past.append(owner)
        past = np.array(self.past)
        if self.sigma is None:
            bound = np.maximum(np.quantile(past, 0.99, axis=0, method="lower"), owner)
        else:
            bound = past.mean(axis=0) + self.sigma * past.std(axis=0)
        self.running = _fit(LIMIT - bound)
        self.resident = np.maximum(self.resident, self.running)
        return self.orders()


class Ewma:
    """A ceiling per host: limit - 2 % - (the higher of level and last, and k sigma), without any rest."""

    crew = Crew(2, MOST)

    def __init__(self, load: Load, sigma: float) -> None:
        self.sigma = sigma
        self.level: Floats | None = None
        self.variance = np.full(load.hosts, 0.05**2)
        self.full = np.full(load.hosts, MOST)
        self.ceilings = np.zeros(load.hosts)

    def hear(self, at_s: float, interval_s: float, owner: Floats, *, early: bool) -> Orders:
        """Weight .05 per sample; an early look cuts what does not fit."""
        if early:
            fits = np.maximum(0.0, LIMIT - 0.02 - owner)
            return Orders(np.minimum(self.ceilings, fits), self.full, self.full)
        if self.level is None:
            self.level = owner
        above = owner - self.level
        self.level = self.level + 0.05 * above
        self.variance = 0.95 * (self.variance + 0.05 * above * above)
        bound = np.maximum(self.level, owner) + self.sigma * np.sqrt(self.variance)
        self.ceilings = np.clip(LIMIT - 0.02 - bound, 0.0, 1.0)
        return Orders(self.ceilings, self.full, self.full)


class LastPlus:
    """A ceiling 5 % below what the last tick left."""

    crew = Crew(2, MOST)

    def __init__(self, load: Load) -> None:
        self.full = np.full(load.hosts, MOST)

    def hear(self, at_s: float, interval_s: float, owner: Floats, *, early: bool) -> Orders:
        """No memory at all."""
        return Orders(np.clip(LIMIT - 0.05 - owner, 0.0, 1.0), self.full, self.full)
