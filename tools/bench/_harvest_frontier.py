"""Where the engine's bound stands between harvest and harm under a constant spread, and what each idea is worth."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from libs.harvest.backtest.trace import Load
from tools.bench._harvest_cells import Table, Traces
from tools.bench._harvest_quick import UNLIMITED, Curve, Knobs, own, plain, replay

SIGMAS = [2.0, 3.0, 4.0, 5.0, 6.0, 7.5, 10.0, 14.0]
IDEAS: Mapping[str, Knobs] = {
    "the engine": Knobs(),
    "no look at the high of an hour or two": Knobs(high_weight=0.0),
    "as wide on full hosts as on empty ones": Knobs(narrowing=0.0),
    "neither": Knobs(high_weight=0.0, narrowing=0.0),
    "one spread of 20 min in place of two": Knobs(fast_weight=0.0),
    "falls not learnt": Knobs(fall_weight=0.0),
    "no peak": Knobs(peak_weight=0.0),
    "a fresh look cuts like a whole sample": Knobs(whole_looks=True),
    "nothing too little to be useful": Knobs(useful=0.0),
    "changes are saved up for half an hour": Knobs(change_s=310.0, owed_s=1_800.0),
    "a raise need not be worth more after many changes": Knobs(worth=0.0),
    "no hold, no deeper cut": Knobs(hold=0.0, deeper=0.0),
    "margin 4 % in place of 1 %": Knobs(margin=0.04),
    "no limit of changes at all": UNLIMITED,
    "before decision 0048": Knobs(
        high_weight=0.0, narrowing=0.0, slow_s=2_100.0, fall_weight=1.1,
        change_s=310.0, owed_s=1_800.0, worth=0.15, deeper=0.015,
    ),
}  # fmt: skip


def tables(traces: Traces, month: str, overcommits: list[float]) -> Iterator[str]:
    """Lines of all tables."""
    for overcommit in overcommits:
        coarse = traces.load(Table("coarse", month, overcommit, 31.0))
        for guard_s in (30.0, 0.0):
            yield from _frontier(f"C, {month}, r = {overcommit:g}, guard {guard_s:g} s", coarse, guard_s)
    yield from _moves(traces.load(Table("machines", "", 1.0, 0.0)))
    yield from _ideas(traces, month)


def _frontier(title: str, load: Load, guard_s: float) -> Iterator[str]:
    curve = replay(load, own(Knobs()), SIGMAS, guard_s)
    yield f"\n{title}\n{'sigma':>12}" + "".join(f"{sigma:8.3g}" for sigma in SIGMAS)
    for name in ("fluid", "contention", "hard", "over", "changes"):
        digits = 1 if name in ("fluid", "changes") else 3
        yield f"{name:>12}" + "".join(f"{value:8.{digits}f}" for value in getattr(curve, name))
    for allowed in (0.10, 0.13) if guard_s else (0.45,):
        yield f"  at {allowed:.2f} %: {_told(curve, allowed)}"


def _told(curve: Curve, allowed: float) -> str:
    fluid = curve.at(curve.contention, allowed, curve.fluid)
    hard = curve.at(curve.contention, allowed, curve.hard)
    return f"fluid {fluid:.1f}, hard {hard:.3f}"


def _moves(load: Load) -> Iterator[str]:
    """The engine beside the plain bound on 10-second data, each with and without the allowance of changes."""
    free = replace(UNLIMITED, useful=0.0)
    rivals = {
        "EWMA + k sigma, no limit of changes": plain(free),
        "EWMA + k sigma, the engine's allowance": plain(Knobs()),
        "the engine": own(Knobs()),
        "the engine, no limit of changes": own(UNLIMITED),
        "the engine before decision 0048": own(IDEAS["before decision 0048"]),
    }
    names = ("at .06", ".10", ".20", "hard .03", "over .09", "changes")
    yield f"\n{'10-second machine data, fluid':42}" + "".join(f"{name:>10}" for name in names)
    for name, make in rivals.items():
        curve = replay(load, make, SIGMAS, 0.0)
        cells = [curve.at(curve.contention, allowed, curve.fluid) for allowed in (0.06, 0.10, 0.20)]
        changes = curve.at(curve.contention, 0.10, curve.changes)
        hard, over = curve.at(curve.hard, 0.03, curve.fluid), curve.at(curve.over, 0.09, curve.fluid)
        yield (
            f"{name:50}"
            + "".join(f"{cell:8.1f}" for cell in cells)
            + f"{hard:10.1f}{over:10.1f}{changes:9.1f}"
        )


def _ideas(traces: Traces, month: str) -> Iterator[str]:
    """Each without one of its parts: C with a guard, and F on every third host for ten days."""
    coarse = traces.load(Table("coarse", month, 2.0, 31.0))
    fine = traces.load(Table("fine", month, 2.0, 10.0))
    third = replace(
        fine, owner=np.ascontiguousarray(fine.owner[::3]), cores=fine.cores[::3], memory=None, levels=None
    )
    yield f"\n{'without one part, fluid':52}{'C at .10':>9}{'hard':>7}{'C .10/.03':>11}{'F at .10':>10}{'changes':>9}"
    for name, knobs in IDEAS.items():
        on_c, on_f = replay(coarse, own(knobs), SIGMAS, 30.0), replay(third, own(knobs), SIGMAS[2:-1], 0.0)
        fluid, hard = (on_c.at(on_c.contention, 0.10, row) for row in (on_c.fluid, on_c.hard))
        f_fluid, changes = (on_f.at(on_f.contention, 0.10, row) for row in (on_f.fluid, on_f.changes))
        yield f"{name:52}{fluid:9.1f}{hard:7.3f}{on_c.within(0.10, 0.03):11.1f}{f_fluid:10.1f}{changes:9.1f}"
