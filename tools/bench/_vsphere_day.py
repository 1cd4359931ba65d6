"""A whole day of load, driven into a vCenter at speed: how far off is the owner's load that Tides computes."""

import json
import sys
from statistics import quantiles

from rich.progress import track

from tests.contract.providers.vsphere_target import opened
from tests.system.day import TICKS_A_DAY, drive
from tests.system.lab import owners
from tools.parts.vcsim import Vcsim


async def main(ticks: int = TICKS_A_DAY) -> None:
    """Drive, compare at every tick, and print a line for people and one for programs."""
    vcsim = Vcsim()
    try:
        await vcsim.start(hosts=3, vms=2, flags=("-perf-default", "1"))
        async with opened(vcsim) as target, owners(vcsim, running=False) as lab:
            day = drive(target, lab, ticks)
            steps = track(range(ticks), "driving a day", disable=not sys.stderr.isatty())
            found = [one for _ in steps for one in await anext(day)]
    finally:
        await vcsim.close()
    errors = sorted(one.error for one in found)
    figures = {
        "ticks": ticks,
        "samples": len(found),
        "largest_error_percent": round(100 * errors[-1], 4),
        "p99_error_percent": round(100 * quantiles(errors, n=100)[98], 4),
        "owner_percent": [round(100 * end(one.driven for one in found), 1) for end in (min, max)],
        "ours_percent": [round(100 * end(one.ours for one in found), 1) for end in (min, max)],
    }
    print(
        f"{len(found)} samples of 3 hosts, owner {figures['owner_percent']} %, ours {figures['ours_percent']} %: "
        f"off by at most {figures['largest_error_percent']} % of a host"
    )
    print(json.dumps({"bench": "vsphere-day", **figures}))
