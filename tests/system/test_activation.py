"""Activation on the simulated cloud, every service in one process: a resource is lent when one machine of it works for
a project. The machine is a real client of Debian's and our agent with its user-data, the project the demo's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

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
from tests.boinclab.world import boinc_world, gui_of, machine_of
from tests.service.whole_house import PASSWORD, POLICY, WEAK_KEY, Whole, open_whole
from tests.support import until
from tools.parts.boinc import BoincClient

KEY = SigningKey.generate()
SETTINGS = {"boinc_url": "https://tides.example/boinc/", "boinc_signing_key": KEY.public.text}


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    address = f"sim://{uuid4().hex}"
    lab = ClusterDefinition(name="lab", hosts=2, owner=OwnerProfile.IDLE, cores=8, datastore_gib=4096)
    shape = SimulatedSettings(interval_s=1, clone_s=0, boot_s=0, clusters=(lab,))
    yield create_cloud(address, PASSWORD, shape)
    driver.forget_cloud(address)


async def furnish(whole: Whole, cloud: Cloud, url: str) -> tuple[str, str]:
    """Everything that a machine needs; the paths of the resource, which must be probed, and of the contribution."""
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
    project = await whole.made("/v1/projects", {"name": "P", "url": url})
    signature = {"url_signature": KEY.sign(url)}
    assert (await whole.ask("PATCH", f"/v1/projects/{project['id']}", signature)).status == 200
    lent = {"project_id": project["id"], "weight": 1, "authenticator": WEAK_KEY}
    lending = await whole.made("/v1/contributions", lent)
    return f"/v1/resources/{resource_id}", f"/v1/contributions/{lending['id']}"


async def shown(whole: Whole, path: str) -> dict[str, Any]:
    found: dict[str, Any] = (await whole.ask("GET", path)).body
    return found


async def reach(whole: Whole, path: str, *wanted: str) -> dict[str, Any]:
    """The probe, once the resource's mode, the probe's outcome and its step are these."""

    async def is_there() -> bool:
        found = await shown(whole, path)
        return (found["mode"], found["probe"]["outcome"], found["probe"]["step"]) == wanted

    try:
        await until(is_there, timeout=60, what=f"a probe that is {wanted}")
    except AssertionError as late:
        raise AssertionError(f"{late}: {(await shown(whole, path))['probe']}") from None
    probe: dict[str, Any] = (await shown(whole, path))["probe"]
    return probe


async def begun(whole: Whole, cloud: Cloud, path: str) -> str:
    """A probe is asked for; the user-data of its machine, once that runs."""
    opened = await whole.ask("POST", f"{path}/mode", {"mode": "lend"}, role=Role.OPERATOR)
    assert (opened.status, opened.body["mode"]) == (200, "observe")
    await reach(whole, path, "observe", "open", "running")
    [machine] = cloud.truth().machines
    return machine.user_data


async def give_up(whole: Whole, cloud: Cloud, path: str, step: str) -> str:
    """The probe's hour is over; why it failed. Its machine goes."""
    await whole.fetch("UPDATE registry.resource SET probe_until = now()")
    failed = await reach(whole, path, "observe", "failed", step)
    await until(lambda: not cloud.truth().machines, timeout=60, what="the probe's machine is taken away")
    return str(failed["why"])


async def told_ends(whole: Whole, wanted: list[str]) -> bool:
    """Whether the events of probes that were closed are these."""
    bodies = [event["body"] for event in await whole.items("/v1/events?order=newest&limit=100")]
    return sorted(body["reason"] for body in bodies if body.get("step") == "closed") == wanted


async def come(client: BoincClient) -> None:
    """Let the client come to Tides now."""
    async with await gui_of(client) as gui:
        await gui.sync_manager()


pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


async def test_a_resource_is_lent_when_a_real_machine_of_it_is_taken_by_a_project(
    database_url: str, cloud: Cloud, tmp_path: Path
) -> None:
    async with boinc_world() as world, open_whole(database_url, **SETTINGS) as whole:
        project = await world.project(jobs_per_host=8)
        path, lent = await furnish(whole, cloud, project.url)

        await begun(whole, cloud, path)
        silent = await give_up(whole, cloud, path, "running")
        assert "its guest was never heard of" in silent

        told = await begun(whole, cloud, path)
        async with machine_of(world, told, whole.run.url, tmp_path / "refused") as client:
            await until(lambda: project.faults, timeout=60, what="the project refuses the key")
            await come(client)
            await reach(whole, path, "observe", "open", "contacted")
            assert len(cloud.truth().machines) == 1
        refused = await give_up(whole, cloud, path, "contacted")
        assert "no project took it" in refused
        assert {fault.partition(".")[0] for fault in project.faults} == {"Invalid or missing account key"}

        fixed = await whole.ask("PATCH", lent, {"authenticator": project.weak_key})
        assert fixed.status == 200
        told = await begun(whole, cloud, path)
        [probed] = cloud.truth().machines
        async with machine_of(world, told, whole.run.url, tmp_path / "taken") as client:
            answered = "Scheduler request completed"
            await until(lambda: answered in client.log, timeout=60, what="the project takes it")
            await come(client)
            await reach(whole, path, "lend", "passed", "attached")
            assert [host.contacts > 0 for host in project.hosts.values()] == [True]
            assert probed.name in {machine.name for machine in cloud.truth().machines}
        passed = "passed: its machine works for a project"
        ends = sorted([f"failed: {silent}", f"failed: {refused}", passed])
        await until(lambda: told_ends(whole, ends), timeout=60, what="each probe's end is an event")
        assert (await whole.ask("POST", f"{path}/mode", {"mode": "draining"})).status == 200
        await until(lambda: not cloud.truth().machines, timeout=60, what="all is given back")
