"""How many samples workload and stats carry from RabbitMQ to committed decisions and rows, and what that costs.

Phases on one installation. `backlog`: rounds that were published at once are worked off. `steady`: one round per
interval at the given pace, and the time from a message on the bus to the committed decision about each of its
clusters. `outage`: both services are dead while rounds go on, and come back. `slow_database`: every answer of the
database is late. `wires`, in the same run: what the wires themselves could, consuming the same messages with aio-pika
alone, and COPY with de-duplication of the same host rows. With `--against` the first two are measured of another
checkout's services too, in the same run.
"""

import argparse
import asyncio
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from libs.common.bus.messages import to_message
from libs.common.log import configure
from tools.bench._pipeline_house import SOURCE, Installation, Load, installed
from tools.bench._pipeline_phases import Figures, backlog, outage, slow_database, steady
from tools.bench._pipeline_wires import consume_alone, copy_alone

Found = dict[str, Figures]


async def main(options: argparse.Namespace) -> None:
    """Measure and print a table and one line of JSON."""
    found: Found = {}
    if options.against:
        load = Load.of(options.resources, options.clusters, options.hosts)
        async with installed(load, options.against.resolve()) as inn:
            found |= {f"{name} before": figures for name, figures in (await _pace(inn, options)).items()}
    async with installed(Load.of(options.resources, options.clusters, options.hosts)) as inn:
        found |= await _pace(inn, options)
        tick = 1 + 2 * options.rounds
        found["wires"] = await _wires(inn, tick)
        if options.down > 0:
            found["outage"] = await outage(inn, range(tick, tick + options.down))
            found["outage"]["drained_of_copy"] = (
                found["outage"]["drained_per_s"] / found["wires"]["copied_per_s"]
            )
            tick += options.down
        if options.slow > 0:
            ticks = range(tick, tick + options.rounds)
            found["slow_database"] = await slow_database(inn, ticks, options.delay, options.slow)
    report(found, options)


async def _pace(inn: Installation, options: argparse.Namespace) -> Found:
    """The phases that can be compared with those of another checkout."""
    await backlog(inn, [0])  # every cluster is known afterwards
    rounds = options.rounds
    return {
        "backlog": await backlog(inn, range(1, 1 + rounds)),
        "steady": await steady(inn, 1 + rounds, rounds, options.pace),
    }


async def _wires(inn: Installation, tick: int) -> Figures:
    messages = [to_message(inn.load.message(each, tick), SOURCE) for each in inn.load.resources]
    return {
        "consumed_per_s": await consume_alone(inn.rabbit_url, messages) * inn.load.clusters,
        "copied_per_s": await copy_alone(inn.deployment.database_url, inn.load.samples, inn.load.hosts),
    }


def report(found: Found, options: argparse.Namespace) -> None:
    """A table for people and one line for programs."""
    table = Table(
        title=f"{options.resources} resources x {options.clusters} clusters x {options.hosts} hosts"
    )
    for column in ("phase", "figure", "value"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for phase, figures in found.items():
        for name, value in figures.items():
            table.add_row(phase, name, f"{value:,.3g}" if value < 100 else f"{value:,.0f}")
    Console().print(table)
    given = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    print(json.dumps({"bench": "pipeline", **given, **found}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resources", type=int, default=50)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--pace", type=float, default=20.0, help="seconds in which the steady phase publishes a round"
    )
    parser.add_argument("--down", type=int, default=0, help="rounds in an outage; 60 are 20 minutes; 0: none")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds with a slow database; 0: none")
    parser.add_argument("--delay", type=float, default=0.2, help="seconds by which its answers are late")
    parser.add_argument("--against", type=Path, help="a checkout whose services are measured first")
    configure("WARNING")
    asyncio.run(main(parser.parse_args()))
