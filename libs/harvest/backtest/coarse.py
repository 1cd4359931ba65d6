"""Replay C: five-minute means, workers that boot, checkpoint, suspend and die, and a guard."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from libs.harvest.backtest.figures import SHARED, Figures, Tally
from libs.harvest.backtest.lender import Crew, Lender, Orders
from libs.harvest.backtest.trace import DAY_S, Floats, Ints, Load, count_memory_bound

BOOT_S = 180.0
RESUME_S = 30.0
CHECKPOINT_S = 600.0
_WHOLE = 1e-9


@dataclass(slots=True)
class Workers:
    """Those of every host: what is ready works, what boots or resumes takes its time first."""

    width: Floats
    """Share of a host that one worker can use."""
    resident: Ints
    running: Ints
    since_checkpoint_s: Floats
    """Of work that a worker of the host would lose now."""

    @classmethod
    def none(cls, load: Load, crew: Crew) -> "Workers":
        """No worker anywhere."""
        zeros = np.zeros(load.hosts, dtype=np.int64)
        return cls(crew.vcpus / load.cores, zeros, zeros, np.zeros(load.hosts))

    def obey(self, orders: Orders, tally: Tally, step_s: float, rate: Floats) -> Floats:
        """Deploy, resume, suspend and destroy; the share of this step that each host's workers are not ready.

        `rate` is the share of a host that one of its workers used last: what is destroyed loses that since its
        last checkpoint.
        """
        made = np.maximum(0, orders.resident - self.resident)
        destroyed = np.maximum(0, self.resident - orders.resident)
        resumed = np.maximum(0, orders.running - self.running - made)
        # A suspended worker has kept its work; only those that are destroyed while they run lose it.
        killed = np.minimum(destroyed, np.maximum(0, self.running - orders.running))
        tally.lose(float((killed * rate * self.since_checkpoint_s * tally.cores).sum()) / step_s)
        boots = made * self.width * BOOT_S + resumed * self.width * RESUME_S
        tally.wasted += float((boots * tally.cores).sum()) / step_s
        tally.deploys += int(made.sum())
        self.resident, self.running = orders.resident.copy(), orders.running.copy()
        return np.asarray(boots / step_s)

    def work(self, step_s: float) -> None:
        """Time passes; the next checkpoint is never further than its interval."""
        self.since_checkpoint_s = np.where(
            self.running > 0, (self.since_checkpoint_s + step_s) % CHECKPOINT_S, self.since_checkpoint_s
        )


@dataclass(slots=True)
class Coarse:
    """One replay; `days()` runs it and may be left at any yield."""

    load: Load
    lender: Lender
    guard_s: float = 0.0
    """Seconds into an interval after which its level is seen and ceilings may be cut; 0: no guard."""
    tally: Tally = field(init=False)
    lent: Floats = field(init=False)
    """Share of the cluster lent, by step: for a picture."""
    _rate: Floats = field(init=False)
    _ceilings: Floats = field(init=False)
    _seen: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.tally = Tally(self.load.cores, self.load.step_s)
        self.lent = np.zeros(self.load.owner.shape[1])
        self._rate = np.zeros(self.load.hosts)
        self._ceilings = np.zeros(self.load.hosts)

    def days(self) -> Iterator[float]:
        """Run; yields how many days are done, about once a day."""
        workers = Workers.none(self.load, self.lender.crew)
        per_day = max(1, round(DAY_S / self.load.step_s))
        for step in range(1, self.load.owner.shape[1]):
            self._step(workers, step)
            if step % per_day == 0:
                yield step * self.load.step_s / DAY_S
        yield self.load.days

    def figures(self) -> Figures:
        """Of the days that are done."""
        owner = self.load.owner[:, 1 : 1 + self._seen]
        crew, end = self.lender.crew, 1 + self._seen
        self.tally.memory_bound = count_memory_bound(self.load, 1, end, crew.memory_mib / crew.vcpus)
        oracle = find_oracle(owner, self.load, self.lender.crew)
        return self.tally.figures(oracle)

    def _step(self, workers: Workers, step: int) -> None:
        load, tally, owner = self.load, self.tally, self.load.owner[:, step]
        begin_s, away = load.at_s(step), load.away(step)
        orders = self.lender.hear(begin_s, load.step_s, load.owner[:, step - 1], early=False)
        unready = workers.obey(orders, tally, load.step_s, self._rate)
        before = self._change(orders.ceilings)
        share = min(1.0, self.guard_s / load.step_s)
        parts = [(before, orders.kept_alive(before), 1.0 - share)]
        if share > 0.0:
            early = self.lender.hear(begin_s + self.guard_s, self.guard_s, owner, early=True)
            after = self._change(np.minimum(before, early.ceilings))
            held = np.maximum(orders.kept_alive(after), early.kept_alive(after))
            parts = [(before, parts[0][1], share), (after, held, 1.0 - share)]
        power = workers.running * workers.width
        here = np.ones(load.hosts) if away is None else np.where(away, 0.0, 1.0)
        lent = np.zeros(load.hosts)
        for ceilings, held, weight in parts:
            used = here * np.where(power > 0.0, np.minimum(ceilings, power), 0.0)
            given = np.minimum(used, 1.0 - owner)
            tally.take(owner, used, given, weight)
            tally.hold(owner, here * held, weight)
            lent += weight * given
        # A worker that boots uses its share of what is lent and does nothing with it.
        idle = np.where(power > 0.0, np.minimum(1.0, unready / np.maximum(power, _WHOLE)), 0.0)
        tally.lent -= float((lent * idle * tally.cores).sum())
        tally.spread(owner, 0 if away is None else int(away.sum()))
        workers.work(load.step_s)
        self._rate = np.where(workers.running > 0, lent / np.maximum(1, workers.running), 0.0)
        self.lent[step] = float((lent * load.cores).sum() / load.cores.sum())
        self._seen += 1

    def _change(self, ceilings: Floats) -> Floats:
        self.tally.changes += int((np.abs(ceilings - self._ceilings) > _WHOLE).sum())
        self._ceilings = ceilings
        return ceilings


def find_oracle(owner: Floats, load: Load, crew: Crew) -> float:
    """Core-hours of one who knows the future: whole 2-vCPU workers that never contend, at most as many as fit.

    Each boots once; it is suspended while there is no room, which costs half a minute per return.
    """
    width = 2.0 / load.cores
    most = np.minimum(8, np.floor(load.cores / 2.0))
    fitting = np.floor(np.maximum(0.0, SHARED - owner) / width[:, None] + _WHOLE)
    fitting = np.minimum(fitting, most[:, None])
    returns = np.maximum(0.0, np.diff(fitting, axis=1, prepend=0.0)).sum(axis=1)
    first = fitting.max(axis=1, initial=0.0)
    lost_s = first * BOOT_S + np.maximum(0.0, returns - first) * RESUME_S
    core_s = (fitting.sum(axis=1) * load.step_s - lost_s) * 2.0
    return float(np.maximum(0.0, core_s).sum() / 3600.0)
