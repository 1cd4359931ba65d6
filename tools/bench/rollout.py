"""An installation is brought from an earlier commit to this one, process by process, amid work; then an audit.

Old and new run side by side on real parts: vcsim, RabbitMQ, PostgreSQL. Half way an old process dies and comes again,
on the schema that the new ones have made. It needs git's history, so it is no test of `./dev test`: what every commit
is held to is tests/architecture/test_side_by_side.py (decision 0045).
"""

import argparse
import asyncio
import json
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from libs.common.log import configure
from tests.system.accounts import all_accounts_agree
from tests.system.house import House, open_house, the_loop_lends, unrest
from tests.system.installing import PROCESSES
from tools.parts.postgres import PostgresServer
from tools.parts.rabbitmq import RabbitNode
from tools.parts.vcsim import Vcsim

ROOT = Path(__file__).parents[2]
FIRST = ("stats", "monitor-1", "workload-1")
"""Whose new schemas the old replicas beside them have to live with."""
DIES_OLD = "workload-2"
BAD = ("bus.message_parked", "bus.handler_failed", "beat.failed", "lane.failed", "cluster.not_judged")


@dataclass
class Told:
    """What was seen."""

    before: str
    after: str
    replaced_s: dict[str, float] = field(default_factory=dict)
    """Seconds from the order to stop until the new process was ready."""
    old_came_again: str = "not tried"
    samples: int = 0
    action_events: int = 0
    bad_lines: dict[str, int] = field(default_factory=dict)
    trouble: str = ""


def git(*words: str) -> str:
    """What git says."""
    return subprocess.run(
        ["git", *words], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def earlier() -> str:
    """The newest tag, or the commit before the newest migration where there is none."""
    tags = git("tag", "--merged", "HEAD", "--sort=-creatordate").split()
    migrations = ("services/*/migrations", "libs/common/migrations")
    return tags[0] if tags else git("log", "-1", "--format=%H", "--", *migrations) + "^"


def unpack(revision: str, folder: Path) -> Path:
    """The program as it was."""
    archive = folder / "code.tar"
    subprocess.run(["git", "archive", "-o", archive, revision, "libs", "services"], cwd=ROOT, check=True)
    (folder / "code").mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", folder / "code"], check=True)
    return folder / "code"


async def replace(house: House, name: str, told: Told) -> None:
    """Stop the old one in order, start the new one at its place."""
    process, began = house.installed.deployment.processes[name], time.monotonic()
    await process.stop()
    process.code = None
    await process.start()
    told.replaced_s[name] = round(time.monotonic() - began, 1)
    await house.ticks(2)


async def die_and_come_again(house: House, told: Told) -> None:
    """A machine of the cluster is drained in the midst of it: an old process starts beside the new schema."""
    process = house.installed.deployment.processes[DIES_OLD]
    await process.kill()
    try:
        await process.start()
        told.old_came_again = "yes"
    except AssertionError:
        told.old_came_again = process.tail().strip().splitlines()[-1][:200]


async def play(folder: Path, parts: tuple[Vcsim, RabbitNode, PostgresServer], told: Told) -> None:
    """The whole of it. Raises AssertionError where an account does not agree."""
    async with open_house(folder, *parts, code=unpack(told.before, folder)) as house:
        async with asyncio.TaskGroup() as group:
            weather = group.create_task(unrest(house))
            for name in FIRST:
                await replace(house, name, told)
            await die_and_come_again(house, told)
            for name in (name for name in PROCESSES if name not in FIRST):
                await replace(house, name, told)
            weather.cancel()
        await the_loop_lends(house)
        await all_accounts_agree(house.installed, house.lab, house.witness)
        told.samples, told.action_events = len(house.witness.samples), len(house.witness.actions())
        every = house.installed.deployment.processes.values()
        counts = {event: sum(len(process.facts(event)) for process in every) for event in BAD}
        told.bad_lines = {event: count for event, count in counts.items() if count}


async def main(revision: str) -> bool:
    """Whether everything went on, an old process came again, and all accounts agreed."""
    parts = (Vcsim(), RabbitNode(), PostgresServer())
    told = Told(git("rev-parse", "--short", revision), git("describe", "--always", "--dirty"))
    try:
        await asyncio.gather(parts[1].start(), parts[2].start())
        with tempfile.TemporaryDirectory() as folder:
            try:
                await play(Path(folder), parts, told)
            except* AssertionError as failed:
                told.trouble = str(failed.exceptions[0])
    finally:
        for part in parts:
            await part.close()
    print(json.dumps(asdict(told), indent=1))
    return not told.trouble and told.old_came_again == "yes"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="revision", default=None, help="tag or commit to come from")
    configure("ERROR", "console")
    raise SystemExit(0 if asyncio.run(main(parser.parse_args().revision or earlier())) else 1)
