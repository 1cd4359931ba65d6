"""What happens between beginning and end: a cloud lends, its owner returns, leaves, and the cloud is taken away.

Every step is told by the time on the simulated clock, so that a process that was started again knows where it stands.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from libs.common.bus.base import Queue
from libs.common.bus.postgres import PostgresBus
from libs.common.clock import SteppedClock
from libs.providers.simulated import Cloud, ClusterDefinition, SimulatedSettings, attach_cloud, create_cloud
from libs.providers.simulated.settings import OwnerProfile
from services.cli.client import Refused, Target, open_client
from services.cli.demo import furnish as furnishing
from services.cli.demo.accelerated import Stage, stepped_settings
from services.cli.run import started

START = datetime(2026, 11, 2, 3, tzinfo=UTC)
INTERVAL_S = 60
MINUTE = timedelta(minutes=1)
OWNER = {0: 0.1, 16: 0.97, 30: 0.1}
"""The owner's share of every host, from a minute on."""
LENDS_AT = (15, 61)
"""Minutes at which every host must be lent."""
LEAVES_AT, ENDS_AT = 62, 76
PASSWORD = "a simulated password"
WITNESS = "witness"
POLICY: dict[str, Any] = {
    "name": "quick",
    "cpu": {"idle": 0.5, "stop_new": 0.65, "reclaim": 0.8},
    "machine": {"template": "boinc-worker", "vcpus": 8, "memory_mib": 8192, "disk_gib": 20},
    "ladder": {
        "stop_new_after_s": 0.0,
        "suspend_after_s": 60.0,
        "drain_after_s": 120.0,
        "drain_grace_s": 60.0,
        "suspend": True,
    },
    "idle_dwell_s": 120.0,
    "busy_dwell_s": 60.0,
    "sigma": 0.5,
    "cooldown_s": 60.0,
    "rise_s": 60.0,
    "step_machines": 2,
    "stale_after_s": 300.0,
    "release": "destroy",
}


class KeptClock(SteppedClock):
    """A stepped clock whose time outlives the process."""

    def __init__(self, start: datetime, file: Path) -> None:
        super().__init__(start)
        self._file = file

    def advance(self) -> bool:
        moved = super().advance()
        self._file.write_text(self.now().isoformat())
        return moved


@dataclass
class Play:
    """A running installation, and how far its story is."""

    stage: Stage
    folder: Path
    database_url: str
    troubles: list[str]

    @property
    def minute(self) -> int:
        """Of the story, by the simulated clock."""
        return (self.stage.clock.now() - START) // MINUTE

    def cloud(self) -> Cloud:
        """The cloud as its owner sees it."""
        return attach_cloud(cloud_url(self.folder), self.stage.clock)

    async def run(self) -> None:
        """From wherever it stands to the end."""
        self._be_owner(max(minute for minute in OWNER if minute <= self.minute))
        if self.minute >= LEAVES_AT:
            await self._leave()
        while self.minute < ENDS_AT:
            await self.stage.run_to(START + MINUTE * (self.minute + 1))
            if self.minute in OWNER:
                self._be_owner(self.minute)
            if self.minute in LENDS_AT:
                self._must_lend()
            if self.minute == LEAVES_AT:
                await self._leave()

    def _be_owner(self, minute: int) -> None:
        for host in self.cloud().truth().hosts:
            self.cloud().control.set_owner_load(host.host, OWNER[minute])

    def _must_lend(self) -> None:
        machines = self.cloud().truth().machines
        lent = {machine.host for machine in machines if machine.booted and machine.limit_mhz > 8 * 300}
        if len(machines) != 2 or len(lent) != 2:
            told = [(machine.host, machine.power.value, machine.limit_mhz) for machine in machines]
            self.troubles.append(f"minute {self.minute}: every host should be lent, there are {told}")

    async def _leave(self) -> None:
        """Take the cloud away; again after a death, when it may be gone already."""
        try:
            await self.stage.client.call("DELETE", f"/v1/resources/{self.stage.resource_id}")
        except Refused as refused:
            if refused.status != 404:
                raise


