"""What the engine harvests and whom it disturbs, beside others, on real usage traces: both replays, two months.

The traces are not part of this repository: --traces (or TIDES_TRACES) names their folder, ../shared/traces by default.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from libs.harvest.backtest.figures import Figures
from libs.harvest.backtest.formats import Format, read_trace
from libs.harvest.backtest.lender import Engine, Lender
from libs.harvest.backtest.run import Actuator, Model, Options, read_load, replay_of, widen
from libs.harvest.backtest.trace import BadTrace, Load, MachinesTrace
from libs.harvest.document import PRESETS, parse
from libs.harvest.types import Policy
from tools.bench._harvest_others import CloudTides, Condor, Ewma, LastPlus, Window

MONTHS = {"jul": (0.0, 31.0), "aug": (31.0, 62.0)}
MACHINES = "bitbrains_rnd_2013_jul_aug.npz"
HOSTS = "alibaba2018_machine_usage_sample.csv.gz"
REFERENCE = {
    "coarse": """published (another month, r = 2; % of the oracle, contention %, hard %, deploys, waste %)
  CloudTides 30/80 41.8 .179 .046 3.1 .78 | 60/85 76.3 .681 .369 11.2 1.46 | HTCondor 62.3 .516 .318 4.4 .72
  5 sigma over 2 h 87.1 .635 .213 3.4 .39 | p99 of 24 h 67.8 .145 .035 .9 .12
  ceiling, EWMA + 2 sigma, 60-s guard 100.0 .279 .097 .26 .02 | tuned, 30-s guard 95.5 .099 .028 .16 .02""",
    "fine": """published (August; % of fluid, contention %, at r = 2 then r = 4)
  last + 5 % 92.5 6.85 | 90.3 10.8;  k = 2 83.1 .582 | 70.8 .635;  k = 3 78.4 .273 | 63.7 .287
  k = 4 74.6 .157 | 58.1 .157;  k = 5, peak of 30 min 71.0 .098 | 52.9 .096;  k = 6, 60 min 67.4 .063 | 47.6 .060""",
    "machines": "published: here the gain over EWMA + k sigma is 0 or less; it must not be below it",
}

Maker = Callable[[Load], Lender]


def main() -> int:
    """Print the tables that are asked for."""
    given = _arguments()
    folder = Path(given.traces)
    needed = [folder / name for name in (MACHINES, HOSTS)]
    absent = [path.name for path in needed if not path.is_file()]
    if absent:
        print(
            f"The usage traces are not there: {', '.join(absent)} in {folder}. Name their folder with --traces."
        )
        return 3
    virtual = read_trace(Format.NPZ, {MACHINES: needed[0].read_bytes()})
    for part in given.part:
        if part == "machines":
            physical = read_trace(Format.CSV, {HOSTS: needed[1].read_bytes()})
            _table("10-second machine data in 30-s ticks", physical, Options(model=Model.FINE), given)
        else:
            _months(Model(part), virtual, given)
        print(REFERENCE[part])
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench harvest", description=__doc__.splitlines()[0])
    parser.add_argument("--traces", default=os.environ.get("TIDES_TRACES", "../shared/traces"))
    parser.add_argument("--part", nargs="+", choices=list(REFERENCE), default=list(REFERENCE))
    parser.add_argument("--month", nargs="+", choices=list(MONTHS), default=list(MONTHS))
    parser.add_argument("--overcommit", nargs="+", type=float, default=[2.0, 4.0])
    parser.add_argument("--guard-seconds", nargs="+", type=float, default=[30.0, 0.0])
    parser.add_argument(
        "--actuator", nargs="+", choices=[one.value for one in Actuator], default=["host", "cluster"]
    )
    parser.add_argument("--preset", nargs="*", choices=list(PRESETS), default=list(PRESETS))
    parser.add_argument("--days", type=float, default=31.0, help="Of each month.")
    parser.add_argument("--only-engine", action="store_true")
    return parser.parse_args()


def _months(model: Model, trace: MachinesTrace | Load, given: argparse.Namespace) -> None:
    for month in given.month:
        begin, end = MONTHS[month]
        days = (begin, min(end, begin + given.days))
        for overcommit in given.overcommit:
            options = Options(model=model, overcommit=overcommit, days=days)
            _table(f"{model.value}, {month}, r = {overcommit:g}", trace, options, given)


def _table(title: str, trace: MachinesTrace | Load, options: Options, given: argparse.Namespace) -> None:
    load = read_load(trace, options)
    print(f"\n{title}: {load.hosts} hosts, {load.days:.1f} days, owner load {100 * load.owner.mean():.1f} %")
    print(f"{'':34}oracle%  fluid%  cont.%   hard%   over‰ dep/hd chg/hh waste%    s")
    for name, make, chosen in _rows(load, options, given):
        began = time.perf_counter()
        replay = replay_of(make(load), load, chosen)
        for _ in replay.days():
            pass
        _print(name, replay.figures(), time.perf_counter() - began)


def _rows(load: Load, options: Options, given: argparse.Namespace) -> Iterator[tuple[str, Maker, Options]]:
    fine = options.model is Model.FINE
    if not given.only_engine:
        yield from _fine_others(options) if fine else _coarse_others(options)
    for name in given.preset:
        policy = preset(name, load)
        for actuator in given.actuator:
            for guard_s in [0.0] if fine else given.guard_seconds:
                chosen = replace(options, actuator=Actuator(actuator), guard_s=guard_s)
                label = f"{name}, {actuator}" + ("" if fine else f", guard {guard_s:g} s")
                yield label, _engine(policy, resident=fine), chosen


def preset(name: str, load: Load) -> Policy:
    """A preset with one machine as wide as a host on each."""
    machine = {"template": "-", "vcpus": 1, "memory_mib": 1024, "disk_gib": 10.0}
    return widen(parse({**PRESETS[name], "machine": machine}), load)


def _engine(policy: Policy, *, resident: bool) -> Maker:
    return lambda load: Engine(policy, load, resident=resident)


def _coarse_others(options: Options) -> Iterator[tuple[str, Maker, Options]]:
    blind = replace(options, guard_s=0.0)
    yield "CloudTides 30/80", lambda load: CloudTides(load, 0.30, 0.80), blind
    yield "CloudTides 60/85", lambda load: CloudTides(load, 0.60, 0.85), blind
    yield "HTCondor UWCS", Condor, blind
    yield "5 sigma over 2 h", lambda load: Window(load, 2.0, sigma=5.0), blind
    yield "p99 of 24 h", lambda load: Window(load, 24.0, sigma=None), blind
    yield "EWMA + 2 sigma", lambda load: Ewma(load, 2.0), blind
    yield "EWMA + 2 sigma, guard 60 s", lambda load: Ewma(load, 2.0), replace(options, guard_s=60.0)
    yield "EWMA + 2 sigma, guard 30 s", lambda load: Ewma(load, 2.0), replace(options, guard_s=30.0)


def _fine_others(options: Options) -> Iterator[tuple[str, Maker, Options]]:
    yield "last + 5 %", LastPlus, options
    for sigma in (2.0, 3.0, 4.0, 5.0, 6.0):
        yield f"EWMA + {sigma:g} sigma", partial(Ewma, sigma=sigma), options


def _print(name: str, found: Figures, seconds: float) -> None:
    oracle = "      -" if found.harvest_percent is None else f"{found.harvest_percent:7.1f}"
    print(
        f"{name:34}{oracle} {found.harvest_fluid_percent:7.1f} {found.contention_percent:7.3f}"
        f" {found.hard_percent:7.3f} {found.over_permille:7.3f} {found.deploys_per_host_day:6.2f}"
        f" {found.limit_changes_per_host_hour:6.1f} {found.waste_percent:6.2f}"
        f" {seconds:4.0f}",
        flush=True,
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BadTrace as problem:
        sys.exit(f"The trace cannot be used: {problem}")
