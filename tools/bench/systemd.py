"""deploy/systemd for real: two VMs whose first process is systemd, installed as README.md says, on a simulated cloud.

PostgreSQL and RabbitMQ are private ones of this machine. Every service runs on the first VM, monitor and workload on
the second, too. It looks at how they are shut in, lends, kills, stops, installs again, upgrades and starts a VM anew;
then all is gone. It needs root, namespaces and cgroups that let systemd be a first process, and a package index.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import asyncpg

from services.cli.run import SERVICES as ALL
from tools.bench._systemd_vm import SCALED, Vm, insist, new_installation
from tools.bench._timed import timed
from tools.parts import PartMissing
from tools.parts.postgres import PostgresServer
from tools.parts.rabbitmq import RabbitNode
from tools.parts.wire import Wire

STOPPED_WITHIN_S = 20.0
BACK_WITHIN_S = 60.0
"""Restart= waits for five seconds; the rest is its start."""


def main() -> None:
    """Run it; what is seen is printed."""
    parser = argparse.ArgumentParser(
        prog="./dev bench systemd",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--chaos-minutes", type=float, default=0.7)
    given = parser.parse_args()
    try:
        asyncio.run(_with_stores(given.chaos_minutes))
    except PartMissing as missing:
        sys.exit(str(missing))


async def _with_stores(chaos_minutes: float) -> None:
    """Servers of ours, the database by TCP: a service's own user may not reach another's socket."""
    postgres, rabbit = PostgresServer(), RabbitNode()
    try:
        await postgres.start()
        await rabbit.start()
        database = await postgres.create_database("tides")
        async with Wire.before(database) as wire:
            url = wire.url.replace("@", ":hush-of-the-database@", 1)
            await asyncio.to_thread(
                _rehearse, database, {"database_url": url, "bus_url": rabbit.url}, chaos_minutes
            )
    finally:
        await rabbit.close()
        await postgres.close()


def _rehearse(database: str, stores: dict[str, str], chaos_minutes: float) -> None:
    with ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="tides-systemd-", ignore_cleanup_errors=True)
        place = Path(stack.enter_context(folder))
        installation = new_installation(stores)
        one, two = Vm("one", place, installation, ALL), Vm("two", place, installation, SCALED)
        for vm in (one, two):
            stack.callback(vm.machine.close)
            timed(f"{vm.name}: systemd is up", vm.machine.start)
            vm.prepare()
            timed(f"{vm.name}: {len(vm.services)} services installed and ready", vm.install)
        one.is_shut_in()
        _doctor(one)
        two.knows(one)
        _doctor(two, "TIDES_TOKEN_FILE=/root/token")
        print("\n".join(one.job("lend")), flush=True)
        timed("one: installed again, nothing new", _again(one))
        _killed(two)
        _chaos(one, chaos_minutes)
        print("\n".join(one.job("yield")), flush=True)
        _upgrade(two)
        _backtest(one)
        _stop(database, one, two)
        timed("one: off", one.machine.stop)
        timed("one: systemd is up again", one.machine.start)
        timed("one: every service is ready again", lambda: one.all_ready(120))


def _again(vm: Vm) -> Callable[[], None]:
    """The same version: nothing is built, settings stay."""

    def again() -> None:
        before = vm.run("sh", "-c", "readlink /opt/tides; cat /etc/tides/*.env; ls /opt")
        vm.install("policy")
        insist(
            before == vm.run("sh", "-c", "readlink /opt/tides; cat /etc/tides/*.env; ls /opt"),
            "nothing changes",
        )

    return again


def _doctor(vm: Vm, *before: str) -> None:
    found = json.loads(vm.run("env", *before, "tides", "doctor", "--json"))["checks"]
    wrong = [one for one in found if one["grade"] != "ok"]
    insist(not wrong, f"the doctor finds nothing: {wrong}")
    print(f"{vm.name}: tides doctor: {len(found)} of {len(found)} ok", flush=True)


def _backtest(vm: Vm) -> None:
    """In stats, by a process that steps back; a first step of five minutes must have been seen."""
    words = ("tides", "policy", "backtest", "--policy", "preset:balanced", "--cluster", "lab", "--days", "1")

    def is_told() -> bool:
        said = vm.machine.attempt(*words)
        insist(said.returncode == 0 or "nothing was measured" in said.stderr, f"a backtest: {said.stderr}")
        return said.returncode == 0

    vm.until(is_told, 400, look_every_s=5)
    print(f"{vm.name}: a backtest is told", flush=True)


def _killed(vm: Vm) -> None:
    """kill -9: systemd starts it again."""
    first = vm.pid("workload")
    vm.run("sh", "-c", f"kill -9 {first}")

    def is_back() -> bool:
        return vm.pid("workload") not in (0, first) and vm.is_ready("workload")

    timed(f"{vm.name}: workload was killed and is ready again", lambda: vm.until(is_back, BACK_WITHIN_S))


def _chaos(vm: Vm, minutes: float) -> None:
    words = ("--only", "workload,monitor,registry", "--mean", "6s", "--seed", "7", "--json")
    said = vm.machine.attempt(
        "tides", "chaos", "--systemd", *words, "--minutes", f"{minutes}", "--yes", "--lending"
    )
    insist(said.returncode == 0, f"accounts agree after chaos: {said.stdout[-1500:]}{said.stderr[-1500:]}")
    told = json.loads(said.stdout)
    accounts = ", ".join(f"{one['name']}: {one['told']}" for one in told["accounts"])
    print(f"{vm.name}: tides chaos: {told['falls']}; {accounts}", flush=True)


def _upgrade(vm: Vm) -> None:
    """What is not named runs on from the version before, until it is started again."""
    before = vm.run("readlink", "/opt/tides").strip()
    vm.run("sed", "-i", 's/^version = .*/version = "99.0"/', "/root/tides/pyproject.toml")
    timed(f"{vm.name}: monitor upgraded and ready", lambda: vm.install("monitor"))
    insist((vm.version("monitor"), vm.version("workload") != "99.0") == ("99.0", True), "only monitor is new")
    insist(before in vm.run("cat", f"/proc/{vm.pid('workload')}/cmdline"), "workload runs from before")
    vm.run("systemctl", "restart", "tides@workload")
    vm.all_ready(60)
    insist(vm.version("workload") == "99.0", "workload is new once it is started again")


def _stop(database: str, *vms: Vm) -> None:
    """One after the other: the next one has the cloud, and after the last nobody."""
    for vm in vms:

        def is_held() -> bool:
            return None not in asyncio.run(_leases(database))

        timed("the cloud is held", partial(vm.until, is_held, 60))
        for service in SCALED:
            began = time.monotonic()
            vm.run("systemctl", "stop", f"tides@{service}")
            took_s = time.monotonic() - began
            result = vm.run("systemctl", "show", "-P", "Result", f"tides@{service}").strip()
            insist(
                (took_s < STOPPED_WITHIN_S, result) == (True, "success"),
                f"{service} stops in order: {result}",
            )
            print(f"{vm.name}: {service} stopped after {took_s:.1f} s", flush=True)
    insist(asyncio.run(_leases(database)) == [None, None], "leases are given back")


async def _leases(url: str) -> list[object]:
    """Who holds the cloud, for monitor and for workload."""
    connection = await asyncpg.connect(url)
    try:
        query = "select lease_token from monitor.resource union all select lease_token from workload.resource"
        return [row["lease_token"] for row in await connection.fetch(query)]
    finally:
        await connection.close()


if __name__ == "__main__":
    main()
