"""What a newcomer would type, over REST: a cloud, a policy, a template, a project to lend to."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.cli.client import Client, Refused
from services.cli.demo.lab import EMAIL, USER_NAME, Lab
from services.cli.names import POLICY, PROJECT, RESOURCE, TEMPLATE, Item, Kind

NAME = "demo"
WORKER = "boinc-worker"
PRESET = "balanced"
MACHINE = {"template": WORKER, "vcpus": 16, "memory_mib": 32768, "disk_gib": 20}
PROJECT_URL = "https://boinc.example.org/lab/"
KNOWN_WITHIN_S = 20.0
_LOOK_AGAIN_S = 0.05

Settled = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Cloud:
    """The simulated cloud to register."""

    url: str
    password: str = field(repr=False)
    interval_s: int = 20
    stale_after_s: float | None = None
    """For the policy, where simulated seconds are short; None: as in the preset."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """What else the policy says otherwise than the preset."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the simulated driver is told of it."""
        return {"scenario": "enterprise", "interval_s": self.interval_s}


async def furnish(
    client: Client, cloud: Cloud, settled: Settled | None = None, lab: Lab | None = None
) -> str:
    """Make whatever is not there yet; the resource's id. Raises Failed.

    `settled` returns when every service has heard of everything; without it, asking again does the waiting.
    `lab` is lent to by an account that is made there; without it, to a project that nobody asks.
    """
    known = _Known(settled)
    resource = await _ensure(client, RESOURCE, NAME, _resource(cloud))
    await known.settle()
    contributions = await client.pages("/v1/contributions")
    if contributions:
        return str(resource["id"])
    await _ensure_policy(client, resource["id"], cloud, known)
    await _ensure_template(client, resource["id"], known)
    await known.settle()
    await client.call("POST", f"/v1/resources/{resource['id']}/mode", {"mode": "lend"})
    await known.settle()
    terms = await (_ensure_nobodys_project(client) if lab is None else _join(client, lab, known))
    await client.call("POST", "/v1/contributions", {**terms, "weight": 1})
    await known.settle()
    return str(resource["id"])


async def _ensure_nobodys_project(client: Client) -> dict[str, Any]:
    project = await _ensure(client, PROJECT, "Lab", {"name": "Lab", "url": PROJECT_URL})
    return {"project_id": project["id"], "authenticator": f"1_{secrets.token_hex(16)}"}


async def _join(client: Client, lab: Lab, known: "_Known") -> dict[str, Any]:
    """Add the project, sign its address, and make an account there."""
    body = {"name": lab.project.name, "url": lab.url, "verify": True}
    project = await _ensure(client, PROJECT, lab.project.name, body)
    signed = {"url_signature": lab.signature}
    await client.call("PATCH", f"/v1/projects/{project['id']}", signed)
    login = {**login_of(lab), "create": True, "user_name": USER_NAME}
    account = await client.call("POST", "/v1/accounts", {"project_id": project["id"], **login})
    await known.settle()
    return {"project_id": project["id"], "account_id": account["id"]}


def login_of(lab: Lab) -> dict[str, Any]:
    """What the demo's organisation logs in to the project with."""
    return {"email": EMAIL, "password": lab.password}


class _Known:
    """Waiting for one service to hear of what another one was told."""

    def __init__(self, settled: Settled | None) -> None:
        self._settled = settled

    async def settle(self) -> None:
        """Everything has been heard, where that can be known."""
        if self._settled is not None:
            await self._settled()

    async def once(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Again until it is known; where everything has settled, not again."""
        if self._settled is not None:
            return await call()
        return await until_known(call, (404, 422))


def _resource(cloud: Cloud) -> dict[str, Any]:
    return {
        "name": NAME,
        "provider": "simulated",
        "url": cloud.url,
        "username": "tides",
        "password": cloud.password,
        "interval_s": cloud.interval_s,
        "settings": cloud.settings,
    }


async def _ensure_policy(client: Client, resource_id: str, cloud: Cloud, known: _Known) -> None:
    presets = await client.call("GET", "/v1/policies/presets")
    preset = next(item["document"] for item in presets["items"] if item["name"] == PRESET)
    policy = await _ensure(client, POLICY, NAME, policy_document(preset, cloud))
    where = {"scope": "resource", "scope_id": resource_id}
    await known.once(lambda: client.call("POST", f"/v1/policies/{policy['id']}/assignments", where))


def policy_document(preset: Mapping[str, Any], cloud: Cloud) -> dict[str, Any]:
    """The preset for the demo's machines and its cloud."""
    document = {**preset, "name": NAME, "machine": MACHINE, **cloud.policy}
    if cloud.stale_after_s is not None:
        document["stale_after_s"] = cloud.stale_after_s
    return document


async def _ensure_template(client: Client, resource_id: str, known: _Known) -> None:
    body = {"name": WORKER, "resource_id": resource_id, "reference": WORKER}
    template = await known.once(lambda: _ensure(client, TEMPLATE, WORKER, body))
    if template["versions"][-1]["state"] == "draft":
        await client.call("POST", f"/v1/templates/{template['id']}/versions/1/approve")


async def _ensure(client: Client, kind: Kind, name: str, body: dict[str, Any]) -> Item:
    for item in await client.pages(kind.path):
        if item["name"] == name:
            return item
    made: Item = await client.call("POST", kind.path, body)
    return made


async def await_identity(client: Client) -> None:
    """Return when identity knows the first administrator. Raises Failed."""
    await until_known(lambda: client.call("GET", "/v1/me"), (401,))


async def until_known(call: Callable[[], Awaitable[Any]], waiting_for: Sequence[int]) -> Any:
    """Again while it is refused with these, for a while."""
    deadline = asyncio.get_running_loop().time() + KNOWN_WITHIN_S
    while True:
        try:
            return await call()
        except Refused as refused:
            if refused.status not in waiting_for or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(_LOOK_AGAIN_S)
