"""One short story on the demo's stage, and what must be true of it: each sentence hangs on one beat or handler."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import IntEnum
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from libs.common import outbox
from libs.common.bus.base import Bus
from libs.common.db import Database
from libs.common.log import configure
from libs.common.service import Service
from libs.providers.simulated import Cloud, attach_cloud
from services.cli.client import Client, Failed, Target, open_client
from services.cli.demo.accelerated import Stage, machines_on, open_stage
from services.cli.demo.furnish import MACHINE, NAME, PRESET

MINUTE = timedelta(minutes=1)
VICTIM = "prod-b"


@dataclass(frozen=True, order=True)
class Part:
    """A beat, or an ear for an event."""

    service: str
    name: str

    def __str__(self) -> str:
        return f"{self.service} {self.name}"


@dataclass
class Findings:
    """Sentences by name, and whether they hold."""

    holds: dict[str, bool] = field(default_factory=dict)
    parts: set[Part] = field(default_factory=set)
    """What was running, the runner's own additions too."""

    def note(self, name: str, holds: object) -> None:
        """A sentence that was true once stays true."""
        self.holds[name] = bool(holds) or self.holds.get(name, False)

    @property
    def broken(self) -> set[str]:
        return {name for name, holds in self.holds.items() if not holds}


def parts_of(service: Service) -> set[Part]:
    """The service's own beats and ears."""
    beats = {Part(service.name, beat.name) for beat in service.beats}
    return beats | {Part(service.name, hears.event.key) for hears in service.hears}


def taken_away(without: set[Part]) -> Callable[[Service], Service]:
    """A service without these; one that has no such part is an error of the test.

    A beat keeps its place and does nothing: what wakes it would otherwise be waited for.
    """

    def change(service: Service) -> Service:
        mine = {part.name for part in without if part.service == service.name} - {"relay"}
        assert {Part(service.name, name) for name in mine} <= parts_of(service)
        return replace(
            service,
            beats=tuple(replace(beat, run=_rest) if beat.name in mine else beat for beat in service.beats),
            hears=tuple(hears for hears in service.hears if hears.event.key not in mine),
        )

    return change


async def _rest() -> None:
    return


@contextmanager
def _relays_taken_away(without: set[Part]) -> Iterator[None]:
    """The runner gives every service its relay, so it is taken away there."""
    schemas = {part.service for part in without if part.name == "relay"}
    original = outbox.relay

    async def relay(database: Database, bus: Bus) -> int:
        return 0 if database.schema in schemas else await original(database, bus)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("libs.common.runner.relay", relay)
        yield


class Chapter(IntEnum):
    """How far the story goes."""

    LENDING = 1
    LOOKING = 2
    SILENCE = 3
    END = 4


def play(database_url: str, without: set[Part], chapter: Chapter = Chapter.END) -> Findings:
    """The story without these parts, in an event loop of its own."""
    configure("ERROR", "console")
    findings = Findings()
    with _relays_taken_away(without):
        asyncio.run(_play(database_url, without, chapter, findings))
    return findings


async def _play(database_url: str, without: set[Part], chapter: Chapter, findings: Findings) -> None:
    async with open_stage(taken_away(without), database_url) as stage:
        for service in stage.process.services:
            findings.parts |= parts_of(service)
        try:
            await _Story(stage, database_url, findings).tell(chapter)
        except Failed as failed:
            findings.note(f"the demo can be set up: {failed}", False)


