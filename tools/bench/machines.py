"""What machines under reconcile cost: the time of the beat that acts, processes and database, as their number grows.

Tides makes the machines itself on simulated clouds of a hundred each, one monitor and one workload at the intervals of
a real installation. Each size is measured once all of it runs and nothing is to be done: that is what most of a day
is. The law is the exponent between two sizes: 1 is a cost that grows with the machines, 0 one that does not.
"""

import argparse
import asyncio
import json
import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from libs.common.log import configure
from tests.support import until
from tests.system.processes import Process
from tools.bench._fleet import Fleet, Shape, database_cpu_s, metrics_of, open_fleet, total
from tools.bench._parts import cpu_s

SHAPE = Shape(hosts=50, machines_per_host=2, interval_s=20.0)
KEPT = Path("build/bench/machines.json")
LAWS = ("act_ms", "workload_cores", "monitor_cores", "database_cores", "commits_per_s")
Figures = dict[str, float]


async def main(sizes: Sequence[int], window_s: float) -> bool:
    """Measure each size and print a table and a line of JSON. Whether the clouds agree with the rows at the end."""
    rows: list[Figures] = []
    async with open_fleet() as fleet:
        (monitor,) = await fleet.replicas("monitor", 1)
        (workload,) = await fleet.replicas("workload", 1)
        for size in sizes:
            clouds = max(0, math.ceil(size / SHAPE.machines) - len(fleet.clouds))
            began, known = time.perf_counter(), len(fleet.clouds) * SHAPE.machines
            await fleet.lend(clouds, SHAPE)
            wanted = len(fleet.clouds) * SHAPE.machines
            await until(partial(_run, fleet, wanted), timeout=3600, what=f"{wanted} machines")
            deployed_per_s = (wanted - known) / (time.perf_counter() - began)
            figures = await _measure(fleet, monitor, workload, window_s)
            rows.append({"machines": wanted, "deployed_per_s": deployed_per_s, **figures})
            KEPT.parent.mkdir(parents=True, exist_ok=True)
            KEPT.write_text(json.dumps(rows))
        wrong = await fleet.audit()
    report(rows, wrong, window_s)
    return not wrong


async def _run(fleet: Fleet, wanted: int) -> bool:
    await asyncio.sleep(0.5)
    return await fleet.running() >= wanted


async def _measure(fleet: Fleet, monitor: Process, workload: Process, window_s: float) -> Figures:
    commits = "select xact_commit from pg_stat_database where datname = current_database()"
    before = await metrics_of(workload), cpu_s(workload), cpu_s(monitor)
    database = await database_cpu_s(fleet.database), await fleet.database.fetchval(commits)
    await asyncio.sleep(window_s)
    after = await metrics_of(workload), cpu_s(workload), cpu_s(monitor)
    beats = [total(each[0], "tides_beat_seconds_count", beat="act") for each in (before, after)]
    spent = [total(each[0], "tides_beat_seconds_sum", beat="act") for each in (before, after)]
    return {
        "act_ms": 1000 * (spent[1] - spent[0]) / max(1.0, beats[1] - beats[0]),
        "acts_per_s": (beats[1] - beats[0]) / window_s,
        "workload_cores": (after[1] - before[1]) / window_s,
        "monitor_cores": (after[2] - before[2]) / window_s,
        "database_cores": (await database_cpu_s(fleet.database) - database[0]) / window_s,
        "commits_per_s": (await fleet.database.fetchval(commits) - database[1]) / window_s,
    }


def laws(rows: Sequence[Figures]) -> dict[str, float]:
    """By which power of the machines each figure grew, from the smallest to the largest."""
    first, last = rows[0], rows[-1]
    ratio = math.log(last["machines"] / first["machines"])
    found = {}
    for name in LAWS:
        if first[name] > 0 and last[name] > 0 and ratio > 0:
            found[name] = math.log(last[name] / first[name]) / ratio
    return found


def report(rows: Sequence[Figures], wrong: Sequence[str], window_s: float) -> None:
    """A table for people and one line for programs."""
    table = Table(title=f"machines on clouds of {SHAPE.machines}, each measured for {window_s:g} s")
    first, *figures = rows[0]
    table.add_column(first)
    for row in rows:
        table.add_column(f"{row[first]:,.0f}", justify="right")
    for name in figures:
        table.add_row(
            name, *(f"{row[name]:,.3g}" if row[name] < 100 else f"{row[name]:,.0f}" for row in rows)
        )
    Console().print(table)
    grown = {name: round(power, 2) for name, power in laws(rows).items()}
    print(
        json.dumps({"bench": "machines", "window_s": window_s, "rows": rows, "laws": grown, "wrong": wrong})
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--window", type=float, default=60.0, help="seconds for which each size is measured")
    given = parser.parse_args()
    configure("WARNING")
    raise SystemExit(0 if asyncio.run(main(sorted(given.sizes), given.window)) else 1)
