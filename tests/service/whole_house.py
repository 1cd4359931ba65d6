"""A whole installation in one process, as `tides run all` makes it, on a vCenter that stands behind a strict proxy.

Everything goes over HTTP and the bus; the cloud is vcsim through the real driver, and a second client looks at it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg

from libs.common import personal_tokens
from libs.common.auth import Principal, Role, Signer, generate_signing_keys
from libs.common.runner import Build, Running, running
from libs.common.secrets import fresh_key
from libs.common.settings import Settings
from libs.providers.simulated import create_cloud
from libs.providers.simulated import driver as simulated
from services.cli.run import builders
from services.identity.main import build as build_identity
from services.identity.usecases.passwords import Passwords
from tests.contract.providers.vsphere_target import NETWORK, TEMPLATE
from tests.faultproxy import FaultProxy
from tests.service.identity_support import QUICK, ShiftedClock
from tests.service.lone_service import OURS, Answer
from tests.support import until
from tests.system.lab import Lab, owners
from tools.parts.vcsim import Vcsim

WEAK_KEY = "17_a2d3122f4a70a8a03d05fef689443657"
PASSWORD = "correct horse"
TICK_REAL_S = 0.5
POLICY: dict[str, Any] = {
    "name": "quick",
    "cpu": {"idle": 0.5, "stop_new": 0.65, "reclaim": 0.8},
    "machine": {"template": "worker", "vcpus": 2, "memory_mib": 256, "disk_gib": 0.0005},
    "ladder": {"stop_new_after_s": 0, "suspend_after_s": 86400, "drain_after_s": 86400, "drain_grace_s": 0},
    "idle_dwell_s": 0, "busy_dwell_s": 0, "cooldown_s": 0, "rise_s": 0, "margin": 0, "sigma": 0, "step_machines": 3,
}  # fmt: skip
"""No dwell: what a sample says holds at once."""
OTHERS = ("registry", "policy", "templates", "contribution", "monitor", "workload", "stats")


@dataclass
class Whole:
    """Every service, and whoever may speak to them."""

    run: Running
    settings: Settings
    signer: Signer
    http: aiohttp.ClientSession
    clock: ShiftedClock
    organisation: UUID = OURS
    answers: list[tuple[str, str]] = field(default_factory=list, repr=False)
    """Path and text of every answer that came, headers and all."""

    async def ask(
        self, method: str, path: str, body: Any = None, *, role: Role | None = Role.ADMIN, **more: Any
    ) -> Answer:
        """One request as a user of this role; `role=None` sends no token."""
        headers = dict(more.pop("headers", {}))
        if role is not None:
            who = Principal(uuid4(), "Ada", role, self.organisation, uuid4())
            headers.setdefault("Authorization", f"Bearer {self.signer.sign(who)}")
        if body is not None:
            more["json"] = body
        async with self.http.request(method, self.run.url + path, headers=headers, **more) as response:
            text = await response.text()
            self.answers.append((path.partition("?")[0], f"{dict(response.headers)}\n{text}"))
            found = await response.json(content_type=None) if "json" in response.content_type else text
            return Answer(
                response.status, found, {name.lower(): value for name, value in response.headers.items()}
            )

    async def made(self, path: str, body: Any, **who: Any) -> dict[str, Any]:
        """What a POST made or changed."""
        answer = await self.ask("POST", path, body, **who)
        assert answer.status in (200, 201, 202), answer.body
        found: dict[str, Any] = answer.body
        return found

    async def accepted(self, path: str, body: Any) -> Any:
        """What a POST made; None as long as its service has not heard of what it speaks of."""
        answer = await self.ask("POST", path, body)
        assert answer.status in (201, 422), answer.body
        return answer.body if answer.status == 201 else None

    async def items(self, path: str) -> list[dict[str, Any]]:
        """A list as an administrator sees it."""
        answer = await self.ask("GET", path)
        assert answer.status == 200, answer.body
        found: list[dict[str, Any]] = answer.body["items"]
        return found

    def leap(self, seconds: float) -> None:
        """Let this much time have passed at once, on every service's clock but not on the cloud's."""
        self.clock.shift += timedelta(seconds=seconds)

    async def fetch(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Look into the database past every service."""
        connection = await asyncpg.connect(self.settings.database_dsn)
        try:
            return [dict(row) for row in await connection.fetch(query, *values)]
        finally:
            await connection.close()


@asynccontextmanager
async def open_whole(database_url: str, **more: Any) -> AsyncIterator[Whole]:
    """Run every service with fresh keys until the block ends; whoever asks is of the first organisation."""
    private, verify_keys = generate_signing_keys()
    given: dict[str, Any] = {
        "database_url": database_url,
        "sealing_keys": f"k1:{fresh_key()}",
        "signing_key": private,
        "verify_keys": verify_keys,
        "bootstrap_admin_token": personal_tokens.fresh(),
        "installation_id": str(uuid4()),
        "port": 0,
        "pool_size": 2,
        "boinc_local_projects": "127.0.0.1",
    }
    settings = Settings.model_validate(given | more)
    identity: Build = partial(build_identity, passwords=Passwords(QUICK))
    timeout = aiohttp.ClientTimeout(total=45)
    clock = ShiftedClock()
    async with (
        running([identity, *builders(OTHERS)], settings, clock=clock) as run,
        aiohttp.ClientSession(timeout=timeout) as http,
    ):
        assert settings.signing_key is not None
        whole = Whole(run, settings, Signer(settings.signing_key.get_secret_value()), http, clock)
        (first,) = await until(lambda: whole.items("/v1/organisations"), what="the first organisation")
        whole.organisation = UUID(first["id"])
        yield whole