def cloud_url(folder: Path) -> str:
    """Where the simulated cloud of a play lies."""
    return f"sim://{folder}/cloud.json"


@asynccontextmanager
async def on_stage(folder: Path, database_url: str) -> AsyncIterator[Play]:
    """The installation, started at the time at which the last process stood."""
    file = folder / "now"
    clock = KeptClock(datetime.fromisoformat(file.read_text()), file)
    settings = stepped_settings(folder / "kept", database_url)
    known = json.loads((folder / "known.json").read_text()) if (folder / "known.json").exists() else {}
    cloud = furnishing.Cloud(cloud_url(folder), PASSWORD, INTERVAL_S)
    async with started(["all"], settings, clock=clock, durable=False) as (process, whole):
        token = whole.bootstrap_admin_token
        assert token is not None
        async with open_client(Target(process.url, token)) as client:
            stage = Stage(process, whole, clock, client, cloud, known.get("resource_id", ""))
            await stage.settled()
            yield Play(stage, folder, database_url, [])


async def prepare(folder: Path, database_url: str) -> None:
    """An installation with a registered cloud that may lend, and a witness that hears every word from now on."""
    (folder / "now").write_text(START.isoformat())
    hosts = ClusterDefinition(name="lab", hosts=2, owner=OwnerProfile.IDLE)
    create_cloud(cloud_url(folder), PASSWORD, SimulatedSettings(clusters=(hosts,), interval_s=INTERVAL_S))
    bus = await PostgresBus.connect(database_url)
    await bus.declare([Queue(WITNESS, ("usage.sampled.#", "action.#"))])
    await bus.aclose()
    async with on_stage(folder, database_url) as play:
        resource_id = await _furnish(play)
        (folder / "known.json").write_text(json.dumps({"resource_id": resource_id}))


async def _furnish(play: Play) -> str:
    """What a newcomer would type, with a quick policy."""
    client, settled = play.stage.client, play.stage.settled
    cloud = play.stage.cloud
    given = {
        "name": "lab",
        "provider": "simulated",
        "url": cloud.url,
        "username": "tides",
        "password": PASSWORD,
        "interval_s": INTERVAL_S,
    }
    resource = await client.call("POST", "/v1/resources", given)
    await settled()
    policy = await client.call("POST", "/v1/policies", POLICY)
    where = {"scope": "resource", "scope_id": resource["id"]}
    await client.call("POST", f"/v1/policies/{policy['id']}/assignments", where)
    template = {"name": "boinc-worker", "resource_id": resource["id"], "reference": "boinc-worker"}
    made = await client.call("POST", "/v1/templates", template)
    await client.call("POST", f"/v1/templates/{made['id']}/versions/1/approve")
    await settled()
    await client.call("POST", f"/v1/resources/{resource['id']}/mode", {"mode": "lend"})
    project = await client.call("POST", "/v1/projects", {"name": "Lab", "url": furnishing.PROJECT_URL})
    terms = {"project_id": project["id"], "weight": 1, "authenticator": f"1_{'a' * 32}"}
    await client.call("POST", "/v1/contributions", terms)
    await settled()
    return str(resource["id"])


LEASES = (
    "update monitor.replica set alive_until = now()",
    "update monitor.resource set lease_until = now() where lease_until > now()",
    "update workload.replica set alive_until = now()",
    "update workload.resource set lease_until = now() where lease_until > now()",
    "update bus.message set visible_at = now() where dead_at is null and visible_at > now()",
)


async def let_leases_end(database_url: str) -> None:
    """What time does after a death: leases run on the database's clock, and nobody wants to wait for it here."""
    connection = await asyncpg.connect(database_url)
    try:
        for statement in LEASES:
            await connection.execute(statement)
        for schema in await outboxes(connection):
            await connection.execute(f'update "{schema}".outbox set claimed_until = null')
    finally:
        await connection.close()


async def outboxes(connection: asyncpg.Connection) -> list[str]:
    """The schemas that have one."""
    rows = await connection.fetch(
        "select table_schema from information_schema.tables where table_name = 'outbox'"
    )
    return [str(row[0]) for row in rows]
