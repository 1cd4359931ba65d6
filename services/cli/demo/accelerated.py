"""Days within minutes: a stepped clock that moves only when nothing is left to do, then one summary."""

import asyncio
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from libs.boinc.signing import SigningKey
from libs.common.clock import SteppedClock
from libs.common.log import configure
from libs.common.runner import Running
from libs.common.settings import Settings, load_settings
from libs.common.stepping import settle, step_until
from libs.providers.base import Connection, sealing_context
from libs.providers.registry import find_driver
from libs.providers.simulated import attach_cloud
from services.cli.client import Client, Failed, Target, open_client
from services.cli.demo.furnish import Cloud, furnish, login_of
from services.cli.demo.guests import Guests
from services.cli.demo.lab import HERE, Lab, open_lab
from services.cli.keep import keep
from services.cli.run import Change, started

START = datetime(2026, 11, 2, tzinfo=UTC)
INTERVAL_S = 60
STRIDE = timedelta(minutes=10)
DRAINED_WITHIN = timedelta(hours=6)
_UNSAID = UUID(int=0)

Summary = dict[str, Any]
"""Numbers by name; `projects` holds some for each project."""


@dataclass(slots=True)
class Stage:
    """A running installation on a stepped clock, and the cloud that it watches."""

    process: Running
    settings: Settings
    clock: SteppedClock
    client: Client
    cloud: Cloud
    resource_id: str = ""
    lab: Lab | None = None
    """The project that is lent to; None: one that nobody asks."""

    async def furnish(self) -> None:
        """Register the cloud and all that it takes to lend it, over REST. Raises Failed."""
        await self.settled()
        self.resource_id = await furnish(self.client, self.cloud, self.settled, self.lab)

    def guests(self) -> Guests:
        """What runs inside the cloud's machines, from now on."""
        assert self.lab is not None
        return Guests(attach_cloud(self.cloud.url, self.clock), self.process.url, self.lab)

    async def settled(self) -> None:
        """Return when nothing is left to do at this moment."""
        await settle(self.process.activity, self.process.bus)

    async def run_to(self, until: datetime) -> None:
        """Let time pass; the clock stands at `until`, also where nothing is due just then."""
        await step_until(self.clock, self.process.activity, self.process.bus, until)
        if self.clock.now() < until:
            self.clock.call_later((until - self.clock.now()).total_seconds(), lambda: None)
            await step_until(self.clock, self.process.activity, self.process.bus, until)


