"""A project's web RPCs for a test: the demo project, which forgives nothing in it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.boinc.demo_project import DemoProject
from libs.boinc.demo_project import serving as serving_on

HTML = "<html><body><h1>Down for maintenance</h1></body></html>"
TERMS = "<b>Be kind</b> & lend"


@asynccontextmanager
async def serving(name: str = "lab") -> AsyncIterator[DemoProject]:
    """A project on 127.0.0.1 until the block ends; whoever called it wrongly is told at its end."""
    project = DemoProject(name=name.title(), terms=TERMS, wrong_login_s=0)
    async with serving_on(project, "127.0.0.1", 0, name):
        yield project
    assert project.faults == []
