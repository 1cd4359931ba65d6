"""Minutes or hours of bad weather over a whole installation, then an audit of the cloud and of what the broker carried.

Processes are killed with exponential gaps, the broker and the database restart, the vCenter is slow, ill or away,
samples come again late and twice. A seed that failed plays the same storm again.
"""

import argparse
import asyncio
import json
import secrets
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from libs.common.log import configure
from tests.system.accounts import all_accounts_agree
from tests.system.house import TICK_REAL_S, open_house, the_loop_lends, unrest
from tests.system.lab import TICK_S
from tests.system.storm import Storm
from tools.parts.postgres import PostgresServer
from tools.parts.rabbitmq import RabbitNode
from tools.parts.vcsim import Vcsim

AHEAD_MINUTES = 45
"""So far may the cloud's clock run ahead of ours: stats refuses an hour."""


async def main(minutes: float, seed: int) -> bool:
    """One storm; prints a table and a line of JSON. Whether all accounts agreed afterwards."""
    vcsim, rabbit, postgres = Vcsim(), RabbitNode(), PostgresServer()
    tick_s = max(TICK_REAL_S, TICK_S / (1 + AHEAD_MINUTES / (minutes + 5)))
    trouble = ""
    try:
        await asyncio.gather(rabbit.start(), postgres.start())
        with tempfile.TemporaryDirectory() as folder:
            async with open_house(Path(folder), vcsim, rabbit, postgres, tick_s) as house:
                storm, began = Storm(house, seed), time.monotonic()
                try:
                    async with asyncio.TaskGroup() as group:
                        weather = group.create_task(unrest(house))
                        await storm.rage(minutes * 60)
                        weather.cancel()
                    quiet_from = time.monotonic()
                    await the_loop_lends(house)
                    settled_s = time.monotonic() - quiet_from
                    await all_accounts_agree(house.installed, house.lab, house.witness)
                except* AssertionError as failed:
                    trouble, settled_s = str(failed.exceptions[0]), -1.0
                told = {
                    "seed": seed,
                    "minutes": round((time.monotonic() - began) / 60, 1),
                    "samples": len(house.witness.samples),
                    "action_events": len(house.witness.actions()),
                    "machines_ever": len(house.lab.ever),
                    "settled_s": round(settled_s, 1),
                    "blows": dict(sorted(storm.count.items())),
                    "trouble": trouble,
                }
    finally:
        for part in (vcsim, rabbit, postgres):
            await part.close()
    _show(told)
    return not trouble


def _show(told: dict[str, object]) -> None:
    table = Table("what", "how often")
    blows = told["blows"]
    assert isinstance(blows, dict)
    for name, count in blows.items():
        table.add_row(name, str(count))
    Console().print(table)
    print(json.dumps(told))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=None, help="of a storm to play again")
    given = parser.parse_args()
    configure("ERROR", "console")
    seed = secrets.randbits(32) if given.seed is None else given.seed
    raise SystemExit(0 if asyncio.run(main(given.minutes, seed)) else 1)
