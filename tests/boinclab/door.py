"""A stand-in for where agents report: one-time tokens, machines' own secrets, commands until their outcome has come."""

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tools.parts.slots import free_port


@dataclass
class StandInDoor:
    """Serves `enrol` and `beat` for one machine; `silent` refuses everything, `lose` swallows that many answers."""

    token: str = "one-time-token"
    heartbeat_s: float = 1
    dead_man_s: float = 900
    secret: str | None = None
    silent: bool = False
    lose: int = 0
    commands: list[dict[str, Any]] = field(default_factory=list)
    outcomes: dict[str, Any] = field(default_factory=dict)
    beats: list[dict[str, Any]] = field(default_factory=list)
    enrolments: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        """The agent's `door`."""
        return f"http://127.0.0.1:{self.port}/guests/"

    async def start(self) -> None:
        """Serve on 127.0.0.1."""
        app = web.Application()
        app.router.add_post("/guests/enrol", self._enrol)
        app.router.add_post("/guests/beat", self._beat)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        self.port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def close(self) -> None:
        """End it."""
        await self._runner.cleanup()

    def order(self, do: str, **fields: Any) -> str:
        """A command; the answer is its id."""
        number = f"c{len(self.commands) + 1}"
        self.commands.append({"id": number, "do": do, **fields})
        return number

    async def _enrol(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.silent:
            return web.Response(status=503)
        if body["token"] != self.token or self.secret not in (None, body["secret"]):
            return web.Response(status=403)
        self.secret = body["secret"]
        self.enrolments += 1
        return self._answer(request, {})

    async def _beat(self, request: web.Request) -> web.Response:
        if self.silent:
            return web.Response(status=503)
        if request.headers.get("Authorization") != f"Bearer {self.secret}":
            return web.Response(status=401)
        body = await request.json()
        self.beats.append(body)
        self.outcomes.update(body["outcomes"])
        open_ = [each for each in self.commands if each["id"] not in self.outcomes]
        return self._answer(request, {"commands": open_})

    def _answer(self, request: web.Request, more: dict[str, Any]) -> web.Response:
        if self.lose:
            self.lose -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"heartbeat_s": self.heartbeat_s, "dead_man_s": self.dead_man_s, **more})
