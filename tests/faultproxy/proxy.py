"""The listener: what comes from a client, goes to vcsim and comes back as the rules will have it."""

import asyncio
import re
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self, TypeVar

import aiohttp
from aiohttp import web

from tests.faultproxy.accounts import Accounts
from tests.faultproxy.host import Disks, license_freely, refuse_on_host
from tests.faultproxy.rules import Rules, SoapFault
from tests.faultproxy.sending import break_off, trickle, truncate
from tests.faultproxy.sessions import Sessions
from tests.faultproxy.strict import CHANGE_VERSION, Strictness
from tests.faultproxy.tasks import Tasks
from tests.faultproxy.texts import ENVELOPE, as_csv, as_measured, deny, first, hide
from tools.parts.vcsim import PASSWORD, USERNAME, Vcsim

_METHOD = re.compile(rb"Body>\s*<(?:\w+:)?(\w+)")
V = TypeVar("V")
MOST_TOLD = 64
"""Answers that are remembered, for the day when they are stale."""
_PASSED_ON = ("Cookie", "SOAPAction", "Content-Type")


class FaultProxy:
    """Listens with TLS on 127.0.0.1; `rules` decide, `calls` counts the methods that were asked for."""

    def __init__(self, upstream_url: str, ca_file: Path, cert_file: Path, key_file: Path) -> None:
        self.rules = Rules()
        self.calls: Counter[str] = Counter()
        self.obeyed: Counter[str] = Counter()
        """The calls that were not refused."""
        self.disks = Disks()
        self.listener: Callable[[str, str], None] | None = None
        """Is told of every call that is passed on."""
        self.port = 0
        self._upstream = upstream_url.removesuffix("/sdk")
        self._trust = ssl.create_default_context(cafile=str(ca_file))
        self._identity = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._identity.load_cert_chain(cert_file, key_file)
        self._pages: dict[str, list[str]] = {}
        self._told: dict[bytes, str] = {}
        self.sessions = Sessions()
        self.accounts = Accounts()
        self.tasks = Tasks(self._ask, self._own_cookie)
        self._strict = Strictness(self._ask, self.tasks.holder)
        self._strict.drs_off = lambda: self.rules.drs_off
        self._cookie = ""
        self._http: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    @classmethod
    def before(cls, vcsim: Vcsim) -> "FaultProxy":
        """A proxy that shows the same certificate, so the same authority and thumbprint are right for both."""
        folder = vcsim.ca_file.parent
        return cls(vcsim.url, vcsim.ca_file, folder / "server.pem", folder / "server.key")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.stop()

    @property
    def known_counters(self) -> set[str]:
        """The numbers of the counters that there are; empty: vcsim is asked."""
        return self._strict.known_counters

    @known_counters.setter
    def known_counters(self, numbers: set[str]) -> None:
        self._strict.known_counters = numbers

    @property
    def denied(self) -> Counter[str]:
        """Calls that were refused, by the privilege that the account lacks."""
        return self._strict.denied

    @property
    def url(self) -> str:
        """The SOAP endpoint."""
        return f"https://127.0.0.1:{self.port}/sdk"

    async def start(self) -> None:
        """Listen on a free port; after `stop` on the same one."""
        self._http = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(ssl=self._trust, limit=0),
            timeout=aiohttp.ClientTimeout(total=120),
        )
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._identity)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        await self.tasks.aclose()
        self._cookie = ""
        if self._runner is not None:
            for connection in self._runner.server.connections if self._runner.server is not None else ():
                if connection.transport is not None:
                    connection.transport.abort()  # nobody waits for a polite end
            await self._runner.cleanup()
            self._runner = None
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def present(self, folder: Path) -> None:
        """Show the certificate of this folder from now on; every connection has to be made anew."""
        self._identity.load_cert_chain(folder / "server.pem", folder / "server.key")
        await self.stop()
        await self.start()

    def restart(self) -> None:
        """As a vCenter that was restarted: no session, collector or task is left, and every object keeps its id."""
        self.sessions.end_all()
        self.tasks.forget(running=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        found = _METHOD.search(body)
        method = found.group(1).decode() if found else request.method
        self.calls[method] += 1
        if self.rules.down or _take(self.rules.reset_before, method):
            return _cut(request)
        await asyncio.sleep(_pick(self.rules.delay_s, method) or 0)
        cookie = request.headers.get("Cookie", "")
        is_full = self.sessions.is_full(method, cookie, self.rules.most_sessions)
        status = 503 if is_full else _pick(self.rules.status, method)
        if status is not None:
            headers = {"Retry-After": self.rules.retry_after} if self.rules.retry_after else None
            return web.Response(
                status=status, text="<html>out of order</html>", content_type="text/html", headers=headers
            )
        fault = self.sessions.refuse(method, cookie, self.rules.expiry, self.rules.expiry_share)
        fault = fault or _pick(self.rules.faults, method) or refuse_on_host(self.rules, method)
        fault = fault or self.accounts.refuse(method, body.decode())
        fault = fault or await self._refuse(method, body, request)
        body = body if fault else self.accounts.rename(method, body)
        if fault is not None:
            return web.Response(status=500, text=fault.render(), content_type="text/xml")
        answer = await self._answer_late(method, body.decode(), cookie) or await self._answer(
            method, body, request
        )
        self.obeyed[method] += answer.status == 200
        return await self._send(method, request, answer)

    async def _send(self, method: str, request: web.Request, answer: web.Response) -> web.StreamResponse:
        """The answer, or what the rules leave of it."""
        if _take(self.rules.reset_after, method):
            return _cut(request)
        if _take(self.rules.break_off, method):
            return await break_off(request, answer)
        size, slowly = _pick(self.rules.truncate, method), _pick(self.rules.trickle, method)
        answer = answer if size is None else truncate(answer, size)
        return answer if slowly is None else await trickle(request, answer, slowly)

    async def _answer_late(self, method: str, body: str, cookie: str) -> web.Response | None:
        """What is answered here instead of by vcsim: tasks that take their time, and questions about tasks."""
        late = _pick(self.rules.late, method) if method.endswith("_Task") else None
        found = (
            self.tasks.begin(method, body, late) if late else await self.tasks.answer(method, body, cookie)
        )
        if isinstance(found, SoapFault):
            return _xml(found.render(), 500)
        return None if found is None else _xml(found)

    async def _own_cookie(self) -> str:
        """A session of the proxy's own: what a task does outlives the session that began it."""
        if not self._cookie:
            assert self._http is not None
            call = (
                '<Login xmlns="urn:vim25"><_this type="SessionManager">SessionManager</_this>'
                f"<userName>{USERNAME}</userName><password>{PASSWORD}</password></Login>"
            )
            async with self._http.post(f"{self._upstream}/sdk", data=ENVELOPE.format(call)) as answer:
                self._cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return self._cookie

    async def _answer(self, method: str, body: bytes, request: web.Request) -> web.Response:
        if method in ("ContinueRetrievePropertiesEx", "CancelRetrievePropertiesEx"):
            return self._turn_page(method, body.decode())
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        assert self._http is not None
        async with self._http.request(
            request.method, self._upstream + request.path_qs, data=body, headers=headers
        ) as answer:
            text = (await answer.read()).decode()
            status, cookies = answer.status, answer.headers.getall("Set-Cookie", [])
        if status == 200:
            self.disks.note(method, body.decode())
            if self.listener is not None:
                self.listener(method, body.decode())
            text = self._change(method, self._as_before(method, text, body), body)
        mine = _xml(text, status)
        if self.rules.mutate is not None:
            mine.body = self.rules.mutate(method, text)
        if method == "Logout":
            self.sessions.leave(request.headers.get("Cookie", ""))
        for cookie in cookies:
            self.sessions.begin(cookie)
            mine.headers.add("Set-Cookie", cookie)
        return mine

    def _as_before(self, method: str, text: str, body: bytes) -> str:
        """What was answered to the same question before, while answers are stale."""
        if method != "RetrievePropertiesEx":
            return text
        if self.rules.is_stale:
            return self._told.get(body, text)
        self._told.pop(body, None)
        self._told[body] = text
        if len(self._told) > MOST_TOLD:
            del self._told[next(iter(self._told))]
        return text

    def _change(self, method: str, text: str, body: bytes) -> str:
        """What the rules make of an answer."""
        if method == "HasPrivilegeOnEntities":
            text = deny(text, self.rules.lacking)
        if self.rules.free_licence:
            text = license_freely(text)
        if b"<path>recentTask</path>" in body:
            text = self.tasks.show_recent(body.decode(), text)
        if self.rules.drs_off:
            text = re.sub(r"(drsConfig\.enabled</name>\s*<val[^>]*>)true", r"\1false", text)
        if method == "RetrievePropertiesEx":
            text = self._strict.stamp(text) if CHANGE_VERSION in body else text
            text = hide(text, self.rules.hidden) if self.rules.hidden else text
            text = self._split(text, self.rules.page_size) if self.rules.page_size else text
        if method == "QueryPerf" and self.rules.strict:
            text = as_measured(text, self._strict.powered_off)
        if method == "QueryPerf" and self.rules.csv and b"<format>csv<" in body:
            text = as_csv(text)
        return text

    def _turn_page(self, method: str, body: str) -> web.Response:
        """The next page of a token, or none any more; an unknown token is refused."""
        token = first(r"<token[^>]*>([^<]*)</token>", body) or ""
        if not self._pages.get(token):
            wrong = SoapFault("InvalidArgument", "no such token", "<invalidProperty>token</invalidProperty>")
            return _xml(wrong.render(), 500)
        if method == "CancelRetrievePropertiesEx":
            del self._pages[token]
            return _xml(ENVELOPE.format('<CancelRetrievePropertiesExResponse xmlns="urn:vim25"/>'))
        return _xml(self._pages[token].pop(0))

    @property
    def unread_pages(self) -> int:
        """Pages that wait for somebody to ask for them, or to cancel them."""
        return sum(map(len, self._pages.values()))

    def _split(self, text: str, size: int) -> str:
        """The first page; the others wait for their token, each naming the next."""
        objects = re.findall(r"<objects>.*?</objects>", text, re.DOTALL)
        pages = [objects[start : start + size] for start in range(0, len(objects), size)]
        if len(pages) < 2:
            return text
        token = f"page-{len(self._pages)}"
        self._pages[token] = [
            ENVELOPE.format(
                '<ContinueRetrievePropertiesExResponse xmlns="urn:vim25"><returnval>'
                + (f"<token>{token}</token>" if number + 1 < len(pages) else "")
                + "".join(page)
                + "</returnval></ContinueRetrievePropertiesExResponse>"
            )
            for number, page in enumerate(pages)
        ][1:]
        start, end = text.index("<objects>"), text.rindex("</objects>") + len("</objects>")
        return text[:start] + f"<token>{token}</token>" + "".join(pages[0]) + text[end:]

    async def _refuse(self, method: str, body: bytes, request: web.Request) -> SoapFault | None:
        if _take(self.rules.edits_before, method):
            self._strict.note_edit(body.decode())
        text, cookie = body.decode(), request.headers.get("Cookie", "")
        if self.rules.lacking:
            denied = await self._strict.refuse_unprivileged(method, text, cookie, self.rules.lacking)
            if denied is not None:
                return denied
        return await self._strict.refuse(method, text, cookie) if self.rules.strict else None

    async def _ask(self, body: str, cookie: str) -> str:
        assert self._http is not None
        if self.rules.esxi:
            body = body.replace(">propertyCollector<", ">ha-property-collector<")
        headers = {
            "Cookie": cookie,
            "SOAPAction": '"urn:vim25/6.5"',
            "Content-Type": "text/xml; charset=UTF-8",
        }
        async with self._http.post(
            f"{self._upstream}/sdk", data=ENVELOPE.format(body).encode(), headers=headers
        ) as answer:
            return (await answer.read()).decode()


def _take(counts: Counter[str], method: str) -> bool:
    """Use up one of the method's turns."""
    name = method if counts[method] > 0 else "*"
    if counts[name] <= 0:
        return False
    counts[name] -= 1
    return True


def _pick(values: Mapping[str, V], method: str) -> V | None:
    return values.get(method, values.get("*"))


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=499)


def _xml(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text, content_type="text/xml")
