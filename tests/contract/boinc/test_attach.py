"""A real client of Debian's and our account-manager codec: it finds its project, obeys, and comes back."""

import asyncio
import dataclasses
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
from sqlalchemy import text

from libs.boinc.credit import claimed_credit
from libs.boinc.demo_project import DemoProject
from libs.boinc.gui import Operation
from libs.boinc.manager import ManagerRequest, render_request
from libs.boinc.signing import SigningKey
from libs.boinc.user_data import AccountManager, render_user_data
from libs.boinc.web import password_hash
from libs.common.contracts.action import MachineDraining, MachineFact, MachineRequested
from services.contribution.main import build
from tests.boinclab.manager import Seat
from tests.boinclab.world import World, boinc_files, boinc_world, gui_of, machine_files
from tests.service.lone_service import OURS, Lone, serve
from tests.support import until
from tools.parts import PartMissing
from tools.parts.boinc import BoincClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
ATTACH_S = 30.0
CREDIT = 2 * claimed_credit(16.0, 1e9)
"""Of two tasks, as the demo project counts."""
EMAIL, PASSWORD = "lab@example.com", "secret-password"


async def started(world: World, seat: Seat, **files: str) -> BoincClient:
    """A client with the files of a machine of this seat."""
    try:
        client = await world.client(machine_files(world, seat) | files)
        await client.start()
    except PartMissing as missing:
        pytest.fail(str(missing), pytrace=False)
    return client


async def shares(client: BoincClient) -> dict[str, float]:
    """Resource shares by project, as the client holds them."""
    async with await gui_of(client) as gui:
        return {project.url: project.resource_share for project in await gui.projects()}


async def say_with(url: str, token: str) -> bytes:
    """What the manager answers to somebody else who holds a token."""
    async with aiohttp.ClientSession() as http:
        body = render_request(ManagerRequest(authenticator=token))
        async with http.post(f"{url}rpc.php", data=body) as answer:
            return await answer.read()


async def contact(client: BoincClient) -> None:
    """Make the client come to its account manager now, and wait until that went well."""
    async with await gui_of(client) as gui:
        await gui.sync_manager()

        async def over() -> bool:
            return await gui.manager_outcome() == 0

        await until(over, 20, "a contact that goes well")


async def test_a_machine_attaches_works_obeys_and_leaves(database_url: str) -> None:
    """The whole life of a machine's client with Tides itself as its account manager."""
    async with boinc_world() as world:
        key = world.manager.key
        more: dict[str, Any] = {"boinc_signing_key": key.public.text}
        async with serve(build, "contribution", database_url, **more) as tides:
            project = await world.project(jobs_per_host=4, cpu_s=16.0)
            lent = await lend(tides, project, key, 70)
            machine_id, token, began = uuid4(), "one-time-token", time.monotonic()
            await tides.tell(requested(machine_id, token))
            manager = AccountManager(f"{tides.run.url}/boinc/", key.public)
            files = boinc_files(render_user_data([], "tides-1", token, manager=manager))
            files["cc_config.xml"] = files["cc_config.xml"].replace("<options>", "<options><ncpus>2</ncpus>")
            client = await world.client(files)
            await client.start()

            await until(lambda: project.jobs, ATTACH_S, "the project handed out work")
            assert time.monotonic() - began < ATTACH_S
            login = client.data / "acct_mgr_login.xml"
            assert token not in login.read_text()
            await contact(client)
            assert await shares(client) == {project.url: 70.0}
            assert str(machine_id) in login.read_text()
            assert b"-206" in await say_with(manager.url, token)

            await tides.ask("PATCH", lent, {"weight": 20})
            await contact(client)
            assert await shares(client) == {project.url: 20.0}

            async with tables_away(tides):
                await contact(client)
            assert await shares(client) == {project.url: 20.0}

            await until(lambda: computes(client, 2), 20, "two tasks are under way")
            await tides.tell(requested(machine_id, token, MachineDraining))
            await contact(client)
            await until(lambda: len(project.reported) == 2, 20, "what it has not begun is handed back")
            async with await gui_of(client) as gui:
                assert (await gui.projects())[0].no_more_work
            await until(lambda: computes(client, 0), 10, "and the rest goes on")

            await tides.ask("DELETE", lent)
            await contact(client)
            await until(lambda: idle(client), 60, "its work is done and reported")
            assert await granted(tides) == {str(machine_id): pytest.approx(CREDIT, abs=1e-3)}
            await contact(client)
            await until(lambda: gone(client), 10, "it leaves")
            assert sorted(job.exit_status or 0 for job in project.reported) == [0, 0, 203, 203]
            assert 20 < await claimed_cpu_s(tides) < 2 * (time.monotonic() - began)
            assert project.faults == []


async def computes(client: BoincClient, waiting: int) -> bool:
    """Whether two tasks are under way and so many wait."""
    async with await gui_of(client) as gui:
        tasks = await gui.tasks()
    return len(tasks) == 2 + waiting and sum(task.executing for task in tasks) == 2


async def idle(client: BoincClient) -> bool:
    async with await gui_of(client) as gui:
        return not await gui.tasks()


