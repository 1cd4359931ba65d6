"""Asking a project who it is: through what PHP prints, on a bad day, and under another name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiohttp import web

from libs.common.auth import Role
from services.contribution.main import build
from tests.service.lone_service import Answer, Lone, serve

TERMS = "<b>Be kind</b> & lend"
CONFIG = """<br /><b>Deprecated</b>: x<br />
<?xml version="1.0" encoding="ISO-8859-1" ?>
<project_config><name>Lab</name><master_url>{url}</master_url><invite_code_required/>
<platforms><platform><platform_name>x86_64-pc-linux-gnu</platform_name>{plan}</platform></platforms>
<terms_of_use>{terms}</terms_of_use></project_config>"""


@dataclass
class Project:
    """A project's server; what it answers and with which status."""

    url: str = ""
    text: str = ""
    status: int = 200


@asynccontextmanager
async def serving() -> AsyncIterator[Project]:
    project = Project()

    async def config(_request: web.Request) -> web.Response:
        return web.Response(text=project.text, status=project.status)

    app = web.Application()
    app.router.add_get("/lab/get_project_config.php", config)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    project.url = f"http://127.0.0.1:{runner.addresses[0][1]}/lab/"
    project.text = CONFIG.format(url=project.url, plan="", terms=TERMS)
    try:
        yield project
    finally:
        await runner.cleanup()


@pytest.fixture
async def tides(database_url: str) -> AsyncIterator[Lone]:
    async with serve(build, "contribution", database_url) as lone:
        yield lone


async def check(tides: Lone, url: str, role: Role = Role.OPERATOR) -> Answer:
    made = await tides.ask("POST", "/v1/projects", {"name": url[-20:], "url": url})
    known = (await tides.ask("GET", "/v1/projects")).body["items"]
    project_id = made.body["id"] if made.status == 201 else known[0]["id"]
    return await tides.ask("POST", f"/v1/projects/{project_id}/check", role=role)


async def test_a_project_says_who_it_is_and_what_it_asks_for(tides: Lone) -> None:
    async with serving() as project:
        answer = await check(tides, project.url)

    assert answer.status == 200
    assert answer.body["name"] == "Lab"
    assert (answer.body["is_canonical"], answer.body["is_down"], answer.body["runs_here"]) == (
        True,
        False,
        True,
    )
    assert answer.body["hindrances"] == ["invite_code_required"]
    assert answer.body["terms"] == TERMS
    assert len(answer.body["terms_sha256"]) == 64


async def test_another_name_and_another_platform_are_seen(tides: Lone) -> None:
    async with serving() as project:
        plan = "<plan_class>vbox64</plan_class>"
        project.text = CONFIG.format(url="https://lab.example/", plan=plan, terms="")
        answer = await check(tides, project.url)

    assert (answer.body["is_canonical"], answer.body["master_url"]) == (False, "https://lab.example/")
    assert not answer.body["runs_here"]


@pytest.mark.parametrize(
    ("text", "status"), [("<html>Maintenance</html>", 200), ("", 200), ("x", 500), ("<a>" * 700_000, 200)]
)
async def test_a_project_on_a_bad_day_is_a_503_with_a_reason(tides: Lone, text: str, status: int) -> None:
    async with serving() as project:
        project.text, project.status = text, status
        answer = await check(tides, project.url)
        viewer = await check(tides, project.url, Role.VIEWER)

    assert answer.status == 503
    assert answer.body["detail"].startswith("The project")
    assert viewer.status == 403


async def test_a_project_that_is_away_is_a_503_too(tides: Lone) -> None:
    assert (await check(tides, "http://127.0.0.1:9/")).status == 503
