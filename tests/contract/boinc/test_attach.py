"""A real client of Debian's and our account-manager codec: it finds its project, obeys, and comes back."""

import asyncio
import dataclasses
import time

import aiohttp
import pytest

from libs.boinc.gui import Operation
from libs.boinc.manager import ManagerRequest, render_request
from libs.boinc.signing import SigningKey
from tests.boinclab.manager import Seat
from tests.boinclab.project import StandInProject
from tests.boinclab.world import World, boinc_world, gui_of, machine_files
from tests.support import until
from tools.parts import PartMissing
from tools.parts.boinc import BoincClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
ATTACH_S = 30.0


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


async def say_with(world: World, token: str) -> bytes:
    """What the manager answers to somebody else who holds a token."""
    async with aiohttp.ClientSession() as http:
        body = render_request(ManagerRequest(authenticator=token))
        async with http.post(f"{world.manager.url}rpc.php", data=body) as answer:
            return await answer.read()


async def test_a_machine_attaches_works_obeys_and_leaves() -> None:
    async with boinc_world() as world:
        project = await world.project(jobs_per_host=2, cpu_s=16.0)
        account = world.account(project, 70)
        seat = world.manager.seat(account)
        first_token, began = seat.token, time.monotonic()
        client = await started(world, seat)

        await until(lambda: project.jobs, ATTACH_S, "the project handed out work")
        assert time.monotonic() - began < ATTACH_S
        assert (await shares(client)).keys() == {project.url}
        assert "Bad signature" not in client.log
        await until(lambda: shares_are(client, project, 70), 10, "the weight of the first reply")

        await until(lambda: seat.previous is None, 10, "the new token is seen")
        assert seat.token != first_token
        assert seat.token in (client.data / "acct_mgr_login.xml").read_text()
        assert {asked.opaque for asked in seat.heard} == {seat.opaque}
        assert b"-206" in await say_with(world, first_token)
        assert world.manager.replays == 1

        seat.accounts = (dataclasses.replace(account, resource_share=20.0, dont_request_more_work=True),)
        await until(lambda: shares_are(client, project, 20), 10, "the new weight at the next contact")
        async with await gui_of(client) as gui:
            assert (await gui.projects())[0].no_more_work

        world.manager.down = True
        await until(lambda: "Account manager" in client.log and failed(client), 15, "a contact fails")
        world.manager.down = False
        heard = len(seat.heard)
        async with await gui_of(client) as gui:
            await gui.sync_manager()
        await until(lambda: len(seat.heard) > heard, 10, "it comes back when it is told to")
        assert not project.faults

        seat.accounts = (dataclasses.replace(account, detach_when_done=True),)
        await until(lambda: gone(client), 60, "it leaves when its work is reported")
        assert [job.exit_status for job in project.reported] == [0, 0]
        assert sum(one.cpu_s or 0 for asked in seat.heard[-3:] for one in asked.projects) > 26
        assert (project.faults, world.manager.replays) == ([], 1)


async def shares_are(client: BoincClient, project: StandInProject, share: float) -> bool:
    return (await shares(client)).get(project.url) == share


async def gone(client: BoincClient) -> bool:
    return not await shares(client)


def failed(client: BoincClient) -> bool:
    return "HTTP" in client.log.rpartition("Contacting account manager")[2]


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


async def shares_hold(client: BoincClient, project: StandInProject) -> bool:
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