class _Story:
    """What happens, minute by minute."""

    def __init__(self, stage: Stage, database_url: str, findings: Findings) -> None:
        self._stage = stage
        self._database_url = database_url
        self._note = findings.note

    async def tell(self, chapter: Chapter) -> None:
        """An idle cloud; an outage, a busy owner, vandals, the red button, and the end."""
        await self._lend()
        if chapter >= Chapter.LOOKING:
            await self._look_around()
        if chapter >= Chapter.SILENCE:
            await self._fall_silent()
        if chapter >= Chapter.END:
            await self._be_busy()
            await self._vandalise()
            await self._press_the_button()
            await self._give_back()
            await self._compare_logs()

    async def _lend(self) -> None:
        """Ten minutes: an idle cloud gets machines."""
        await self._be_forgetful()
        await self._stage.furnish()
        for _ in range(10):
            await self._pass(1)
            counts = (await self._client.pages("/v1/contributions"))[0]["machines"]
            self._note("a contribution counts machines on their way", counts["requested"])
            self._note("a contribution counts machines that run", counts["running"])
        clusters = await self._clusters()
        self._note("clusters are judged", clusters and all(one["decided_at"] for one in clusters))
        self._note("machines run", any(one["machines"].get("running") for one in clusters))
        self._note("the cloud has machines", await machines_on(self._stage))
        told = await self._client.call("GET", "/v1/stats/summary", params=self._span())
        self._note("stats has samples", told["samples"])

    async def _be_forgetful(self) -> None:
        """The demo's policy, but that a busy owner is soon forgotten: the preset remembers one for most of an hour."""
        await self._stage.settled()
        presets = (await self._client.call("GET", "/v1/policies/presets"))["items"]
        preset = next(item["document"] for item in presets if item["name"] == PRESET)
        document = {**preset, "name": NAME, "machine": MACHINE, "sigma": 0.5}
        await self._client.call("POST", "/v1/policies", document)

    async def _look_around(self) -> None:
        await self._query("update workload.decision set at = at - interval '60 days'")
        resource = await self._resource()
        self._note("registry shows hosts", [one["hosts"] for one in resource["clusters"]] != [])
        policy = (await self._client.pages("/v1/policies"))[0]
        path, cluster = f"/v1/policies/{policy['id']}/assignments", (await self._clusters())[0]
        where = {"scope": "cluster", "scope_id": cluster["id"]}
        self._note("a policy can be assigned to a cluster", await _works(self._client, path, where))
        async with open_client(await self._operator("olga", None)) as operator:
            seen = await operator.call("GET", "/v1/stats/core-hours", params=self._span())
            self._note("stats knows whose clusters they are", seen["items"])
            where = {"scope": "resource", "scope_id": self._stage.resource_id}
            self._note(
                "an operator can assign a policy to what is theirs", await _works(operator, path, where)
            )
        others = await self._client.call("POST", "/v1/organisations", {"name": "others"})
        async with open_client(await self._operator("sven", others["id"])) as stranger:
            foreign = await stranger.call("POST", "/v1/policies", policy["document"])
            path = f"/v1/policies/{foreign['id']}/assignments"
            self._note("a stranger cannot assign a policy", not await _works(stranger, path, where))

    async def _operator(self, name: str, organisation_id: str | None) -> Target:
        """Somebody who is no administrator, and so is let near only what is known to be theirs."""
        body = {"name": name, "role": "operator", "organisation_id": organisation_id}
        user = await self._client.call("POST", "/v1/users", body)
        body = {"label": "look", "user_id": user["id"]}
        token = (await self._client.call("POST", "/v1/tokens", body))["token"]
        return Target(self._stage.process.url, SecretStr(token))

    async def _fall_silent(self) -> None:
        """The cloud does not answer: limits must not stay where they are, and it is said."""
        self._cloud.control.set_fault("unavailable", True)
        for _ in range(6):
            await self._pass(1)
            clusters = await self._clusters()
            self._note("silence is judged", any("nothing heard" in one["reason"] for one in clusters))
            self._note("an outage is shown", (await self._resource())["health"]["state"] == "degraded")
        self._cloud.control.clear_faults()
        await self._pass(4)
        self._note("the end of an outage is shown", (await self._resource())["health"]["state"] == "ok")

    async def _be_busy(self) -> None:
        """A cluster's owner takes everything for a while, and goes."""
        self._load(0.95)
        await self._pass(15)
        self._load(0.10)
        await self._pass(12)

    async def _vandalise(self) -> None:
        """A machine is deleted behind our back, and there is no template to make another one from."""
        victim = next(one for one in self._cloud.truth().machines if one.cluster == self._victim_ref)
        self._cloud.control.remove_template("boinc-worker")
        self._cloud.control.kill_machine(victim.name)
        await self._pass(16)
        template = (await self._client.pages("/v1/templates"))[0]
        self._note("a template that is gone is noticed", template["versions"][0]["missing"])
        self._cloud.control.add_template("boinc-worker")

    async def _press_the_button(self) -> None:
        cluster = (await self._clusters())[0]
        for verb in ("pause", "resume"):
            await self._client.call("POST", f"/v1/clusters/{cluster['id']}/{verb}", {"reason": "a test"})
            await self._pass(1)

    async def _give_back(self) -> None:
        path = f"/v1/resources/{self._stage.resource_id}/mode"
        await self._client.call("POST", path, {"mode": "draining"})
        for _ in range(20):
            await self._pass(1)
            counts = (await self._client.pages("/v1/contributions"))[0]["machines"]
            self._note("a contribution counts machines that drain", counts["draining"])
        self._note("a contribution counts machines that are gone", not any(counts.values()))
        self._note("registry knows what was released", (await self._resource())["released_at"])
        self._note("the cloud is empty", await machines_on(self._stage) == 0)

    async def _compare_logs(self) -> None:
        """Every kind of action event that workload wrote, stats has, as often."""
        query = "select key, count(*) from {}.action_event group by key"
        said, kept = [dict(await self._query(query.format(schema))) for schema in ("workload", "stats")]
        [[cores]] = await self._query("select sum(cores) from stats.host")
        [[rolled]] = await self._query("select count(*) from stats.cluster_hour")
        [[last_day]] = await self._query("select max(day) from stats.sample_day")
        [[oldest]] = await self._query("select min(at) from workload.decision")
        self._note("what is past its time is forgotten", oldest > self._stage.clock.now() - timedelta(days=1))
        self._note("stats knows the cores of hosts", cores)
        self._note("stats has rolled up an hour", rolled)
        self._note("stats has a place for tomorrow", last_day > self._stage.clock.now().date())
        for key, count in said.items():
            if key not in ("action.limits_requested.v1", "action.limits_superseded.v1"):
                self._note(f"stats has every {key}", kept.get(key) == count)
        self._note("the story has every kind of event", len(said) >= 12)

    async def _query(self, query: str) -> Any:
        """What only the tables tell."""
        connection = await asyncpg.connect(self._database_url)
        try:
            return await connection.fetch(query)
        finally:
            await connection.close()

    async def _pass(self, minutes: int) -> None:
        await self._stage.run_to(self._stage.clock.now() + minutes * MINUTE)

    @property
    def _client(self) -> Client:
        return self._stage.client

    @property
    def _cloud(self) -> Cloud:
        return attach_cloud(self._stage.cloud.url, self._stage.clock)

    @property
    def _victim_ref(self) -> str:
        return next(one.cluster for one in self._cloud.state().clusters if one.name == VICTIM)

    def _load(self, fraction: float) -> None:
        for host in self._cloud.truth().hosts:
            if host.cluster == self._victim_ref:
                self._cloud.control.set_owner_load(host.host, fraction)

    def _span(self) -> dict[str, str]:
        begin = self._stage.clock.now() - timedelta(days=1)
        return {"from": begin.isoformat(), "to": (self._stage.clock.now() + MINUTE).isoformat()}

    async def _clusters(self) -> list[dict[str, Any]]:
        return await self._client.pages("/v1/clusters")

    async def _resource(self) -> Any:
        return await self._client.call("GET", f"/v1/resources/{self._stage.resource_id}")


async def _works(client: Client, path: str, body: Any) -> bool:
    try:
        await client.call("POST", path, body)
    except Failed:
        return False
    return True
