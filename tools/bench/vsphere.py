"""What a full round over one vCenter costs: naive pyVmomi, pyVmomi in bulk, vmware_exporter, and our collector.

One run against one vcsim: all hosts and all machines, the same 8 leaf paths and the same 4 counters on every side
but vmware_exporter's, which is compared on its own counters. Each side is a process of its own. Before the ratios
are told, every value of ours is compared with pyVmomi's. `--many` measures 20 vCenters on one monitor
instead, and `--day` how far off the computed owner load is on a day that is driven in.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from tools.bench import _vsphere_day as day
from tools.bench import _vsphere_exporter as exporter
from tools.bench import _vsphere_many as many
from tools.parts import vcsim as part
from tools.parts.vcsim import Vcsim

CLUSTERS = 20
STEADY = ("-perf-default", "1000", "-perf-spread", "5000")
ROUNDS = {"naive": 1, "bulk": 3, "ours": 5, "ours, frozen": 5}
QUICK = (100, 1000)
Figures = dict[str, Any]


async def main(hosts: int, vms: int) -> None:
    """Measure every side and print a table and one line of JSON."""
    # A big inventory takes longer to make than those of tests.
    part.START_SECONDS = 600.0
    clusters = min(CLUSTERS, hosts)
    vcsim = Vcsim()
    try:
        await vcsim.start(clusters=clusters, hosts=hosts // clusters, vms=vms // clusters, flags=STEADY)
        with tempfile.TemporaryDirectory() as folder:
            found = await run_sides(vcsim, Path(folder))
            unequal = compare(Path(folder))
    finally:
        await vcsim.close()
    report(found, unequal, {"hosts": hosts, "vms": vms})


async def run_sides(vcsim: Vcsim, folder: Path) -> dict[str, Figures]:
    """Figures by side, one side after the other."""
    found = {}
    for side, rounds in ROUNDS.items():
        task = describe(vcsim) | {"rounds": rounds, "values": str(folder / side), "frozen": "frozen" in side}
        found[side] = await run_side(side.partition(",")[0], task)
    found["vmware_exporter"], lists = await exporter.scrape(vcsim)
    task = describe(vcsim) | {"rounds": 2, "exporter": lists}
    found["ours, as exporter"] = await run_side("ours", task)
    return found


def describe(vcsim: Vcsim) -> Figures:
    """Where a side finds the vCenter."""
    return {
        "url": vcsim.url,
        "host": vcsim.host,
        "port": vcsim.port,
        "user": vcsim.username,
        "password": vcsim.password,
        "ca_file": str(vcsim.ca_file),
    }


async def run_side(side: str, task: Mapping[str, Any]) -> Figures:
    """One side in its own process."""
    print(f"{side} ...", file=sys.stderr, flush=True)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tools.bench._vsphere_sides", side),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    out, _ = await process.communicate(json.dumps(task).encode())
    if process.returncode:
        raise SystemExit(f"the side {side!r} failed")
    found: Figures = json.loads(out)
    return found | {"wall_s": median(found["wall_s"]), "cpu_s": median(found["cpu_s"])}


def compare(folder: Path) -> int:
    """How many objects have other values on our side than on pyVmomi's."""
    theirs, ours = (json.loads((folder / side).read_text()) for side in ("bulk", "ours"))
    return sum(theirs.get(ref) != ours.get(ref) for ref in theirs.keys() | ours.keys())


def report(found: Mapping[str, Figures], unequal: int, size: Mapping[str, int]) -> None:
    """A table for people and one line for programs."""
    load = os.getloadavg()[0]
    table = Table(
        title=f"a full round: {size['hosts']} hosts, {size['vms']} machines; load average {load:.1f}"
    )
    table.add_column("side")
    for name in ("wall s", "CPU s", "calls", "MB", "stall ms", "idle ms", "peak MB", "wall x", "CPU x"):
        table.add_column(name, justify="right")
    bulk = found["bulk"]
    for side, got in found.items():
        base = found["vmware_exporter"] if "exporter" in side else bulk
        table.add_row(
            side, *_cells(got), f"{base['wall_s'] / got['wall_s']:.1f}", f"{base['cpu_s'] / got['cpu_s']:.1f}"
        )
    Console(width=120).print(table)
    for side in ("ours", "ours, frozen"):
        taken_ms = 1000 * found[side]["stall_cpu_s"]
        print(f"{side}: at no time did the loop keep the CPU to itself for more than {taken_ms:.0f} ms")
    print(
        "idle ms: the longest stall of a loop with nothing to do, just before; frozen: gc.freeze() after the start"
    )
    print("wall x, CPU x: how many times less than pyvmomi bulk; with vmware_exporter's counters, than that")
    print(f"objects whose values differ from pyvmomi's: {unequal} of {bulk['objects']}")
    exporter.tell_counters()
    print(json.dumps({"bench": "vsphere", **size, "load": load, "unequal": unequal, "sides": found}))


def _cells(got: Figures) -> Sequence[str]:
    """Calls and bytes of vmware_exporter are its own affair: nobody counts them inside."""
    return (
        f"{got['wall_s']:.2f}",
        f"{got['cpu_s']:.2f}",
        str(got.get("calls", "-")),
        f"{got['bytes'] / 1e6:.1f}" if "bytes" in got else "-",
        f"{1000 * got['stall_s']:.0f}" if "stall_s" in got else "-",
        f"{1000 * got['stall_idle_s']:.0f}" if "stall_idle_s" in got else "-",
        f"{got['peak_mib']:.0f}",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--vms", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size")
    parser.add_argument("--many", action="store_true", help="20 vCenters of 100 hosts on one monitor")
    parser.add_argument(
        "--day", action="store_true", help="owner load of a driven day against what is computed"
    )
    arguments = parser.parse_args()
    began = time.monotonic()
    if arguments.many:
        asyncio.run(many.main())
    elif arguments.day:
        asyncio.run(day.main())
    else:
        asyncio.run(main(*(QUICK if arguments.quick else (arguments.hosts, arguments.vms))))
    print(f"took {time.monotonic() - began:.0f} s", file=sys.stderr)
