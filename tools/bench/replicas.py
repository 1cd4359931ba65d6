"""What more replicas of monitor and workload bring, and how soon the others go on when one dies.

For each number of replicas: rounds that were published at once are judged; clouds are watched and lent to; then a
replica of each side is killed by force, and the time runs until others hold everything that was its own. In the end
the clouds are counted: no machine twice, none unknown, none requested or deployed twice.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from libs.common.bus.messages import to_message
from libs.common.log import configure
from tests.support import until
from tests.system.processes import Process
from tools.bench._fleet import Fleet, Shape, metrics_of, open_fleet, total
from tools.bench._parts import cpu_s
from tools.bench._pipeline_house import Load, introduce

SHAPE = Shape(hosts=2, machines_per_host=1, interval_s=2.0)
KEPT = Path("build/bench/replicas.json")
TAKEN_WITHIN_S = 120.0
Figures = dict[str, float]


async def main(options: argparse.Namespace) -> bool:
    """Measure each number and print a table and a line of JSON. Whether nothing was done twice or lost."""
    rows: list[Figures] = []
    async with open_fleet() as fleet:
        load = Load.of(options.resources, options.clusters, 4)
        await fleet.replicas("monitor", 1)
        await fleet.replicas("workload", 1)
        await fleet.lend(options.clouds, SHAPE)
        for number, resource_id in enumerate(load.resources):
            for event in introduce(resource_id, number):
                await fleet.bus.publish(to_message(event, "/tides/bench"))
        await _all_run(fleet)
        await _judge(fleet, load, range(1))  # every cluster is known afterwards
        for number, count in enumerate(options.replicas):
            ticks = range(1 + number * options.rounds, 1 + (number + 1) * options.rounds)
            rows.append(await _measure(fleet, load, count, ticks, options.window))
            KEPT.parent.mkdir(parents=True, exist_ok=True)
            KEPT.write_text(json.dumps(rows))
        await _all_run(fleet)
        wrong = await fleet.audit()
    report(rows, wrong, options)
    return not wrong


async def _measure(fleet: Fleet, load: Load, count: int, ticks: range, window_s: float) -> Figures:
    monitors = await fleet.replicas("monitor", count)
    workloads = await fleet.replicas("workload", count)
    await until(lambda: _shared(fleet, count), timeout=TAKEN_WITHIN_S, what="clouds shared among monitors")
    judged = await _judge(fleet, load, ticks)
    watched = await _watch(monitors, window_s)
    lost = {}
    if count > 1:
        for service, replicas in (("monitor", monitors), ("workload", workloads)):
            lost[f"{service}_taken_over_s"] = await _lose_one(fleet, service, replicas)
    return {"replicas": count, **judged, **watched, **lost}


async def _judge(fleet: Fleet, load: Load, ticks: Sequence[int]) -> Figures:
    """Rounds at once: judged samples per second over all replicas."""
    replicas = [each for name, each in fleet.deployment.processes.items() if name.startswith("workload")]
    before, began = sum(map(cpu_s, replicas)), time.perf_counter()
    for tick in ticks:
        messages = [to_message(load.message(each, tick), "/tides/bench") for each in load.resources]
        await asyncio.gather(*(fleet.bus.publish(message) for message in messages))
    query = "select count(*) from workload.cluster where sampled_at >= $1 and resource_id = any($2)"

    async def all_judged() -> bool:
        found = await fleet.database.fetchval(query, load.at(ticks[-1]), load.resources)
        return bool(found == load.samples)

    await until(all_judged, timeout=600, what="every cluster judged")
    took, count = time.perf_counter() - began, load.samples * len(ticks)
    return {
        "judged_per_s": count / took,
        "judge_us": 1e6 * (sum(map(cpu_s, replicas)) - before) / count,
    }


async def _watch(monitors: Sequence[Process], window_s: float) -> Figures:
    """Rounds per second over all monitors, what one costs, and how evenly they are shared."""
    before = [(await metrics_of(each), cpu_s(each)) for each in monitors]
    await asyncio.sleep(window_s)
    after = [(await metrics_of(each), cpu_s(each)) for each in monitors]
    rounds = sum(total(metrics, "tides_monitor_rounds_total") for metrics, _ in after)
    rounds -= sum(total(metrics, "tides_monitor_rounds_total") for metrics, _ in before)
    spent = sum(cpu for _, cpu in after) - sum(cpu for _, cpu in before)
    held = [total(metrics, "tides_monitor_held") for metrics, _ in after]
    return {
        "rounds_per_s": rounds / window_s,
        "round_ms": 1000 * spent / max(1.0, rounds),
        "most_held": max(held),
        "least_held": min(held),
    }


async def _shared(fleet: Fleet, count: int) -> bool:
    query = "select count(distinct lease_token) from monitor.resource where lease_until > now() and not gone"
    await asyncio.sleep(0.2)
    return bool(await fleet.database.fetchval(query) == min(count, len(fleet.clouds)))


async def _lose_one(fleet: Fleet, service: str, replicas: Sequence[Process]) -> float:
    """Kill a replica that holds as much as any; seconds until others hold all of it. It is started again."""
    victim = await _busiest(service, replicas)
    # Which of the tokens is whose is not told: the dead one's is that of which all has gone to others.
    holders = await fleet.database.fetch(
        f"select lease_token as token, array_agg(id) as ids from {service}.resource"
        " where lease_until > now() and not gone group by 1"
    )
    began = time.perf_counter()
    await victim.kill()
    query = (
        f"select count(*) from {service}.resource where id = any($1)"
        " and lease_token is distinct from $2 and lease_until > now()"
    )

    async def all_taken() -> bool:
        counts = [await fleet.database.fetchval(query, each["ids"], each["token"]) for each in holders]
        return any(count == len(each["ids"]) for count, each in zip(counts, holders, strict=True))

    await until(all_taken, timeout=TAKEN_WITHIN_S, what=f"the leases of {victim.name} taken over")
    took = time.perf_counter() - began
    await victim.start()
    return took


async def _busiest(service: str, replicas: Sequence[Process]) -> Process:
    held = [total(await metrics_of(each), f"tides_{service}_held") for each in replicas]
    return replicas[held.index(max(held))]


async def _all_run(fleet: Fleet) -> None:
    wanted = len(fleet.clouds) * SHAPE.machines

    async def all_run() -> bool:
        await asyncio.sleep(0.2)
        return await fleet.running() == wanted

    await until(all_run, timeout=600, what=f"{wanted} machines")


def report(rows: Sequence[Figures], wrong: Sequence[str], options: argparse.Namespace) -> None:
    """A table for people and one line for programs; speed-ups are over the first row."""
    for row in rows:
        row["judging_speed_up"] = row["judged_per_s"] / rows[0]["judged_per_s"]
    table = Table(title=f"{options.clouds} clouds lent to, {os.cpu_count()} cores")
    table.add_column("replicas")
    for row in rows:
        table.add_column(f"{row['replicas']:g}", justify="right")
    for name in dict.fromkeys(name for row in rows for name in row if name != "replicas"):
        table.add_row(name, *(f"{row[name]:,.4g}" if name in row else "" for row in rows))
    Console().print(table)
    print(json.dumps({"bench": "replicas", **vars(options), "rows": rows, "wrong": wrong}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--clouds", type=int, default=40, help="clouds that are watched and lent to")
    parser.add_argument("--resources", type=int, default=40, help="resources whose samples are judged")
    parser.add_argument("--clusters", type=int, default=50, help="of each of those")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=float, default=30.0, help="seconds for which monitors are watched")
    configure("WARNING")
    raise SystemExit(0 if asyncio.run(main(parser.parse_args())) else 1)
