"""What the engine harvests and whom it disturbs, beside others and what is published, on real usage traces.

The traces are not part of this repository: --traces (or TIDES_TRACES) names their folder, ../shared/traces by default.
Each row is kept under build/bench as soon as it is done: who interrupts goes on where it was.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from libs.harvest.backtest.run import Actuator
from libs.harvest.backtest.trace import BadTrace
from libs.harvest.document import PRESETS
from tools.bench import _harvest_forecast, _harvest_frontier
from tools.bench._harvest_cells import HOSTS, MACHINES, MONTHS, Kept, Table, Traces, cells_of
from tools.bench._harvest_words import frontier, heading, line, published

PARTS = ("coarse", "fine", "machines")
PROOFS = ("frontier", "forecast")
"""What the engine's constants were chosen by, and what no choice can pass: printed anew each time."""
NOT_THERE = 3


def main() -> int:
    """Print the tables that are asked for."""
    given = _arguments()
    folder = Path(given.traces)
    absent = [name for name in (MACHINES, HOSTS) if not (folder / name).is_file()]
    if absent:
        print(
            f"The usage traces are not there: {', '.join(absent)} in {folder}. Name their folder with --traces."
        )
        return NOT_THERE
    kept, traces = Kept(Path(given.kept), folder), Traces(folder)
    rows: list[dict[str, Any]] = []
    for words in _prove(given, traces):
        print(words, flush=True)
    for table in _tables(given):
        rows += _print_table(table, given, kept, traces)
        if given.json is not None:
            told = [{**row, "published": published(row)} for row in rows]
            Path(given.json).write_text(json.dumps(told, indent=1))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench harvest", description=__doc__.splitlines()[0])
    parser.add_argument("--traces", default=os.environ.get("TIDES_TRACES", "../shared/traces"))
    parser.add_argument("--part", nargs="+", choices=(*PARTS, *PROOFS), default=list(PARTS))
    parser.add_argument("--month", nargs="+", choices=list(MONTHS), default=list(MONTHS))
    parser.add_argument("--overcommit", nargs="+", type=float, default=[2.0, 4.0])
    parser.add_argument("--guard-seconds", nargs="+", type=float, default=[30.0, 0.0])
    parser.add_argument(
        "--actuator", nargs="+", choices=[one.value for one in Actuator], default=["host", "cluster"]
    )
    parser.add_argument("--preset", nargs="*", choices=list(PRESETS), default=list(PRESETS))
    parser.add_argument("--days", type=float, default=31.0, help="Of each month.")
    parser.add_argument("--only-engine", action="store_true")
    parser.add_argument("--json", help="A file for every row.")
    parser.add_argument(
        "--kept", default="build/bench/harvest", help="Where rows are kept; remove it to begin anew."
    )
    return parser.parse_args()


def _prove(given: argparse.Namespace, traces: Traces) -> Iterator[str]:
    if "frontier" in given.part:
        for month in given.month:
            yield from _harvest_frontier.tables(traces, month, given.overcommit)
    if "forecast" in given.part:
        yield from _harvest_forecast.tables(traces, given.overcommit)


def _tables(given: argparse.Namespace) -> Iterator[Table]:
    for part in (one for one in PARTS if one in given.part):
        if part == "machines":
            yield Table(part, "", 1.0, 0.0)
            continue
        for month in given.month:
            for overcommit in given.overcommit:
                yield Table(part, month, overcommit, given.days)


def _print_table(table: Table, given: argparse.Namespace, kept: Kept, traces: Traces) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for cell in cells_of(table, given.preset, given.actuator, given.guard_seconds):
        if given.only_engine and not cell.preset:
            continue
        row = kept.run(table, cell, traces)
        if not rows:
            print(heading(table.title, row))
        rows.append(row)
        print(line(row), flush=True)
    if table.part != "coarse":
        print("\n".join(frontier(rows)))
    return rows


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Interrupted; what is done is kept.")
    except BadTrace as problem:
        sys.exit(f"The trace cannot be used: {problem}")
