"""Clients, projects and a manager together, put away at the end of a test."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml

from libs.boinc.gui import GuiRpc
from libs.boinc.manager import ProjectAccount
from tests.boinclab.manager import Seat, StandInManager
from tests.boinclab.project import StandInProject
from tools.parts.boinc import PASSWORD, BoincClient

BOINC_FOLDERS = ("/var/lib/boinc-client/", "/etc/boinc-client/")


@dataclass
class World:
    """What a test can start; all of it ends with it."""

    stack: AsyncExitStack
    manager: StandInManager
    clients: list[BoincClient] = field(default_factory=list)

    async def project(self, **settings: Any) -> StandInProject:
        """A project that serves."""
        project = StandInProject(**settings)
        await project.start()
        self.stack.push_async_callback(project.close)
        return project

    async def client(self, files: dict[str, str]) -> BoincClient:
        """A prepared client with these files in its data directory; the password is the tests'."""
        client = BoincClient()
        self.stack.push_async_callback(client.close)
        await client.prepare()
        for name, text in (files | {"gui_rpc_auth.cfg": PASSWORD}).items():
            client.write(name, text)
        self.clients.append(client)
        return client

    def account(self, project: StandInProject, weight: float = 100.0, **orders: Any) -> ProjectAccount:
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
    found = {}
    for file in yaml.safe_load(user_data)["write_files"]:
        for folder in BOINC_FOLDERS:
            if file["path"].startswith(folder):
                found[file["path"].removeprefix(folder)] = file["content"]
    return found


def manager_files(manager: StandInManager, seat: Seat) -> dict[str, str]:
    """The two files that make a client come to the manager, by hand."""
    url = f"<acct_mgr>\n<name>Tides</name>\n<url>{manager.url}</url>\n"
    url += f"<signing_key>\n{manager.key.public.text}</signing_key>\n</acct_mgr>\n"
    login = f"<acct_mgr_login>\n<authenticator>{seat.token}</authenticator>\n"
    login += f"<opaque>\n{seat.opaque}\n</opaque>\n</acct_mgr_login>\n"
    return {"acct_mgr_url.xml": url, "acct_mgr_login.xml": login}
