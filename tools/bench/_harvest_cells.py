"""One row of a table is a cell: what was replayed, kept by what it was made of, so that a broken run goes on."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from libs.harvest.backtest.announced import announce
from libs.harvest.backtest.formats import Format, read_trace
from libs.harvest.backtest.lender import Engine, Lender
from libs.harvest.backtest.run import Actuator, Model, Options, read_load, replay_of, widen
from libs.harvest.backtest.trace import Load, MachinesTrace
from libs.harvest.document import PRESETS, parse
from libs.harvest.types import Policy
from tools.bench._harvest_announced import Forewarned
from tools.bench._harvest_others import CloudTides, Condor, Ewma, LastPlus, Window

MONTHS = {"jul": (0.0, 31.0), "aug": (31.0, 62.0)}
MACHINES = "bitbrains_rnd_2013_jul_aug.npz"
HOSTS = "alibaba2018_machine_usage_sample.csv.gz"
_ROOT = Path(__file__).parents[2]
_TOLD = 0.5
_SIGMAS = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)

Maker = Callable[[Load], Lender]


@dataclass(frozen=True, slots=True)
class Table:
    """One trace under one model."""

    part: str
    """coarse, fine or machines."""
    month: str
    """Empty: all of the trace."""
    overcommit: float
    days: float

    @property
    def title(self) -> str:
        if self.part == "machines":
            return "10-second machine data in 30-s ticks"
        return f"{self.part}, {self.month}, r = {self.overcommit:g}"

    def options(self) -> Options:
        """How its trace is read."""
        model = Model.COARSE if self.part == "coarse" else Model.FINE
        if not self.month:
            return Options(model=model)
        begin, end = MONTHS[self.month]
        days = (begin, min(end, begin + self.days))
        return Options(model=model, overcommit=self.overcommit, days=days)


@dataclass(frozen=True, slots=True)
class Cell:
    """A lender on a table's trace."""

    name: str
    actuator: str = "host"
    guard_s: float = 0.0
    preset: str = ""
    """Empty: another than the engine."""
    announced: bool = False
    """Half of what comes is told a minute before."""


class Kept:
    """Cells that were worked out before, by trace, code and options."""

    def __init__(self, folder: Path, traces: Path) -> None:
        self._folder, self._traces = folder, traces
        engine = sorted((_ROOT / "libs/harvest").rglob("*.py"))
        replays = [path for path in engine if path.parent.name == "backtest"]
        others = [_ROOT / f"tools/bench/_harvest_{name}.py" for name in ("others", "announced")]
        self._engine, self._replays = _digest([*engine, others[1]]), _digest([*replays, *others])

    def run(self, table: Table, cell: Cell, trace: "Traces") -> dict[str, Any]:
        """The row of a cell, from here where it is known."""
        known = self._place(table, cell)
        if known.is_file():
            row: dict[str, Any] = json.loads(known.read_text())
            return row
        load = trace.load(table)
        row = {**asdict(table), **asdict(cell), "owner_percent": round(100 * float(load.owner.mean()), 1)}
        row |= _replay(load, table, cell)
        self._folder.mkdir(parents=True, exist_ok=True)
        half = known.with_suffix(f".{os.getpid()}")
        half.write_text(json.dumps(row))
        half.replace(known)
        return row

    def _place(self, table: Table, cell: Cell) -> Path:
        trace = self._traces / (HOSTS if table.part == "machines" else MACHINES)
        code = self._engine if cell.preset else self._replays
        made_of = [asdict(table), asdict(cell), code, trace.stat().st_size]
        return self._folder / f"{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:24]}.json"


class Traces:
    """Read when the first cell needs them; the newest load is held."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, MachinesTrace | Load] = {}
        self._load: tuple[Table, Load] | None = None

    def load(self, table: Table) -> Load:
        """The owners of a table."""
        if self._load is None or self._load[0] != table:
            name, form = (HOSTS, Format.CSV) if table.part == "machines" else (MACHINES, Format.NPZ)
            if name not in self._read:
                self._read[name] = read_trace(form, {name: (self._folder / name).read_bytes()})
            self._load = (table, read_load(self._read[name], table.options()))
        return self._load[1]


def cells_of(table: Table, presets: list[str], actuators: list[str], guards: list[float]) -> Iterator[Cell]:
    """Every row of a table: others first, then the engine."""
    coarse = table.part == "coarse"
    yield from _coarse_others() if coarse else _fine_others()
    for name in presets:
        for actuator in actuators:
            for guard_s in guards if coarse else [0.0]:
                yield Cell(name, actuator, guard_s, preset=name)
        if not coarse:
            yield Cell(name, preset=name, announced=True)


def preset(name: str, load: Load) -> Policy:
    """A preset with one machine as wide as a host on each."""
    machine = {"template": "-", "vcpus": 1, "memory_mib": 1024, "disk_gib": 10.0}
    return widen(parse({**PRESETS[name], "machine": machine}), load)


def _replay(load: Load, table: Table, cell: Cell) -> dict[str, Any]:
    options = replace(table.options(), actuator=Actuator(cell.actuator), guard_s=cell.guard_s)
    rises = announce(load, options.seed, _TOLD) if cell.announced else ()
    if cell.preset:
        policy, resident = preset(cell.preset, load), table.part != "coarse"
        lender: Lender = Engine(policy, load, resident=resident, rises=rises)
    else:
        lender = _OTHERS[cell.name](load)
        lender = Forewarned(lender, load, rises) if rises else lender
    began = time.process_time()
    replay = replay_of(lender, load, options)
    for _ in replay.days():
        pass
    return {**replay.figures().as_json(), "cpu_s": round(time.process_time() - began, 1)}


def _coarse_others() -> Iterator[Cell]:
    for name in ("CloudTides 30/80", "CloudTides 60/85", "HTCondor UWCS", "5 sigma over 2 h", "p99 of 24 h"):
        yield Cell(name)
    for actuator, guard_s in (("host", 0.0), ("host", 60.0), ("host", 30.0), ("cluster", 0.0)):
        yield Cell("EWMA + 2 sigma", actuator, guard_s)


def _fine_others() -> Iterator[Cell]:
    yield Cell("last + 5 %")
    for sigma in _SIGMAS:
        yield Cell(f"EWMA + {sigma:g} sigma")
    for sigma in _SIGMAS[:4:2]:
        yield Cell(f"EWMA + {sigma:g} sigma", announced=True)


_OTHERS: dict[str, Maker] = {
    "CloudTides 30/80": partial(CloudTides, start=0.30, destroy=0.80),
    "CloudTides 60/85": partial(CloudTides, start=0.60, destroy=0.85),
    "HTCondor UWCS": Condor,
    "5 sigma over 2 h": partial(Window, hours=2.0, sigma=5.0),
    "p99 of 24 h": partial(Window, hours=24.0, sigma=None),
    "last + 5 %": LastPlus,
    **{f"EWMA + {sigma:g} sigma": partial(Ewma, sigma=sigma) for sigma in _SIGMAS},
}


def _digest(paths: list[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()
