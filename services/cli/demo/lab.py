"""The demo's own science project: the stand-in, on the demo's clock, with the key that signs its address."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from libs.boinc.demo_project import DemoProject, serving
from libs.boinc.signing import SigningKey
from libs.common.clock import Clock

NAME = "Lab"
EMAIL, USER_NAME = "demo@example.org", "Tides demo"
TASK_S, LINK_S = 3600.0, 60.0
"""A task is an hour of a processor, and the answer to it is worked out in no time."""
HERE = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Lab:
    """A project that is served, and what it takes to lend to it."""

    project: DemoProject
    key: SigningKey
    """The account manager's."""
    password: str = field(repr=False)
    """Of the demo's account there."""
    http: aiohttp.ClientSession = field(repr=False)
    """For whoever asks the project, and Tides, from a machine."""

    @property
    def url(self) -> str:
        """Its master URL."""
        return self.project.url

    @property
    def signature(self) -> str:
        """Of its address, without which no client attaches to it."""
        return self.key.sign(self.url)


@asynccontextmanager
async def open_lab(clock: Clock, key: SigningKey, password: str) -> AsyncIterator[Lab]:
    """The project on a port of its own until the block ends; what it remembers ends with it."""
    project = DemoProject(name=NAME, cpu_s=TASK_S, link_s=LINK_S, wrong_login_s=0.0, clock=clock)
    async with serving(project, HERE, 0), aiohttp.ClientSession() as http:
        yield Lab(project, key, password, http)
