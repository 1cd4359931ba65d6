"""What a forecast can know: gradient boosting learns July, is asked in August, and its quantiles are lent by.

No limit of changes, no machines, and every feature at hand: a bound on what a causal controller can reach, as far as
boosting finds it. scikit-learn lives in an environment of its own, outside of the lock.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from libs.harvest.backtest.trace import Floats, Load
from tools.bench._harvest_cells import Table, Traces
from tools.bench._harvest_quick import Curve, Sums
from tools.parts import debian

PACKAGES = ("scikit-learn==1.9.1",)
QUANTILES = (0.80, 0.90, 0.95, 0.975, 0.985, 0.9925, 0.996, 0.998, 0.999)
_ROOM, _USEFUL = 0.89, 0.11
_AIMS = np.linspace(1.6, 7.5, 25)
"""Quantiles to lend by, as -log(1 - q): between those that were learnt, and a little beyond."""


def install() -> Path:
    """The environment's folder; made once."""
    folder = debian.cache_folder() / PACKAGES[0]
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(folder / "bin/pip"), "install", "-q", "-q", *PACKAGES], check=True)
        (folder / "done").touch()
    return folder


def tables(traces: Traces, overcommits: list[float]) -> Iterator[str]:
    """A line per overcommit and per way to look: what can be had where the targets of contention are."""
    python = install() / "bin/python"
    for overcommit in overcommits:
        july, august = (traces.load(Table("coarse", month, overcommit, 31.0)) for month in ("jul", "aug"))
        bounds = _forecast(python, july, august)
        for guard_s in (30.0, 0.0):
            curve = lend_by(bounds, august, guard_s)
            guard = f"{guard_s:g}-s guard" if guard_s else "5-minute samples"
            for allowed in (0.10, 0.13) if guard_s else (0.45,):
                fluid = curve.at(curve.contention, allowed, curve.fluid)
                hard = curve.at(curve.contention, allowed, curve.hard)
                yield f"forecast, r = {overcommit:g}, {guard}: fluid {fluid:.1f} at {allowed:.2f} hard {hard:.3f}"


def _forecast(python: Path, july: Load, august: Load) -> Floats:
    """By quantile, host and step: what load will hardly pass in the step that follows each of August."""
    with tempfile.TemporaryDirectory() as folder:
        owner, told = Path(folder) / "owner.npy", Path(folder) / "told.npy"
        np.save(owner, np.concatenate([july.owner, august.owner], axis=1))
        script = Path(__file__).with_name("_harvest_forecaster.py")
        quantiles = [str(quantile) for quantile in QUANTILES]
        subprocess.run([str(python), str(script), str(owner), str(told), *quantiles], check=True)
        return np.asarray(np.load(told))


def lend_by(bounds: Floats, load: Load, guard_s: float) -> Curve:
    """What stands below each quantile is lent; a guard cuts it to what fits, as it does the engine's budgets."""
    sums, share = Sums(_AIMS.size), (guard_s or load.step_s) / load.step_s
    known = -np.log(1.0 - np.array(QUANTILES))
    for step in range(1, load.owner.shape[1]):
        now, told = load.owner[:, step], bounds[:, :, step - 1]
        above = np.clip(np.searchsorted(known, _AIMS) - 1, 0, known.size - 2)
        part = ((_AIMS - known[above]) / (known[above + 1] - known[above]))[:, None]
        offered = _ROOM - told[above] - part * (told[above + 1] - told[above])
        lent = np.where(offered >= _USEFUL, np.minimum(offered, 1.0), 0.0)
        sums.take(now, lent, share)
        room = np.where(_ROOM - now >= _USEFUL, _ROOM - now, 0.0)
        sums.take(now, np.minimum(lent, room) if guard_s else lent, 1.0 - share)
    return sums.curve(load, _AIMS)
