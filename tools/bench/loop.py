"""How long it takes from a sample in the cloud to the decision, and to the limit in the cloud.

The services run as processes on RabbitMQ, PostgreSQL and vcsim. Two clocks start each round: when the sample is
there to be read, and when the monitor has it (the time between is the monitor's interval, a setting). The baseline
is measured in the same run: the driver alone, sample() and set_limits() in one process, with nobody between.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import asyncpg
from pyVmomi import vim

from libs.common.clock import WallClock
from libs.common.log import configure
from tests.contract.providers.vsphere_target import HOST_MHZ, VSphereTarget, opened
from tests.support import until
from tests.system.installing import POLICY, PROCESSES, Installed, install
from tests.system.lab import Lab, owners
from tests.system.processes import Deployment
from tools.parts.postgres import PostgresServer
from tools.parts.rabbitmq import RabbitNode
from tools.parts.vcsim import Vcsim

# Every sample moves the limit: no spread is kept free, nothing climbs slowly, no change is too small.
TWITCHY: dict[str, Any] = {**POLICY, "sigma": 0.0, "rise_s": 1.0, "dead_band": 0.0, "margin": 0.0}
LOW, STEP, STEPS = 0.10, 0.09, 6
"""The owner's share of a host climbs in steps, each of which cuts; then it falls, and limits rise in their own time."""
LEAST_CHANGE_MHZ = 250
LOOK_EVERY_S = 0.003
GIVE_UP_S = 30.0


@dataclass(frozen=True)
class Round:
    """Seconds since the sample was in the cloud."""

    received_s: float
    decided_s: float
    limited_s: float


async def main(rounds: int) -> None:
    """Measure and print a table and one line of JSON."""
    async with bench() as (installed, lab, database):
        found = [await one_round(installed, lab, database, number) for number in range(rounds + 2)][2:]
        samples, limits = await baseline(lab, rounds)
    report(found, samples, limits)


@asynccontextmanager
async def bench() -> AsyncIterator[tuple[Installed, Lab, asyncpg.Connection]]:
    """An installation that lends three machines, and a look into workload's schema."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        vcsim, rabbit, postgres = Vcsim(), RabbitNode(), PostgresServer()
        for part in (vcsim, rabbit, postgres):
            stack.push_async_callback(part.close)
            await part.start()
        url = await postgres.create_database("tides")
        lab = await stack.enter_async_context(owners(vcsim, running=False))
        lab.set_owner(LOW)
        await lab.tick()
        deployment = Deployment(folder, url, rabbit.url)
        stack.push_async_callback(deployment.stop)
        await deployment.start_all(PROCESSES)
        installed = await install(deployment, lab, policy=TWITCHY)
        await installed.set_mode("lend")
        await until(lambda: _lends(lab), timeout=120, what="three machines with limits")
        database = await asyncpg.connect(url)
        stack.push_async_callback(database.close)
        yield installed, lab, database


async def _lends(lab: Lab) -> bool:
    await lab.tick()
    await asyncio.sleep(1)
    vms = await lab.ours()
    return len(vms) == 3 and all(vm.is_on and 1000 < vm.limit_mhz < HOST_MHZ for vm in vms)


async def _has_risen(lab: Lab) -> bool:
    await lab.tick()
    await asyncio.sleep(0.2)
    vms = await lab.ours()
    return bool(vms) and vms[0].limit_mhz > HOST_MHZ * (1 - LOW) * 0.8


async def one_round(installed: Installed, lab: Lab, database: asyncpg.Connection, number: int) -> Round:
    """Raise the owner's load, and wait for the decision and for the limit."""
    step = number % STEPS
    if step == 0:
        lab.set_owner(LOW)
        await until(lambda: _has_risen(lab), timeout=120, what="a limit that has risen again")
    await asyncio.sleep(
        random.uniform(0.5, 1.5)
    )  # the sample must meet the monitor at any point of its interval
    vm = (await lab.ours())[0]
    lab.owner[vm.host] = LOW + STEP * (step + 1)
    known = await database.fetchval("select sampled_at from workload.cluster")
    await lab.tick()
    began = _now_s()
    decided = asyncio.create_task(_decided(database, known, began))
    limited = asyncio.create_task(_limited(lab, vm.ref, vm.limit_mhz))
    received_at, decided_at = await decided
    return Round(received_at - began, decided_at - began, await limited - began)


