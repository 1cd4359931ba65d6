"""The main job, in a container or VM: `lend` makes everything and waits for machines, `yield` brings their owner back.

`lend patiently` has the times of the preset and of the cloud as they are; without it seconds stand for minutes.
`yield when-told` waits for the file `now` beside the cloud.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from libs.providers.simulated import (
    ClusterDefinition,
    OwnerProfile,
    SimulatedSettings,
    attach_cloud,
    create_cloud,
)
from services.cli.access import find_target
from services.cli.client import Client, Failed, open_client
from services.cli.demo import furnish

CLOUDS = Path(os.environ.get("LAB_CLOUDS", "/clouds"))
URL, PASSWORD = f"sim://{CLOUDS}/lab.json", "lab"
LAB = ClusterDefinition(name="lab", hosts=2, owner=OwnerProfile.IDLE, cores=8, core_mhz=2500, memory_gib=64)
MACHINE = {"template": furnish.WORKER, "vcpus": 4, "memory_mib": 1024, "disk_gib": 5}
FLOOR_MHZ = 4 * 200
INTERVAL_S = 2
SIGN = CLOUDS / "now"
HASTY = SimulatedSettings(clusters=[LAB], interval_s=INTERVAL_S, clone_s=2, boot_s=2)
HURRY: dict[str, Any] = {
    "idle_dwell_s": 6.0,
    "busy_dwell_s": 4.0,
    "cooldown_s": 2.0,
    "rise_s": 4.0,
    "step_machines": 2,
    "stale_after_s": 60.0,
}
TOKEN = Path(os.environ.get("TIDES_TOKEN_FILE", "/run/secrets/bootstrap_admin_token"))


async def until(condition: Callable[[], Awaitable[Any]], seconds: float, what: str) -> Any:
    """Ask every second; the time that it took is printed."""
    began = time.monotonic()
    while not (found := await condition()):
        if time.monotonic() - began > seconds:
            sys.exit(f"not within {seconds:.0f} s: {what}")
        await asyncio.sleep(1)
    print(f"{what}: after {time.monotonic() - began:.0f} s", flush=True)
    return found


async def lend(client: Client) -> None:
    """Everything that a newcomer would type."""
    is_patient = sys.argv[2:] == ["patiently"]
    create_cloud(URL, PASSWORD, SimulatedSettings(clusters=[LAB]) if is_patient else HASTY)
    furnish.MACHINE.update(MACHINE)
    patient, hasty = furnish.Cloud(URL, PASSWORD), furnish.Cloud(URL, PASSWORD, INTERVAL_S, policy=HURRY)
    await furnish.furnish(client, patient if is_patient else hasty)
    await machines_lend(client)


async def machines_lend(client: Client) -> list[str]:
    """Names of two machines that run above their floor."""

    async def running() -> list[str]:
        found = await client.pages("/v1/machines")
        names = sorted(one["name"] for one in found if one["state"] == "running")
        return names if len(names) == 2 else []

    names: list[str] = await until(running, 900, "two machines run")
    await until(lambda: limits(lambda mhz: mhz > FLOOR_MHZ + 50), 900, "their limits are above the floor")
    print("  ".join(names), flush=True)
    return names


async def limits(fits: Callable[[float], bool]) -> bool:
    """Whether every machine's limit in the cloud does."""
    machines = attach_cloud(URL).truth().machines
    return bool(machines) and all(fits(machine.limit_mhz) for machine in machines)


async def is_told() -> bool:
    """Whether somebody outside of the containers made the sign."""
    return SIGN.exists()


async def give_way(client: Client) -> None:
    """The same machines as before; their owner wants nine tenths of each host."""
    names = await machines_lend(client)
    if sys.argv[2:] == ["when-told"]:
        await until(is_told, 300, "the owner is on the way")
    cloud = attach_cloud(URL)
    assert {machine.name for machine in cloud.truth().machines} == set(names)
    for host in {machine.host for machine in cloud.truth().machines}:
        cloud.control.set_owner_load(host, 0.9)
    await until(
        lambda: limits(lambda mhz: mhz <= FLOOR_MHZ), 120, "the owner is back, the limits are at the floor"
    )


async def main() -> None:
    """Wait for identity, then do what was asked."""
    async with open_client(find_target(TOKEN)) as client:

        async def known() -> bool:
            try:
                return bool(await client.call("GET", "/v1/me"))
            except Failed:
                return False

        await until(known, 60, "identity knows the administrator")
        await {"lend": lend, "yield": give_way}[sys.argv[1]](client)


if __name__ == "__main__":
    asyncio.run(main())
