"""A small house to talk to: identity and a few lists, strict about tokens, in a thread of its own."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

TOKEN = "tides_" + "a" * 32 + "_" + "b" * 43
LISTED = (
    *("resources", "policies", "templates", "projects", "listed-projects", "contributions", "accounts"),
    *("clusters", "machines", "users", "guests"),
)


class House:
    """Keeps what it is given. Access tokens end when the test says so."""

    def __init__(self) -> None:
        self.kept: dict[str, list[dict[str, Any]]] = {plural: [] for plural in LISTED}
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        """What to say to (method, path) instead."""
        self.matches: list[str] = []
        """`If-Match` of every request that has one."""
        self.exchanges = 0
        self.good = ""
        self.page = 2
        self.events: list[dict[str, Any]] = []
        self.break_after: int | None = None
        self.resumed_from: list[str | None] = []
        self.url = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/tokens/exchange", self._exchange)
        app.router.add_get("/v1/events", self._events)
        app.router.add_route("*", "/{path:.*}", self._anything)
        return app

    async def _exchange(self, request: web.Request) -> web.Response:
        if (await request.json()) != {"token": TOKEN}:
            return problem(401, "This token is not valid.", remedy="Make a new one.")
        self.exchanges += 1
        self.good = f"access-{self.exchanges}"
        return web.json_response({"access_token": self.good, "expires_in": 600})

    def _refusal(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") != f"Bearer {self.good}":
            return problem(401, "The access token is not valid or has ended.")
        return None

    async def _anything(self, request: web.Request) -> web.Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        text = await request.text()
        is_json = request.content_type == "application/json"
        body = json.loads(text) if text and is_json else text or None
        self.asked.append((request.method, request.path, body))
        self.matches += request.headers.getall("If-Match", [])
        if (request.method, request.path) in self.answers:
            status, answer = self.answers[request.method, request.path]
            return answer if isinstance(answer, web.Response) else web.json_response(answer, status=status)
        plural = request.path.split("/")[2]
        if request.method == "GET" and plural in self.kept:
            return self._page(self.kept[plural], int(request.query.get("cursor") or 0))
        return problem(404, "There is nothing at this address.")

    def _page(self, items: list[dict[str, Any]], at: int) -> web.Response:
        more = at + self.page < len(items)
        shown = {"items": items[at : at + self.page], "next_cursor": str(at + self.page) if more else None}
        return web.json_response(shown)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Everything after Last-Event-ID, `break_after` events at a time."""
        if (refusal := self._refusal(request)) is not None:
            return refusal
        last = request.headers.get("Last-Event-ID")
        self.resumed_from.append(last)
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        await stream.write(b": following\nid: 0\n\n" if last is None else b": following\n\n")
        begin = int(last or 0)
        for number, event in enumerate(self.events[begin:][: self.break_after], start=begin + 1):
            await stream.write(f"id: {number}\nevent: {event['key']}\ndata: {json.dumps(event)}\n\n".encode())
        return stream


def problem(status: int, detail: str, field: str | None = None, remedy: str | None = None) -> web.Response:
    """A problem as the services say it."""
    body = {"type": "urn:tides:problem:x", "title": "x", "status": status, "detail": detail}
    more = {"field": field, "remedy": remedy}
    return web.json_response(
        {**body, **{name: value for name, value in more.items() if value}},
        status=status,
        content_type="application/problem+json",
    )


@contextmanager
def serving(house: House) -> Iterator[House]:
    """Serve the house until the block ends."""
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(house.app())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        house.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert ready.wait(10)
        yield house
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