async def run_days(days: float, *, drain: bool = False, progress: bool = False) -> Summary:
    """The summary of so many days, the same every time. Raises Failed."""
    configure("ERROR", "console")
    end = START + timedelta(days=days)
    async with open_stage() as stage:
        await stage.furnish()
        guests = stage.guests()
        with _progress(progress) as bar:
            task = bar.add_task("minutes", total=round(days * 1440))
            while stage.clock.now() < end:
                stop = min(end, stage.clock.now() + STRIDE)
                await stage.run_to(stop)
                await guests.come()
                bar.update(task, completed=(stage.clock.now() - START) // timedelta(minutes=1))
        if drain:
            await _drain(stage, guests)
        else:
            await guests.come(all_of_them=True)
        await bring_credit_home(stage)
        return await summarise(stage)


@asynccontextmanager
async def open_stage(change: Change | None = None, database_url: str | None = None) -> AsyncIterator[Stage]:
    """Every service on a stepped clock, nothing registered yet.

    `change` and `database_url` are for tests: services with something taken away, a server that is there already.
    """
    clock = SteppedClock(START)
    cloud = Cloud(f"sim://days-{secrets.token_hex(6)}", secrets.token_urlsafe(24), INTERVAL_S)
    with tempfile.TemporaryDirectory(prefix="tides-", ignore_cleanup_errors=True) as folder:
        key = SigningKey.generate()
        settings = stepped_settings(Path(folder), database_url, key.public.text)
        async with (
            open_lab(clock, key, secrets.token_urlsafe(16)) as lab,
            started(["all"], settings, clock=clock, durable=False, change=change) as (process, whole),
            open_client(Target(process.url, _token(whole))) as client,
        ):
            yield Stage(process, whole, clock, client, cloud, lab=lab)


def stepped_settings(folder: Path, database_url: str | None, signing_key: str = "") -> Settings:
    """As given here and nowhere else: an accelerated run does not depend on the environment."""
    kept = keep(folder)
    return load_settings(
        data_dir=folder,
        database_url=SecretStr(database_url) if database_url else None,
        bus_url=None,
        sealing_keys=SecretStr(kept.sealing_keys),
        signing_key=SecretStr(kept.signing_key),
        verify_keys=kept.verify_keys,
        bootstrap_admin_token=SecretStr(kept.admin_token),
        installation_id=UUID(kept.installation_id),
        host="127.0.0.1",
        port=0,
        jitter=0.0,
        boinc_signing_key=signing_key,
        boinc_url="",
        boinc_local_projects=HERE,
        beat_floor_s=1.5 * INTERVAL_S,  # a sample wakes whoever has something to do; beats only mend
    )


def _token(settings: Settings) -> SecretStr:
    token = settings.bootstrap_admin_token
    assert token is not None
    return token


def _progress(is_shown: bool) -> Progress:
    return Progress(
        TextColumn("simulated"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("minutes"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        disable=not is_shown,
        transient=True,
    )


async def _drain(stage: Stage, guests: Guests) -> None:
    """Give everything back and let time run until the cloud has nothing of ours. Raises Failed."""
    path = f"/v1/resources/{stage.resource_id}/mode"
    await stage.client.call("POST", path, {"mode": "draining", "force": False})
    await stage.settled()
    await guests.come(all_of_them=True)  # they hand in what is done
    deadline = stage.clock.now() + DRAINED_WITHIN
    while await _known_machines(stage) or await machines_on(stage):
        if stage.clock.now() >= deadline:
            raise Failed(f"machines are left {DRAINED_WITHIN} after the end")
        await stage.run_to(stage.clock.now() + timedelta(seconds=INTERVAL_S))
        await guests.come()


async def bring_credit_home(stage: Stage) -> None:
    """Have the project asked now instead of at its next turn, as whoever logs in anew does. Raises Failed."""
    assert stage.lab is not None
    for account in await stage.client.pages("/v1/accounts"):
        await stage.client.call("PUT", f"/v1/accounts/{account['id']}/login", login_of(stage.lab))
    await stage.settled()


async def _known_machines(stage: Stage) -> int:
    return len(await stage.client.pages("/v1/machines", live=True))


async def machines_on(stage: Stage) -> int:
    """How many machines the cloud itself has, asked through the Provider."""
    cloud, vault = stage.cloud, stage.settings.vault()
    connection = Connection(
        resource_id=UUID(stage.resource_id),
        installation_id=stage.settings.installation_id or _UNSAID,
        url=cloud.url,
        username="tides",
        sealed_secret=vault.seal(cloud.password, sealing_context(cloud.url, None, None)),
        ca_pem=None,
        thumbprint=None,
        settings={},
    )
    provider = await find_driver("simulated").open(connection, vault, stage.clock)
    try:
        return len(await provider.machines())
    finally:
        await provider.aclose()


async def summarise(stage: Stage) -> Summary:
    """What the services and the cloud say of the whole run."""
    await stage.settled()
    until = stage.clock.now() + timedelta(seconds=1)
    span = {"from": START.isoformat(), "to": until.isoformat()}
    told, decisions, left, projects = await asyncio.gather(
        stage.client.call("GET", "/v1/stats/summary", params=span),
        stage.client.pages("/v1/decisions"),
        machines_on(stage),
        _projects(stage, until),
    )
    return {
        "samples": told["samples"],
        "decisions": len(decisions),
        "deploys": told["deploys"],
        "destroys": told["destroys"],
        "limit_changes": told["limit_changes"],
        "core_hours": told["core_hours"],
        "contention_percent": told["contention_percent"],
        "machines_left": left,
        "events": told["events"],
        "credit": round(sum(project["credit"] for project in projects.values()), 3),
        "projects": projects,
    }


async def _projects(stage: Stage, until: datetime) -> dict[str, dict[str, float]]:
    """What each project granted, and the core-hours that machines say they computed for it."""
    days = {"since": str(START.date()), "until": str((until + timedelta(days=1)).date()), "by": "project"}
    projects, granted, claimed = await asyncio.gather(
        stage.client.pages("/v1/projects"),
        stage.client.call("GET", "/v1/grants", params=days),
        stage.client.call("GET", "/v1/claims", params=days),
    )
    credit = {item["of"]: item["credit"] for item in granted["items"]}
    hours = {item["of"]: item["core_hours"] for item in claimed["items"]}
    return {
        one["name"]: {"core_hours": hours.get(one["id"], 0.0), "credit": credit.get(one["id"], 0.0)}
        for one in projects
    }
