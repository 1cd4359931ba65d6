"""Ten thousand machines that contact their account manager every five minutes: how long a reply takes, and CPU used.

The service runs as a process on a PostgreSQL of its own. Contacts come as they would: at random, each on a connection
of its own, with a real client's request. Then all come at once, as after an outage.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from uuid import uuid4

import aiohttp
import asyncpg
import psutil

from libs.boinc.manager import parse_reply
from libs.boinc.signing import SigningKey
from libs.common.auth import generate_signing_keys
from libs.common.clock import WallClock
from libs.common.log import configure
from libs.common.secrets import Vault, authenticator_context, fresh_key, parse_keys
from services.contribution.domain import token_hash
from tools.parts import slots
from tools.parts.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
REQUEST = ROOT / "tests" / "unit" / "boinc" / "data" / "request_7.20.5.xml"
URL = "http://project.example/lab/"
EVERY_S = 300.0
AT_ONCE = 64
START_S = 30.0


@dataclass(frozen=True)
class Service:
    """The service under test."""

    url: str
    process: psutil.Process
    database: psutil.Process

    def cpu_s(self) -> tuple[float, float]:
        """CPU seconds of the service and of all of its PostgreSQL, so far."""
        mine = self.process.cpu_times()
        theirs = [self.database, *self.database.children(recursive=True)]
        return mine.user + mine.system, sum(sum(each.cpu_times()[:2]) for each in theirs)


async def main(machines: int, seconds: float) -> None:
    """Measure and print a table and one line of JSON."""
    async with bench(machines) as service:
        bodies = [
            REQUEST.read_bytes().replace(b"d" * 32, _token(number).encode()) for number in range(machines)
        ]
        await contact(service, bodies[: AT_ONCE * 2], None)  # connections and plans
        steady = await measured(
            service, random.choices(bodies, k=round(machines / EVERY_S * seconds)), seconds
        )
        burst = await measured(service, bodies, None)
    print(f"{machines} machines, one contact each in {EVERY_S:.0f} s, for {seconds:.0f} s; then all at once")
    for name, row in (("steady", steady), ("at once", burst)):
        print(
            f"{name:<8} {row['contacts']:>6.0f} contacts, {row['per_s']:>6.1f}/s   p50 {row['p50_ms']:>6.1f} ms"
            f"   p99 {row['p99_ms']:>7.1f} ms   service {row['service_cores']:.3f} cores, PostgreSQL"
            f" {row['database_cores']:.3f}   {row['service_ms_each']:.2f} ms of CPU each"
            f"   {row['told_to_go_on']:.0f} told to go on"
        )
    print(json.dumps({"machines": machines, "steady": steady, "at_once": burst}))


async def measured(service: Service, bodies: Sequence[bytes], seconds: float | None) -> dict[str, float]:
    """Figures of these contacts, spread over so many seconds or as fast as they go."""
    before, began = service.cpu_s(), time.perf_counter()
    contacts = await contact(service, bodies, seconds)
    took = [took_s for took_s, _ in contacts]
    wall_s = time.perf_counter() - began
    spent = [now - then for now, then in zip(service.cpu_s(), before, strict=True)]
    cuts = quantiles(took, n=100)
    return {
        "contacts": len(took),
        "told_to_go_on": sum(not told for _, told in contacts),
        "per_s": len(took) / wall_s,
        "p50_ms": cuts[49] * 1000,
        "p99_ms": cuts[98] * 1000,
        "service_cores": spent[0] / wall_s,
        "database_cores": spent[1] / wall_s,
        "service_ms_each": spent[0] / len(took) * 1000,
    }


async def contact(
    service: Service, bodies: Sequence[bytes], seconds: float | None
) -> list[tuple[float, bool]]:
    """Seconds that each contact took, and whether it was told its project: a service that is late says "go on".

    A client opens a connection for each; at once, no more than AT_ONCE.
    """
    room = asyncio.Semaphore(AT_ONCE)
    connector = aiohttp.TCPConnector(limit=0, force_close=seconds is not None)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def one(body: bytes) -> tuple[float, bool]:
            await asyncio.sleep(random.uniform(0, seconds) if seconds else 0)
            async with room:
                began = time.perf_counter()
                async with http.post(f"{service.url}/boinc/rpc.php", data=body) as answer:
                    reply = parse_reply(await answer.read())
                took = time.perf_counter() - began
            return took, [account.url for account in reply.accounts] == [URL]

        return await asyncio.gather(*(one(body) for body in bodies))


@asynccontextmanager
async def bench(machines: int) -> AsyncIterator[Service]:
    """The service with so many machines that have come before."""
    configure("WARNING")
    server = PostgresServer()
    await server.start()
    key, port, (_, verify_keys) = fresh_key(), slots.free_port(), generate_signing_keys()
    signer = SigningKey.generate()
    process = None
    try:
        url = await server.create_database("bench")
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "TIDES_DATABASE_URL": url,
            "TIDES_SEALING_KEYS": f"k:{key}",
            "TIDES_VERIFY_KEYS": verify_keys,
            "TIDES_PORT": str(port),
            "TIDES_BOINC_SIGNING_KEY": signer.public.text,
            "TIDES_INSTALLATION_ID": str(uuid4()),
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.cli", "run", "contribution"),
            cwd=ROOT,
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await _until_ready(port)
        await _fill(url, machines, Vault(parse_keys(f"k:{key}")), signer)
        connection = await asyncpg.connect(url)
        leader = psutil.Process(await connection.fetchval("SELECT pg_backend_pid()")).parent()
        await connection.close()
        assert leader is not None
        yield Service(f"http://127.0.0.1:{port}", psutil.Process(process.pid), leader)
    finally:
        if process is not None:
            process.terminate()
            await process.wait()
        await server.close()


async def _fill(url: str, machines: int, vault: Vault, signer: SigningKey) -> None:
    now, project, contribution, organisation = WallClock().now(), uuid4(), uuid4(), uuid4()
    later = now.replace(year=now.year + 1)
    ids = [uuid4() for _ in range(machines)]
    sealed = vault.seal("1_" + "a" * 32, authenticator_context(contribution))
    connection = await asyncpg.connect(url)
    await connection.execute("SET search_path TO contribution")
    await connection.execute(
        "INSERT INTO project (id, name, url, url_signature, created_at) VALUES ($1, 'Lab', $2, $3, $4)",
        *(project, URL, signer.sign(URL), now),
    )
    await connection.execute(
        "INSERT INTO contribution (id, organisation_id, project_id, weight, active, gone, sealed_authenticator,"
        " revision, created_at, updated_at) VALUES ($1, $2, $3, 70, true, false, $4, 1, $5, $5)",
        *(contribution, organisation, project, sealed, now),
    )
    rows = [(each, organisation, uuid4(), 4, 2, now) for each in ids]
    columns = ["id", "organisation_id", "resource_id", "vcpus", "stage", "at"]
    await connection.copy_records_to_table("machine", records=rows, columns=columns)
    columns = ["sha256", "machine_id", "standing", "rotates_at"]
    tokens = [(token_hash(_token(number)), each, 1, later) for number, each in enumerate(ids)]
    await connection.copy_records_to_table("guest_token", records=tokens, columns=columns)
    await connection.close()


async def _until_ready(port: int) -> None:
    async with asyncio.timeout(START_S), aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.get(f"http://127.0.0.1:{port}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


def _token(number: int) -> str:
    return f"{number:032x}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="./dev bench account-manager", description=__doc__)
    parser.add_argument("--machines", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    asyncio.run(main(given.machines, given.seconds))
