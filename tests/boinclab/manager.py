"""A stand-in account manager on libs.boinc's codec, with the token rules that Tides keeps."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from libs.boinc.manager import (
    ManagerReply,
    ManagerRequest,
    ProjectAccount,
    parse_request,
    render_config,
    render_error,
    render_reply,
)
from libs.boinc.signing import SigningKey
from tools.parts.slots import free_port


@dataclass
class Seat:
    """One machine's place: the token in force, the one before until the new one is seen, and what it shall do."""

    opaque: str
    token: str
    previous: str | None = None
    accounts: tuple[ProjectAccount, ...] = ()
    heard: list[ManagerRequest] = field(default_factory=list)
    answered: int = 0


@dataclass
class StandInManager:
    """Serves `rpc.php`; `down` refuses, `lose` swallows that many replies after they took effect."""

    key: SigningKey = field(default_factory=SigningKey.generate)
    seats: list[Seat] = field(default_factory=list)
    preferences: Mapping[str, float] = field(default_factory=dict)
    repeat_s: int = 3
    rotates: bool = True
    down: bool = False
    lose: int = 0
    replays: int = 0
    """Contacts with a token that is void."""
    bodies: list[bytes] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """The address for `acct_mgr_url.xml`."""
        return f"http://127.0.0.1:{self.port}/am/"

    def seat(self, *accounts: ProjectAccount) -> Seat:
        """A place for a new machine."""
        seat = Seat(secrets.token_hex(8), secrets.token_hex(16), accounts=accounts)
        self.seats.append(seat)
        return seat

    async def start(self) -> None:
        """Serve on 127.0.0.1."""
        app = web.Application(client_max_size=8 << 20)
        app.router.add_post("/am/rpc.php", self._rpc)
        app.router.add_get("/am/get_project_config.php", self._config)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        self.port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def close(self) -> None:
        """End it."""
        await self._runner.cleanup()

    async def _config(self, _request: web.Request) -> web.Response:
        return web.Response(body=render_config("Tides"), content_type="text/xml")

    async def _rpc(self, request: web.Request) -> web.Response:
        if self.down:
            return web.Response(status=503)
        body = await request.read()
        self.bodies.append(body)
        asked = parse_request(body)
        seat = next((each for each in self.seats if asked.authenticator in (each.token, each.previous)), None)
        if seat is None or not asked.authenticator:
            self.replays += 1
            return web.Response(body=render_error(-206, "unknown token"), content_type="text/xml")
        answer = self._answer(seat, asked)
        if self.lose:
            self.lose -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.Response(body=answer, content_type="text/xml")

    def _answer(self, seat: Seat, asked: ManagerRequest) -> bytes:
        seat.heard.append(asked)
        if asked.authenticator == seat.token:
            seat.previous = None
        if self.rotates and seat.previous is None and seat.answered == 0:
            seat.previous, seat.token = seat.token, secrets.token_hex(16)
        seat.answered += 1
        reply = ManagerReply(
            name="Tides",
            signing_key=self.key.public,
            repeat_s=self.repeat_s,
            accounts=seat.accounts,
            authenticator=seat.token,
            opaque=seat.opaque,
            preferences=self.preferences,
        )
        return render_reply(reply)
