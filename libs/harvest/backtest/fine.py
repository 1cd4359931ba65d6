"""Replay F: thirty-second ticks, the ceiling for a tick set on what the tick before it showed."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from libs.harvest.backtest.figures import Figures, Tally
from libs.harvest.backtest.lender import Lender
from libs.harvest.backtest.trace import DAY_S, Floats, Load, count_memory_bound

_SAME = 1e-9


@dataclass(slots=True)
class Fine:
    """One replay over ticks; workers for the whole of every host are there from the start."""

    load: Load
    lender: Lender
    tally: Tally = field(init=False)
    lent: Floats = field(init=False)
    """Share of the cluster lent, by tick: for a picture."""
    _last: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.tally = Tally(self.load.cores, self.load.step_s)
        self.lent = np.zeros(self.load.owner.shape[1])
        self._last = np.zeros((self.load.hosts, 1))

    def days(self) -> Iterator[float]:
        """Run; yields how many days are done, once a day. What stands at a yield is counted."""
        ticks = self.load.owner.shape[1]
        per_day = max(1, round(DAY_S / self.load.step_s))
        for begin in range(1, ticks, per_day):
            end = min(ticks, begin + per_day)
            self._run(begin, end)
            yield (end - 1) * self.load.step_s / DAY_S

    def figures(self) -> Figures:
        """Of the days that are done."""
        crew, end = self.lender.crew, 1 + self.tally.steps
        self.tally.memory_bound = count_memory_bound(self.load, 1, end, crew.memory_mib / crew.vcpus)
        return self.tally.figures(None)

    def _run(self, begin: int, end: int) -> None:
        step_s, rows = self.load.step_s, np.ascontiguousarray(self.load.owner.T)
        crew = self.lender.crew
        most = np.minimum(1.0, crew.vcpus * crew.most / self.load.cores)
        ceilings = np.empty((self.load.hosts, end - begin))
        held = np.zeros_like(ceilings)
        for tick in range(begin, end):
            orders = self.lender.hear(tick * step_s, step_s, rows[tick - 1], early=False)
            ceilings[:, tick - begin] = orders.ceilings
            held[:, tick - begin] = orders.kept_alive(orders.ceilings)
        owner = self.load.owner[:, begin:end]
        ceilings = np.minimum(ceilings, most[:, None])
        lent = np.minimum(ceilings, 1.0 - owner)
        self.tally.take(owner, ceilings, lent)
        self.tally.hold(owner, held)
        self.tally.spread(owner)
        moves = np.diff(np.concatenate([self._last, ceilings], axis=1), axis=1)
        self.tally.changes += int((np.abs(moves) > _SAME).sum())
        self._last = ceilings[:, -1:]
        cores = self.load.cores[:, None]
        self.lent[begin:end] = (lent * cores).sum(axis=0) / self.load.cores.sum()
