"""The benchmark's tables: a row that is done is not worked out again, and the frontier is read between its points."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.harvest.backtest.announced import announce
from libs.harvest.backtest.lender import Engine
from libs.harvest.backtest.trace import Load
from tools.bench import _harvest_cells
from tools.bench._harvest_announced import Forewarned
from tools.bench._harvest_cells import HOSTS, MACHINES, Cell, Kept, Table, Traces, cells_of
from tools.bench._harvest_others import LastPlus
from tools.bench._harvest_words import frontier, heading, line

TABLE = Table("coarse", "aug", 2.0, 1.0)


class Ready(Traces):
    """Two hosts at 20 %, counted each time they are asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def load(self, table: Table) -> Load:
        self.asked += 1
        return Load(np.full((2, 60), 0.2), 300.0, np.full(2, 16.0))


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    for name in (MACHINES, HOSTS):
        (tmp_path / name).write_bytes(b"trace")
    return tmp_path


def test_a_row_is_kept_until_trace_code_or_question_change(
    traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, folder = Ready(), tmp_path / "kept"
    others, engine = Cell("EWMA + 2 sigma", guard_s=30.0), Cell("balanced", preset="balanced")
    first = [Kept(folder, traces).run(TABLE, cell, ready) for cell in (others, engine)]
    assert [Kept(folder, traces).run(TABLE, cell, ready) for cell in (others, engine)] == first
    assert ready.asked == 2

    monkeypatch.setattr(_harvest_cells, "_digest", lambda paths: f"{len(paths)}")
    Kept(folder, traces).run(TABLE, engine, ready)
    (traces / MACHINES).write_bytes(b"another trace")
    Kept(folder, traces).run(TABLE, engine, ready)
    Kept(folder, traces).run(TABLE, Cell("balanced", guard_s=60.0, preset="balanced"), ready)
    assert ready.asked == 5
    assert "100.0 .279 .097 .26 .02" not in line(first[0])
    assert "2 hosts, 0.2 days, owner load 20.0 %" in heading(TABLE.title, first[0])


def test_every_row_of_every_table_can_be_made() -> None:
    for part, many in (("coarse", 9 + 4), ("fine", 10 + 3), ("machines", 10 + 3)):
        cells = list(cells_of(Table(part, "aug", 2.0, 31.0), ["balanced"], ["host", "cluster"], [30.0, 0.0]))
        assert len(cells) == len(set(cells)) == many
        assert all(cell.preset or cell.name in _harvest_cells._OTHERS for cell in cells)


def test_the_gain_is_read_at_equal_harm_between_two_points() -> None:
    def row(name: str, harvest: float, contention: float, preset: str = "") -> dict[str, Any]:
        harm = {"contention_percent": contention, "hard_percent": contention / 4, "over_permille": 0.0}
        return {
            "part": "fine", "overcommit": 2.0, "name": name, "actuator": "host", "guard_s": 0.0, "preset": preset,
            "announced": False, "harvest_fluid_percent": harvest, **harm,
        }  # fmt: skip

    known = [row("EWMA + 2 sigma", 80.0, 1.0), row("EWMA + 4 sigma", 70.0, 0.01)]
    (told,) = frontier([*known, row("balanced", 76.5, 0.1, preset="balanced")])
    assert told == (
        "  balanced beside EWMA + k sigma: +1.5 at equal contention, +1.5 at equal hard, beyond it at equal over"
    )


def test_who_is_told_steps_back_a_minute_before_until_the_load_is_seen() -> None:
    owner = np.full((1, 40), 0.2)
    owner[0, 20:] = 0.6
    load = Load(owner, 30.0, np.full(1, 16.0), levels=owner)
    told = [seed for seed in range(20) if _ceilings(load, seed)[20] < 0.5]
    assert 4 < len(told) < 16, "one half of them is announced"
    seen = _ceilings(load, told[0])
    assert [round(ceiling, 2) for ceiling in seen[16:23]] == [0.65, 0.65, 0.15, 0.15, 0.15, 0.25, 0.25]
    policy = _harvest_cells.preset("balanced", load)
    for rises in ((), announce(load, told[0], 0.5)):
        engine = Engine(policy, load, resident=True, rises=rises)
        at_the_rise = [
            float(engine.hear(30.0 * tick, 30.0, load.owner[:, tick - 1], early=False).ceilings[0])
            for tick in range(1, 21)
        ][-1]
        assert (at_the_rise + 0.6 <= 0.9) == bool(rises), "the engine is told as a fact"


def _ceilings(load: Load, seed: int) -> list[float]:
    lender = Forewarned(LastPlus(load), load, announce(load, seed, 0.5))
    return [
        float(lender.hear(30.0 * tick, 30.0, load.owner[:, tick - 1], early=False).ceilings[0])
        for tick in range(40)
    ]
