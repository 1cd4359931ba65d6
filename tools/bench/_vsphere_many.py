"""Twenty vCenters of 100 hosts on one monitor: how long rounds take, and what share of a core they use."""

import argparse
import asyncio
import json
import os
import sys
import time
from contextlib import AsyncExitStack
from statistics import median
from typing import Any
from uuid import uuid4

from libs.common.clock import WallClock
from libs.common.log import configure
from libs.common.loop import run_loop
from libs.common.secrets import KEY_BYTES, Vault
from libs.providers.base import Connection, Provider, sealing_context
from libs.providers.registry import load_driver
from tools.bench._vsphere_sides import Watch
from tools.parts.vcsim import Vcsim

VCENTERS, HOSTS, VMS, INTERVAL_S, ROUNDS = 20, 100, 200, 20.0, 4


async def main() -> None:
    """Start the vCenters and measure in a process of its own."""
    async with AsyncExitStack() as stack:
        places = []
        for number in range(VCENTERS):
            vcsim = Vcsim()
            stack.push_async_callback(vcsim.close)
            await vcsim.start(clusters=4, hosts=HOSTS // 4, vms=VMS // 4, flags=("-perf-default", "1"))
            places.append({"url": vcsim.url, "ca_file": str(vcsim.ca_file), "user": vcsim.username})
            print(f"vCenter {number + 1} of {VCENTERS} runs", file=sys.stderr)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tools.bench._vsphere_many"), stdin=asyncio.subprocess.PIPE
        )
        await process.communicate(json.dumps({"places": places, "password": Vcsim.password}).encode())


async def monitor(task: dict[str, Any]) -> None:
    """Sample all of them every 20 s, spread over the interval as the monitor's jitter does it."""
    vault = Vault({"k1": b"k" * KEY_BYTES})
    driver = await load_driver("vsphere")
    providers = []
    for place in task["places"]:
        with open(place["ca_file"]) as file:  # noqa: ASYNC230 - before anything is measured
            ca_pem = file.read()
        sealed = vault.seal(task["password"], sealing_context(place["url"], ca_pem, None))
        connection = Connection(uuid4(), uuid4(), place["url"], place["user"], sealed, ca_pem=ca_pem)
        providers.append(await driver.open(connection, vault, WallClock()))
    await asyncio.gather(*(provider.sample(None) for provider in providers))
    watch = Watch()
    watching = asyncio.create_task(watch.run())
    began, spent = time.monotonic(), time.process_time()
    rounds = await asyncio.gather(*(_sample(each, number) for number, each in enumerate(providers)))
    wall, cpu = time.monotonic() - began, time.process_time() - spent
    watching.cancel()
    took = [second for each in rounds for second in each]
    report(took, wall, cpu, watch)
    await asyncio.gather(*(provider.aclose() for provider in providers))


async def _sample(provider: Provider, number: int) -> list[float]:
    await asyncio.sleep(INTERVAL_S * number / VCENTERS)
    took = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        samples = await provider.sample(None)
        took.append(time.monotonic() - began)
        assert sum(len(sample.hosts) for sample in samples) == HOSTS
        await asyncio.sleep(max(0.0, INTERVAL_S - took[-1]))
    return took


def report(took: list[float], wall: float, cpu: float, watch: Watch) -> None:
    """A few lines for people and one for programs. The core's share is over the time that all rounds stand for."""
    busy = ROUNDS * INTERVAL_S
    figures = {
        "rounds": len(took),
        "median_s": round(median(took), 3),
        "longest_s": round(max(took), 3),
        "late": sum(second > INTERVAL_S for second in took),
        "core_share": round(cpu / busy, 3),
        "stall_ms": round(1000 * watch.stall_s),
        "stall_cpu_ms": round(1000 * watch.stall_cpu_s),
        "wall_s": round(wall, 1),
        "load": os.getloadavg()[0],
    }
    print(f"{VCENTERS} vCenters of {HOSTS} hosts, every {INTERVAL_S:.0f} s: {figures}")
    print(json.dumps({"bench": "vsphere-many"} | figures))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    configure("WARNING")
    run_loop(monitor(json.load(sys.stdin)))