async def lend(tides: Lone, project: DemoProject, key: SigningKey, weight: float) -> str:
    """The path of a contribution to the project, which is signed, with an account that is kept here."""
    made = await tides.ask("POST", "/v1/projects", {"name": "Lab", "url": project.url, "verify": True})
    path = f"/v1/projects/{made.body['id']}"
    assert (await tides.ask("PATCH", path, {"url_signature": key.sign(project.url)})).status == 200
    project.user(EMAIL, password_hash(PASSWORD, EMAIL))
    login = {"project_id": made.body["id"], "email": EMAIL, "password": PASSWORD}
    account = (await tides.ask("POST", "/v1/accounts", login)).body
    await tides.settle()
    body = {"project_id": made.body["id"], "weight": weight, "account_id": account["id"]}
    return f"/v1/contributions/{(await tides.ask('POST', '/v1/contributions', body)).body['id']}"


def requested(machine_id: UUID, token: str, kind: type[MachineFact] = MachineRequested) -> MachineFact:
    more = {"guest_token_sha256": sha256(token.encode()).hexdigest()} if kind is MachineRequested else {}
    return kind(
        at=datetime.now(UTC), machine_id=machine_id, name="tides-1", workload_id=uuid4(), organisation_id=OURS,  # noqa: TID251
        resource_id=uuid4(), cluster_id=uuid4(), vcpus=os.cpu_count() or 1, reason="test", **more,
    )  # fmt: skip


@asynccontextmanager
async def tables_away(tides: Lone) -> AsyncIterator[None]:
    """The service's own trouble: it cannot find its tokens."""
    database = tides.run.services[0].database
    async with database.transaction() as session:
        await session.execute(text("ALTER TABLE guest_token RENAME TO away"))
    yield
    async with database.transaction() as session:
        await session.execute(text("ALTER TABLE away RENAME TO guest_token"))


async def claimed_cpu_s(tides: Lone) -> float:
    async with tides.run.services[0].database.transaction() as session:
        return float((await session.execute(text("SELECT sum(cpu_s) FROM claimed"))).scalar_one())


async def granted(tides: Lone) -> dict[str, float]:
    """Credit by machine, as the project says when it is asked now."""
    async with tides.run.services[0].database.transaction() as session:
        await session.execute(text("UPDATE visit SET due_at = now()"))
    tides.run.services[0].app.state.door.visits_due.set()
    found = await until(lambda: grants(tides), 30, "the project was asked, and granted credit")
    return {item["of"]: item["credit"] for item in found}


async def grants(tides: Lone) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await tides.ask("GET", "/v1/grants?by=machine")).body["items"]
    return items


async def gone(client: BoincClient) -> bool:
    return not await shares(client)


async def test_what_is_not_signed_by_the_pinned_key_is_refused_and_a_lost_first_reply_is_survived() -> None:
    async with boinc_world() as world:
        honest, forged = await world.project(name="honest"), await world.project(name="forged")
        signed = world.account(honest)
        stolen = dataclasses.replace(world.account(forged), signature=SigningKey.generate().sign(forged.url))
        cheated, unlucky, misled = (
            world.manager.seat(signed, stolen),
            world.manager.seat(signed),
            Seat("o", "t" * 32),
        )
        world.manager.seats.append(misled)
        misled.accounts = (signed,)
        world.manager.lose = 1
        loser = await started(world, unlucky)
        await until(lambda: unlucky.answered == 1, 10, "the first reply is lost")
        one = await started(world, cheated)
        files = machine_files(world, misled)
        other = SigningKey.generate().public.text
        two = await started(
            world,
            misled,
            **{"acct_mgr_url.xml": files["acct_mgr_url.xml"].replace(world.manager.key.public.text, other)},
        )

        await until(lambda: "Bad signature for URL" in one.log, 20, "the forged signature is refused")
        await until(lambda: shares_hold(one, honest), 10, "the honest project is attached")
        assert forged.url not in await shares(one)
        assert not forged.hosts
        await until(lambda: "Inconsistent signing key" in two.log, 20, "another key is refused")
        assert not await shares(two)

        async with await gui_of(loser) as gui:
            await gui.sync_manager()
        await until(lambda: shares_hold(loser, honest), 20, "the machine is attached after all")
        await until(lambda: unlucky.previous is None, 20, "and has the new token")
        assert world.manager.replays == 0


async def shares_hold(client: BoincClient, project: DemoProject) -> bool:
    return project.url in await shares(client)


async def test_a_client_is_steered_over_its_port() -> None:
    async with boinc_world() as world:
        project = await world.project(jobs_per_host=1)
        client = await started(world, world.manager.seat(world.account(project)))
        async with await gui_of(client) as gui:
            await until(gui.projects, 20, "attached")
            assert (await gui.host_info()).integer("p_ncpus") > 0
            assert (await gui.state()).find("host_info") is not None
            assert await gui.messages()
            await gui.override_preferences({"max_ncpus_pct": 50, "cpu_usage_limit": 40})
            await gui.configure({"report_results_immediately": 1})
            await gui.operate(Operation.SUSPEND, project.url)
            assert (await gui.projects())[0].suspended
            await gui.quit()
        await asyncio.wait_for(client.ended(), 20)
