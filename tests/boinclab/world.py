"""Clients, projects and a manager together, put away at the end of a test."""

import asyncio
import base64
import gzip
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from libs.boinc.demo_project import DemoProject, serving
from libs.boinc.gui import GuiRpc
from libs.boinc.manager import ProjectAccount
from libs.boinc.user_data import AccountManager, render_user_data
from libs.guest import agent_source
from tests.boinclab.door import StandInDoor
from tests.boinclab.manager import Seat, StandInManager
from tools.parts.boinc import PASSWORD, BoincClient

STAGE = "/etc/tides/boinc/"


@dataclass
class World:
    """What a test can start; all of it ends with it."""

    stack: AsyncExitStack
    manager: StandInManager
    clients: list[BoincClient] = field(default_factory=list)

    async def project(self, name: str = "lab", jobs_per_host: int = 0, **settings: Any) -> DemoProject:
        """A project that serves, and hands out no more than it is told."""
        settings = {"cpu_s": 600.0, "checkpoint_s": 4.0} | settings
        project = DemoProject(name=f"Project {name}", jobs_per_host=jobs_per_host, **settings)
        await self.stack.enter_async_context(serving(project, "127.0.0.1", 0, name))
        return project

    async def door(self, **settings: Any) -> StandInDoor:
        """A place where agents report."""
        door = StandInDoor(**settings)
        await door.start()
        self.stack.push_async_callback(door.close)
        return door

    async def client(self, files: dict[str, str]) -> BoincClient:
        """A prepared client with these files in its data directory; the password is the tests'."""
        client = BoincClient()
        self.stack.push_async_callback(client.close)
        await client.prepare()
        for name, text in (files | {"gui_rpc_auth.cfg": PASSWORD}).items():
            client.write(name, text)
        self.clients.append(client)
        return client

    def account(self, project: DemoProject, weight: float = 100.0, **orders: Any) -> ProjectAccount:
        """The project as the manager names it, signed with its key."""
        return ProjectAccount(
            project.url, self.manager.key.sign(project.url), project.weak_key, weight, **orders
        )


@asynccontextmanager
async def boinc_world() -> AsyncIterator[World]:
    """A manager that serves, and room for clients and projects."""
    async with AsyncExitStack() as stack:
        manager = StandInManager()
        await manager.start()
        stack.push_async_callback(manager.close)
        yield World(stack, manager)


async def gui_of(client: BoincClient) -> GuiRpc:
    """A connection to the client's port."""
    return await GuiRpc.connect(PASSWORD, client.port)


def boinc_files(user_data: str) -> dict[str, str]:
    """The files of a cloud-init document that are BOINC's, by their names in the data directory."""
    files = yaml.safe_load(user_data)["write_files"]
    return {
        file["path"].removeprefix(STAGE): file["content"] for file in files if file["path"].startswith(STAGE)
    }


def machine_files(world: World, seat: Seat, *options: str) -> dict[str, str]:
    """What a machine of this seat is given, with more options of `cc_config.xml`."""
    manager = AccountManager(world.manager.url, world.manager.key.public, seat.opaque)
    files = boinc_files(render_user_data([], "tides-1", seat.token, manager=manager))
    more = "<options>" + "".join(options)
    return files | {"cc_config.xml": files["cc_config.xml"].replace("<options>", more)}


@asynccontextmanager
async def agent_of(
    client: BoincClient, door: StandInDoor, folder: Path, **settings: Any
) -> AsyncIterator[Path]:
    """The agent as a process beside the client; the answer is the file that says that it shut the machine down."""
    told = {"door": door.url, "token": door.token} | settings
    async with agent_running(client, folder, agent_source(), told) as off:
        yield off


@asynccontextmanager
async def agent_running(
    client: BoincClient, folder: Path, source: str, told: Mapping[str, Any]
) -> AsyncIterator[Path]:
    """An agent that was told this, and for the rest finds things where a test has them."""
    off = folder / "powered-off"
    here = {
        "state": str(folder / "state" / "agent.json"),
        "heard": str(folder / "heard"),
        "data": str(client.data),
        "port": client.port,
        "poweroff": ["touch", str(off)],
        "start_boinc": ["true"],
    }
    config, program = folder / "agent.json", folder / "agent.py"
    config.write_text(json.dumps(here | dict(told)))
    program.write_text(source)
    with (folder / "agent.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(program), "run", str(config), stdout=log, stderr=log
        )
        try:
            yield off
        finally:
            process.kill()
            await process.wait()


@asynccontextmanager
async def machine_of(world: World, user_data: str, url: str, folder: Path) -> AsyncIterator[BoincClient]:
    """A machine with this user-data: a real client and the agent that is in it, which find Tides at another address.

    Machines insist on https; a test has no certificate.
    """
    files = {file["path"]: file for file in yaml.safe_load(user_data)["write_files"]}
    told = json.loads(files["/etc/tides/agent.json"]["content"])
    packed = base64.b64decode(files["/usr/local/sbin/tides-agent"]["content"])
    known = told["door"].removesuffix("guests/")
    mine = {name: text.replace(known, f"{url}/") for name, text in boinc_files(user_data).items()}
    client = await world.client(mine)
    folder.mkdir()
    told["door"] = told["door"].replace(known, f"{url}/")
    async with agent_running(client, folder, gzip.decompress(packed).decode(), told):
        await client.start()
        yield client
        await client.kill()