async def _decided(database: asyncpg.Connection, known: Any, began: float) -> tuple[float, float]:
    """When the monitor had the sample, and when the decision about it was committed."""
    query = "select heard_at from workload.cluster where sampled_at > $1 and heard_at > to_timestamp($2)"
    async with asyncio.timeout(GIVE_UP_S):
        while (heard_at := await database.fetchval(query, known, began)) is None:  # noqa: ASYNC110 - a commit is not announced
            await asyncio.sleep(LOOK_EVERY_S)
    return heard_at.timestamp(), _now_s()


async def _limited(lab: Lab, ref: str, before: int) -> float:
    """When the cloud shows a limit that is far from the one before."""

    def wait(content: Any) -> float:
        vm: Any = vim.VirtualMachine(ref, content.rootFolder._stub)
        deadline = time.monotonic() + GIVE_UP_S
        while abs(vm.config.cpuAllocation.limit - before) < LEAST_CHANGE_MHZ:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the limit of {ref} stays at {before} MHz")
            time.sleep(LOOK_EVERY_S)
        return _now_s()

    return await lab.eye.run(wait)


def _now_s() -> float:
    """The clock that all processes of the machine share."""
    return WallClock().now().timestamp()


async def baseline(lab: Lab, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of the driver's own sample() and set_limits(), for as many machines, called directly."""
    samples, limits = [], []
    async with opened(lab.vcsim) as target:
        names = await _machines(target, len(lab.hosts))
        for number in range(rounds):
            began = time.perf_counter()
            await target.provider.sample(None)
            samples.append(time.perf_counter() - began)
            began = time.perf_counter()
            await target.provider.set_limits(
                target.cluster, 6000.0 + number, dict.fromkeys(names, 1000.0 + number)
            )
            limits.append(time.perf_counter() - began)
    return samples, limits


async def _machines(target: VSphereTarget, count: int) -> list[str]:
    specs = [target.make_spec() for _ in range(count)]
    for spec in specs:
        await target.provider.create(spec)
    return [spec.name for spec in specs]


def report(rounds: Sequence[Round], samples: Sequence[float], limits: Sequence[float]) -> None:
    """A table for people and one line for programs, in milliseconds."""
    rows = {
        "sample in cloud -> received": [each.received_s for each in rounds],
        "sample in cloud -> decision": [each.decided_s for each in rounds],
        "sample in cloud -> limit": [each.limited_s for each in rounds],
        "received -> decision": [each.decided_s - each.received_s for each in rounds],
        "received -> limit": [each.limited_s - each.received_s for each in rounds],
        "driver alone: sample()": samples,
        "driver alone: set_limits()": limits,
    }
    figures = {name: _percentiles(seconds) for name, seconds in rows.items()}
    print(f"{len(rounds)} rounds, in ms{'':<15}{'p50':>9}{'p99':>9}")
    for name, (p50, p99) in figures.items():
        print(f"{name:<30}{p50:>9.1f}{p99:>9.1f}")
    loop = figures["driver alone: sample()"][0] + figures["received -> limit"][0]
    alone = figures["driver alone: sample()"][0] + figures["driver alone: set_limits()"][0]
    print(f"sample() and all that follows, over the driver alone: {loop / alone:.1f} times (p50)")
    print(
        json.dumps(
            {"bench": "loop", "rounds": len(rounds), "ratio": round(loop / alone, 2)} | _named(figures)
        )
    )


def _named(figures: dict[str, tuple[float, float]]) -> dict[str, float]:
    names = {
        name: name.replace(" -> ", "_to_").replace(": ", "_").replace("()", "").replace(" ", "_")
        for name in figures
    }
    return {
        f"{names[name]}_{which}_ms": round(value, 1)
        for name, both in figures.items()
        for which, value in zip(("p50", "p99"), both, strict=True)
    }


def _percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    cuts = quantiles(seconds, n=100, method="inclusive")
    return 1000 * cuts[49], 1000 * cuts[98]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    configure("WARNING")
    asyncio.run(main(arguments.rounds))