@asynccontextmanager
async def open_furnished(database_url: str) -> AsyncIterator[tuple[Whole, dict[str, str]]]:
    """Every service with one of each thing in it on a simulated cloud; their ids by the names that paths use."""
    cloud = create_cloud(f"sim://{uuid4().hex}", PASSWORD)
    try:
        async with open_whole(database_url) as whole:
            yield whole, await _furnish(whole, cloud.url)
    finally:
        simulated.forget_cloud(cloud.url)


async def _furnish(whole: Whole, url: str) -> dict[str, str]:
    given = {"name": "Lab", "provider": "simulated", "url": url, "username": "tides", "password": PASSWORD}
    resource = await whole.made("/v1/resources", given)
    template = {"name": "worker", "resource_id": resource["id"], "reference": "boinc-worker"}
    made = {
        "resource": resource,
        "template": await until(lambda: whole.accepted("/v1/templates", template), what="templates"),
        "policy": await whole.made("/v1/policies", POLICY),
        "project": await whole.made("/v1/projects", {"name": "P", "url": "https://p.example/"}),
        "user": await whole.made("/v1/users", {"name": "ida", "role": "viewer"}),
    }
    lent = {"project_id": made["project"]["id"], "weight": 1, "authenticator": WEAK_KEY}
    made["contribution"] = await whole.made("/v1/contributions", lent)
    made["cluster"] = (await until(lambda: whole.items("/v1/clusters"), timeout=30, what="a cluster"))[0]
    ids = {f"{noun}_id": str(thing["id"]) for noun, thing in made.items()}
    nobody = {name: str(uuid4()) for name in ("machine_id", "token_id", "account_id", "derivation_id")}
    return ids | nobody | {"number": "1", "scope": "cluster", "scope_id": ids["cluster_id"], "url": url}


@dataclass
class Cloudy:
    """An installation with a vCenter behind a proxy, and what an administrator does with it."""

    whole: Whole
    lab: Lab
    proxy: FaultProxy
    resource: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The registered resource's id."""
        found: str = self.resource["id"]
        return found

    def given(self, **changes: Any) -> dict[str, Any]:
        """What registers the vCenter."""
        vcsim = self.lab.vcsim
        return {
            "name": "lab", "provider": "vsphere", "url": self.proxy.url, "username": vcsim.username,
            "password": vcsim.password, "ca_pem": vcsim.ca_file.read_text(), "interval_s": 1,
            "settings": {"network": NETWORK}, **changes,
        }  # fmt: skip

    async def register(self, **changes: Any) -> dict[str, Any]:
        """Register it, in observe."""
        self.resource = await self.whole.made("/v1/resources", self.given(**changes))
        return self.resource

    async def supply(
        self, *, approve: bool = True, template_name: str = TEMPLATE, **policy: Any
    ) -> dict[str, Any]:
        """Everything else that lending takes: template (approved or not), policy, contribution. The template."""
        given = {"name": "worker", "resource_id": self.id, "reference": template_name}
        template = await until(
            lambda: self.whole.accepted("/v1/templates", given), what="templates to know it"
        )
        if approve:
            await self.approve(template)
        made = await self.whole.made("/v1/policies", POLICY | policy)
        scope = {"scope": "resource", "scope_id": self.id}
        path = f"/v1/policies/{made['id']}/assignments"
        await until(lambda: self.whole.accepted(path, scope), what="policy to know it")
        project = await self.whole.made("/v1/projects", {"name": "Lab", "url": "https://boinc.example.org/"})
        lent = {"project_id": project["id"], "weight": 1, "authenticator": WEAK_KEY}
        await self.whole.made("/v1/contributions", lent)
        found: dict[str, Any] = template
        return found

    async def approve(self, template: dict[str, Any]) -> None:
        """Let its first version be deployed."""
        await self.whole.made(f"/v1/templates/{template['id']}/versions/1/approve", None)

    async def set_mode(self, mode: str) -> None:
        """How far Tides may go."""
        await self.whole.made(f"/v1/resources/{self.id}/mode", {"mode": mode})

    async def clusters(self) -> dict[str, dict[str, Any]]:
        """Clusters by name as an operator sees them."""
        return {one["name"]: one for one in await self.whole.items("/v1/clusters")}

    async def machines(self) -> list[dict[str, Any]]:
        """All machines, destroyed ones too, oldest first."""
        return await self.whole.items("/v1/machines?limit=200&live=false")

    async def events(self, word: str) -> list[dict[str, Any]]:
        """Action events of this kind, oldest first."""
        found = await self.whole.items("/v1/events?limit=200")
        return [one for one in found if one["key"] == f"action.{word}.v1"]

    async def run(self, ticks: int) -> None:
        """Wait for so many intervals of the cloud."""
        seen = self.lab.ticks
        await until(lambda: self.lab.ticks >= seen + ticks, timeout=30, what=f"{ticks} intervals")


@asynccontextmanager
async def open_cloudy(
    database_url: str, vcsim: Vcsim, *, running: bool = True, **more: Any
) -> AsyncIterator[Cloudy]:
    """Every service, and a vCenter whose time runs; nothing is registered yet."""
    async with (
        owners(vcsim, running=running) as lab,
        FaultProxy.before(vcsim) as before,
        open_whole(database_url, **more) as whole,
    ):
        lab.second_s = TICK_REAL_S
        yield Cloudy(whole, lab, before)
        before.rules.heal()
