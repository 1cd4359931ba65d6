"""Activation on the simulated cloud, every service in one process: one machine is made while nothing is lent, and with
what its agent and its client do, whom a test plays, the resource is lent."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from libs.boinc.manager import ManagerRequest, ReportedProject, parse_reply, render_request
from libs.boinc.signing import SigningKey
from libs.common.auth import Role
from libs.providers.simulated import (
    Cloud,
    ClusterDefinition,
    OwnerProfile,
    SimulatedSettings,
    create_cloud,
    driver,
)
from tests.service.whole_house import PASSWORD, POLICY, WEAK_KEY, Whole, open_whole
from tests.support import until

PROJECT = "https://p.example/"
KEY = SigningKey.generate()
SETTINGS = {"boinc_url": "https://tides.example/boinc/", "boinc_signing_key": KEY.public.text}


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    address = f"sim://{uuid4().hex}"
    lab = ClusterDefinition(name="lab", hosts=2, owner=OwnerProfile.IDLE, cores=8, datastore_gib=4096)
    shape = SimulatedSettings(interval_s=1, clone_s=0, boot_s=0, clusters=(lab,))
    yield create_cloud(address, PASSWORD, shape)
    driver.forget_cloud(address)


async def furnish(whole: Whole, cloud: Cloud) -> str:
    """Everything that a machine needs; the path of the resource, which must be probed."""
    given = {
        "name": "Lab", "provider": "simulated", "url": cloud.url, "username": "tides", "password": PASSWORD,
        "interval_s": 1, "requires_probe": True,
    }  # fmt: skip
    resource_id = (await whole.made("/v1/resources", given))["id"]
    template = {"name": "worker", "resource_id": resource_id, "reference": "boinc-worker"}
    made = await until(lambda: whole.accepted("/v1/templates", template), what="templates")
    await whole.made(f"/v1/templates/{made['id']}/versions/1/approve", None)
    rules = await whole.made("/v1/policies", POLICY)
    where = {"scope": "resource", "scope_id": resource_id}
    await whole.made(f"/v1/policies/{rules['id']}/assignments", where)
    project = await whole.made("/v1/projects", {"name": "P", "url": PROJECT})
    signature = {"url_signature": KEY.sign(PROJECT)}
    assert (await whole.ask("PATCH", f"/v1/projects/{project['id']}", signature)).status == 200
    lent = {"project_id": project["id"], "weight": 1, "authenticator": WEAK_KEY}
    await whole.made("/v1/contributions", lent)
    return f"/v1/resources/{resource_id}"


async def shown(whole: Whole, path: str) -> dict[str, Any]:
    found: dict[str, Any] = (await whole.ask("GET", path)).body
    return found


async def probe(whole: Whole, path: str) -> tuple[str, str, str]:
    found = await shown(whole, path)
    return found["mode"], found["probe"]["outcome"], found["probe"]["step"]


async def reach(whole: Whole, path: str, wanted: tuple[str, str, str]) -> None:
    async def is_there() -> bool:
        return await probe(whole, path) == wanted

    try:
        await until(is_there, timeout=60, what=f"a probe that is {wanted}")
    except AssertionError as late:
        raise AssertionError(f"{late}: {(await shown(whole, path))['probe']}") from None


async def come(whole: Whole, token: str, *projects: ReportedProject) -> str:
    """One contact of the client; its token from then on."""
    body = render_request(ManagerRequest(authenticator=token, projects=projects))
    async with whole.http.post(f"{whole.run.url}/boinc/rpc.php", data=body) as answer:
        return parse_reply(await answer.read()).authenticator or token


async def test_a_resource_is_lent_as_soon_as_one_machine_of_it_works_for_a_project(
    database_url: str, cloud: Cloud
) -> None:
    async with open_whole(database_url, **SETTINGS) as whole:
        path = await furnish(whole, cloud)
        asked = {"mode": "lend"}
        opened = await whole.ask("POST", f"{path}/mode", asked, role=Role.OPERATOR)
        assert (opened.status, opened.body["mode"]) == (200, "observe")
        await reach(whole, path, ("observe", "open", "running"))
        [machine] = cloud.truth().machines
        [token] = set(re.findall(r"token[\"':\s=]+([A-Za-z0-9_-]{43})", machine.user_data))
        secret = {"token": token, "secret": "drawn-by-the-machine-itself-0123456789"}
        assert (await whole.ask("POST", "/guests/enrol", secret, role=None)).status == 200
        await reach(whole, path, ("observe", "open", "enrolled"))
        client = await come(whole, token)
        await reach(whole, path, ("observe", "open", "contacted"))
        assert len(cloud.truth().machines) == 1
        await come(whole, client, ReportedProject(url=PROJECT, host_id=7))
        await reach(whole, path, ("lend", "passed", "attached"))

        await until(lambda: len(cloud.truth().machines) == 2, timeout=60, what="a second machine")
        assert machine.name in {one.name for one in cloud.truth().machines}
        told = [event["body"] for event in await whole.items("/v1/events?order=newest&limit=100")]
        closed = [event["reason"] for event in told if event.get("step") == "closed"]
        assert closed == ["passed: its machine works for a project"]
