"""Minutes or hours of bad weather over a whole installation, then an audit of the cloud and of what the broker carried.

Processes are killed with exponential gaps; the cloud hangs, lies, forgets and answers late; the network is cut in
silence, the stores restart, a disk is full, clocks step, and messages come again. A seed that failed blows again.
"""

import argparse
import asyncio
import json
import secrets
import shutil
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from libs.common.log import configure
from tests.system.accounts import all_accounts_agree, nothing_of_ours_stays
from tests.system.house import TICK_REAL_S, House, open_house, the_loop_lends, unrest
from tests.system.lab import TICK_S
from tests.system.storm import Storm
from tools.parts.postgres import PostgresServer
from tools.parts.rabbitmq import RabbitNode
from tools.parts.vcsim import Vcsim

AHEAD_MINUTES = 45
"""So far may the cloud's clock run ahead of ours: stats refuses an hour."""


async def main(minutes: float, seed: int, folder: Path) -> bool:
    """One storm; prints a table and a line of JSON. Whether all accounts agreed afterwards."""
    vcsim, rabbit, postgres = Vcsim(), RabbitNode(), PostgresServer()
    tick_s = max(TICK_REAL_S, TICK_S / (1 + AHEAD_MINUTES / (minutes + 5)))
    try:
        await asyncio.gather(rabbit.start(), postgres.start())
        async with open_house(folder, vcsim, rabbit, postgres, tick_s) as house:
            told = await endure(house, minutes * 60, seed)
    finally:
        for part in (vcsim, rabbit, postgres):
            await part.close()
    _show(told)
    return not told["trouble"]


async def endure(house: House, seconds: float, seed: int) -> dict[str, Any]:
    """The storm, the calm, the audit and the end: what there is to tell of it."""
    began = time.monotonic()
    storm = Storm(
        house, seed, said=lambda what: print(f"{time.monotonic() - began:7.1f} s  {what}", flush=True)
    )
    told: dict[str, Any] = {"seed": seed, "settled_s": None, "audited_s": None, "gone_s": None, "trouble": ""}

    async def take(name: str, work: Any) -> None:
        from_s = time.monotonic()
        await work
        told[name] = round(time.monotonic() - from_s, 1)

    try:
        async with asyncio.TaskGroup() as group:
            weather = group.create_task(unrest(house))
            await storm.rage(seconds)
            weather.cancel()
        await take("settled_s", the_loop_lends(house))
        await take("audited_s", all_accounts_agree(house.installed, house.lab, house.witness))
        told |= {
            "samples": len(house.witness.samples),
            "action_events": len(house.witness.actions()),
            "machines_ever": len(house.lab.ever),
        }
        await take("gone_s", nothing_of_ours_stays(house.installed, house.lab))
    except Exception as failed:
        told["trouble"] = "".join(traceback.format_exception(failed))
    return told | {
        "minutes": round((time.monotonic() - began) / 60, 1),
        "blows": dict(sorted(storm.count.items())),
    }


def _show(told: dict[str, Any]) -> None:
    table = Table("what", "how often")
    for name, count in told["blows"].items():
        table.add_row(name, str(count))
    Console().print(table)
    print(json.dumps(told))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="./dev bench chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=None, help="of a storm to blow again")
    given = parser.parse_args()
    configure("ERROR", "console")
    chosen = secrets.randbits(32) if given.seed is None else given.seed
    logs = Path(tempfile.mkdtemp(prefix="tides-chaos-"))
    if not asyncio.run(main(given.minutes, chosen, logs)):
        raise SystemExit(f"seed {chosen}: not all accounts agree; the logs are in {logs}")
    shutil.rmtree(logs)
