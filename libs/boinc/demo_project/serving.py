"""The demo project on a port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import escape

from aiohttp import web

from libs.boinc.demo_project import accounts, exports, scheduling, uploading
from libs.boinc.demo_project.crediting import grant_due
from libs.boinc.demo_project.project import PROGRAM, DemoProject

LARGEST_REQUEST = 8 << 20
_DOWNLOAD, _STATISTICS = f"download/{PROGRAM}", "stats/"
_TAKES = {"cgi": scheduling.schedule, uploading.HANDLER: uploading.upload}


@asynccontextmanager
async def serving(project: DemoProject, host: str, port: int, base: str = "demo") -> AsyncIterator[None]:
    """The project on this address, port 0 is any, until the block ends; `url` is set where it was not.

    Raises OSError where the address cannot be had.
    """
    app = web.Application(client_max_size=LARGEST_REQUEST)

    async def answer(request: web.Request) -> web.Response:
        return await _answer(project, request)

    app.router.add_get("/readyz", _ready)
    app.router.add_route("*", f"/{base}/{{name:.*}}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        project.url = project.url or f"http://{host}:{runner.addresses[0][1]}/{base}/"
        yield
    finally:
        await runner.cleanup()


async def _ready(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _answer(project: DemoProject, request: web.Request) -> web.Response:
    name = request.match_info["name"]
    project.note(name)
    if project.page is not None or project.status != 200:
        return web.Response(text=project.page or "", status=project.status, content_type="text/html")
    body = await request.read()
    if name in _TAKES:
        await project.prepare()
        return web.Response(text=_TAKES[name](project, body), content_type="text/xml")
    if request.method != "GET" or body:
        project.blame(f"{name}: not a plain GET")
    if grant_due(project):
        project.keep()
    return await _show(project, name, request)


async def _show(project: DemoProject, name: str, request: web.Request) -> web.Response:
    if name == "":
        return web.Response(text=_front_page(project), content_type="text/html")
    if name == _DOWNLOAD:
        await project.prepare()
        return web.Response(body=project.program, content_type="application/octet-stream")
    if name.startswith(_STATISTICS):
        known = request.headers.get("If-None-Match")
        return exports.export(project, name.removeprefix(_STATISTICS), known)
    text = await accounts.call(project, name, request.query)
    if text is None:
        project.blame(f"{name}: no such page")
        return web.Response(status=404)
    return web.Response(text=text, content_type="text/xml")


def _front_page(project: DemoProject) -> str:
    """For people a few figures; for clients where the scheduler is."""
    hosts = project.hosts.values()
    credit = sum(host.credit for host in hosts)
    return (
        f"<html><head><title>{escape(project.name)}</title></head><body><h1>{escape(project.name)}</h1>\n"
        f"<p>A stand-in BOINC project: {len(project.users)} accounts, {len(hosts)} hosts, "
        f"{len(project.jobs)} tasks, {credit:.3f} credit granted.</p>\n"
        f"<!--\n<scheduler>{project.url}cgi</scheduler>\n-->\n</body></html>\n"
    )
