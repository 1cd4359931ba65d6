"""What a replay measured, under names that stay."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from libs.harvest.backtest.trace import Floats

SHARED = 0.90
"""Above this share of a host its owner is contended; fixed, whatever a policy aims at."""
FULL = 1.0
EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Figures:
    """A replay's result; percentages are of host time unless they say otherwise."""

    harvest_percent: float | None
    """Core-hours as % of an oracle that knows the future and deploys whole machines; None in a fine replay."""
    harvest_fluid_percent: float
    """Core-hours as % of all that stood below 90 %."""
    contention_percent: float
    """While something was lent and owner and ceiling together stood above 90 %."""
    hard_percent: float
    """The same above 100 %."""
    floor_contention_percent: float
    """Above 90 % while nothing was lent and machines were only kept alive, at their floor."""
    floor_added_percent: float
    """Of it, where the owner alone stood at 90 % or less: their floor made the difference."""
    over_permille: float
    """Mean of what stood above 90 %, per mille of capacity."""
    deploys_per_host_day: float
    limit_changes_per_host_hour: float
    waste_percent: float
    """Boot time and lost work, % of the harvest."""
    core_hours: float
    oracle_core_hours: float | None
    fluid_core_hours: float
    memory_bound_percent: float | None
    """Where memory would have bounded what CPU alone allowed; None: the trace has no memory."""
    above_90_minutes: float
    """Host-minutes of contention in all."""
    hosts: int
    days: float
    """That were replayed; what was not measured on any host is left out."""

    def as_json(self) -> dict[str, Any]:
        """Rounded to what is worth reading."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()
        }


@dataclass(slots=True)
class Tally:
    """Sums over host-steps, in shares of a host and in host-steps."""

    cores: Floats
    step_s: float
    steps: int = 0
    host_steps: float = 0.0
    """Without those of hosts that were not there."""
    lent: float = 0.0
    fluid: float = 0.0
    contended: float = 0.0
    hard: float = 0.0
    over: float = 0.0
    held: float = 0.0
    held_only: float = 0.0
    changes: int = 0
    deploys: int = 0
    wasted: float = 0.0
    memory_bound: float | None = None

    def take(self, owner: Floats, ceilings: Floats, lent: Floats, weight: float = 1.0) -> None:
        """One or many steps by host: what the owner used, what was allowed, what was lent (shares)."""
        total = np.where(ceilings > 0.0, owner + ceilings, 0.0)
        cores = self.cores if owner.ndim == 1 else self.cores[:, None]
        self.lent += weight * float((lent * cores).sum())
        self.contended += weight * float((total > SHARED + EPSILON).sum())
        self.hard += weight * float((total > FULL + EPSILON).sum())
        self.over += weight * float(np.maximum(0.0, total - SHARED).sum())

    def hold(self, owner: Floats, held: Floats, weight: float = 1.0) -> None:
        """One or many steps by host: what kept machines alive where nothing was lent (shares)."""
        above = (held > 0.0) & (owner + held > SHARED + EPSILON)
        self.held += weight * float(above.sum())
        self.held_only += weight * float((above & (owner <= SHARED + EPSILON)).sum())

    def spread(self, owner: Floats, away: int = 0) -> None:
        """What could have been lent at most on these steps; `away` host-steps of them nobody measured."""
        self.steps += owner.shape[-1] if owner.ndim == 2 else 1
        self.host_steps += owner.size - away
        cores = self.cores if owner.ndim == 1 else self.cores[:, None]
        self.fluid += float((np.maximum(0.0, SHARED - owner) * cores).sum())

    def figures(self, oracle_core_hours: float | None) -> Figures:
        """The sums as figures."""
        hosts, hours = self.cores.size, self.step_s / 3600.0
        time = max(1.0, self.host_steps)
        core_hours = (self.lent - self.wasted_work) * hours
        fluid = self.fluid * hours
        return Figures(
            harvest_percent=None if oracle_core_hours is None else _percent(core_hours, oracle_core_hours),
            harvest_fluid_percent=_percent(core_hours, fluid),
            contention_percent=_percent(self.contended, time),
            hard_percent=_percent(self.hard, time),
            floor_contention_percent=_percent(self.held, time),
            floor_added_percent=_percent(self.held_only, time),
            over_permille=1000.0 * self.over / time,
            deploys_per_host_day=self.deploys * 86_400.0 / (time * self.step_s),
            limit_changes_per_host_hour=self.changes / (time * hours),
            waste_percent=_percent(self.wasted * hours, core_hours),
            core_hours=core_hours,
            oracle_core_hours=oracle_core_hours,
            fluid_core_hours=fluid,
            memory_bound_percent=None if self.memory_bound is None else _percent(self.memory_bound, time),
            above_90_minutes=self.contended * self.step_s / 60.0,
            hosts=hosts,
            days=self.steps * self.step_s / 86_400.0,
        )

    @property
    def wasted_work(self) -> float:
        """Of what is wasted, what had been counted as lent: see `lose`."""
        return self._lost

    _lost: float = 0.0

    def lose(self, core_steps: float) -> None:
        """Work that was done and is lost."""
        self._lost += core_steps
        self.wasted += core_steps


def _percent(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole > 0 else 0.0
