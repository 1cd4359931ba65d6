"""A strict and spiteful vCenter: sits before vcsim, loses answers on command, and refuses what a real one refuses."""

import asyncio
import re
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar
from xml.sax.saxutils import escape

import aiohttp
from aiohttp import web

from tools.parts.vcsim import Vcsim

_METHOD = re.compile(rb"Body>\s*<(?:\w+:)?(\w+)")
_ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope'
    ' xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>{}</soapenv:Body></soapenv:Envelope>'
)
MOST_METRICS = 256
V = TypeVar("V")
_PASSED_ON = ("Cookie", "SOAPAction", "Content-Type")


@dataclass(frozen=True, slots=True)
class SoapFault:
    """A fault as vSphere sends it; `detail` is XML inside the fault's element."""

    kind: str
    text: str = ""
    detail: str = ""

    def render(self) -> str:
        """The body of the answer."""
        return _ENVELOPE.format(
            "<soapenv:Fault><faultcode>ServerFaultCode</faultcode>"
            f"<faultstring>{escape(self.text)}</faultstring><detail>"
            f'<{self.kind}Fault xmlns="urn:vim25" xsi:type="{self.kind}">{self.detail}</{self.kind}Fault>'
            "</detail></soapenv:Fault>"
        )


def no_permission(privilege: str) -> SoapFault:
    """The account lacks this privilege."""
    detail = f'<object type="Folder">group-d1</object><privilegeId>{privilege}</privilegeId>'
    return SoapFault("NoPermission", "Permission to perform this operation was denied.", detail)


@dataclass(slots=True)
class Rules:
    """What goes wrong, by SOAP method ("*" is any); counted ones run out. Change them at any time."""

    delay_s: dict[str, float] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    """Answer with this HTTP status, without forwarding."""
    reset_before: Counter[str] = field(default_factory=Counter)
    """So many calls are cut off before anything has happened."""
    reset_after: Counter[str] = field(default_factory=Counter)
    """So many calls happen, and the answer is lost."""
    faults: dict[str, SoapFault] = field(default_factory=dict)
    lacking: set[str] = field(default_factory=set)
    """Privileges that HasPrivilegeOnEntities denies."""
    hidden: set[str] = field(default_factory=set)
    """Objects by id that RetrievePropertiesEx leaves out, as for an account that may not see them."""
    page_size: int | None = None
    """RetrievePropertiesEx answers in pages of so many objects."""
    csv: bool = False
    """QueryPerf answers in the CSV format when it is asked to, as a real one does."""
    mutate: Callable[[str, str], bytes] | None = None
    """What a method's answer is turned into."""
    drs_off: bool = False
    """Every cluster says that DRS is switched off."""
    strict: bool = True
    """Refuse what a real vCenter refuses and vcsim lets pass."""
    down: bool = False
    """Nothing is answered at all."""

    def heal(self) -> None:
        """Everything works again."""
        fresh = Rules(page_size=self.page_size, strict=self.strict)
        for name in self.__slots__:
            setattr(self, name, getattr(fresh, name))


class FaultProxy:
    """Listens with TLS on 127.0.0.1; `rules` decide, `calls` counts the methods that were asked for."""

    def __init__(self, upstream_url: str, ca_file: Path, cert_file: Path, key_file: Path) -> None:
        self.rules = Rules()
        self.calls: Counter[str] = Counter()
        self.port = 0
        self._upstream = upstream_url.removesuffix("/sdk")
        self._trust = ssl.create_default_context(cafile=str(ca_file))
        self._identity = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._identity.load_cert_chain(cert_file, key_file)
        self._pages: dict[str, list[str]] = {}
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
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        found = _METHOD.search(body)
        method = found.group(1).decode() if found else request.method
        self.calls[method] += 1
        if self.rules.down or _take(self.rules.reset_before, method):
            return _cut(request)
        await asyncio.sleep(_pick(self.rules.delay_s, method) or 0)
        status = _pick(self.rules.status, method)
        if status is not None:
            return web.Response(status=status, text="<html>out of order</html>", content_type="text/html")
        fault = _pick(self.rules.faults, method) or await self._refuse(method, body, request)
        if fault is not None:
            return web.Response(status=500, text=fault.render(), content_type="text/xml")
        answer = await self._answer(method, body, request)
        return _cut(request) if _take(self.rules.reset_after, method) else answer

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
        text = self._change(method, text, body) if status == 200 else text
        mine = _xml(text, status)
        if self.rules.mutate is not None:
            mine.body = self.rules.mutate(method, text)
        for cookie in cookies:
            mine.headers.add("Set-Cookie", cookie)
        return mine

    def _change(self, method: str, text: str, body: bytes) -> str:
        """What the rules make of an answer."""
        if method == "HasPrivilegeOnEntities":
            text = _deny(text, self.rules.lacking)
        if self.rules.drs_off:
            text = re.sub(r"(drsConfig\.enabled</name>\s*<val[^>]*>)true", r"\1false", text)
        if method == "RetrievePropertiesEx":
            text = _hide(text, self.rules.hidden) if self.rules.hidden else text
            text = self._split(text, self.rules.page_size) if self.rules.page_size else text
        if method == "QueryPerf" and self.rules.csv and b"<format>csv<" in body:
            text = _as_csv(text)
        return text

    def _turn_page(self, method: str, body: str) -> web.Response:
        """The next page of a token, or none any more; an unknown token is refused."""
        token = _first(r"<token[^>]*>([^<]*)</token>", body) or ""
        if not self._pages.get(token):
            wrong = SoapFault("InvalidArgument", "no such token", "<invalidProperty>token</invalidProperty>")
            return _xml(wrong.render(), 500)
        if method == "CancelRetrievePropertiesEx":
            del self._pages[token]
            return _xml(_ENVELOPE.format('<CancelRetrievePropertiesExResponse xmlns="urn:vim25"/>'))
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
            _ENVELOPE.format(
                '<ContinueRetrievePropertiesExResponse xmlns="urn:vim25"><returnval>'
                + (f"<token>{token}</token>" if number + 1 < len(pages) else "")
                + "".join(page)
                + "</returnval></ContinueRetrievePropertiesExResponse>"
            )
            for number, page in enumerate(pages)
        ][1:]
        start, end = text.index("<objects>"), text.rindex("</objects>") + len("</objects>")
        return text[:start] + f"<token>{token}</token>" + "".join(pages[0]) + text[end:]

    # -- strictness: what vcsim lets pass ---------------------------------------------------------------------------

    async def _refuse(self, method: str, body: bytes, request: web.Request) -> SoapFault | None:
        check = {
            "CloneVM_Task": self._refuse_clone,
            "PowerOnVM_Task": self._refuse_power_on,
            "SuspendVM_Task": self._refuse_suspend,
            "ReconfigVM_Task": self._refuse_reconfigure,
            "QueryPerf": self._refuse_query,
        }.get(method)
        if check is None or not self.rules.strict:
            return None
        return await check(body.decode(), request.headers.get("Cookie", ""))

    async def _refuse_clone(self, body: str, cookie: str) -> SoapFault | None:
        for tag in ("_this", "folder", "pool", "host", "datastore"):
            ref = _ref_in(body, tag)
            if ref is not None and await self._read(ref, "name", cookie) is None:
                kind, value = ref
                return SoapFault("ManagedObjectNotFound", "gone", f'<obj type="{kind}">{escape(value)}</obj>')
        folder, name = _ref_in(body, "folder"), _first(r"<name[^>]*>([^<]*)</name>", body) or ""
        if folder is None:
            return SoapFault("InvalidArgument", "no folder", "<invalidProperty>folder</invalidProperty>")
        found = await self._ask(
            '<FindChild xmlns="urn:vim25"><_this type="SearchIndex">SearchIndex</_this>'
            f'<entity type="Folder">{escape(folder[1])}</entity><name>{name}</name></FindChild>',
            cookie,
        )
        taken = _first(r"<returnval[^>]*>([^<]+)<", found)
        if taken is None:
            return None
        detail = f'<name>{name}</name><object type="VirtualMachine">{taken}</object>'
        return SoapFault("DuplicateName", f"The name '{name}' already exists.", detail)

    async def _refuse_power_on(self, body: str, cookie: str) -> SoapFault | None:
        """Overhead memory must be reserved somewhere: in the pool, or by what the pool may borrow."""
        vm = _ref_in(body, "_this")
        pool = _first(r">([^<]+)<", await self._read(vm, "resourcePool", cookie) or "") if vm else None
        if pool is None:
            return None
        ref = ("ResourcePool", pool)
        expandable = await self._read(ref, "config.memoryAllocation.expandableReservation", cookie) or ""
        reserved = _first(
            r">(\d+)<", await self._read(ref, "config.memoryAllocation.reservation", cookie) or ""
        )
        if "false" not in expandable or (reserved or "0") != "0":
            return None
        return SoapFault(
            "InsufficientMemoryResourcesFault",
            "The available memory resources in the parent resource pool are insufficient for the operation.",
            "<unreserved>0</unreserved><requested>50</requested>",
        )

    async def _refuse_query(self, body: str, cookie: str) -> SoapFault | None:
        """More metrics than `config.vpxd.stats.maxQueryMetrics` usually allows."""
        if len(re.findall(r"<metricId[ >]", body)) <= MOST_METRICS:
            return None
        detail = "<invalidProperty>querySpec.size</invalidProperty>"
        return SoapFault("InvalidArgument", "A specified parameter was not correct: querySpec.size", detail)

    async def _refuse_suspend(self, body: str, cookie: str) -> SoapFault | None:
        return await self._unless_powered(body, cookie, "poweredOn")

    async def _refuse_reconfigure(self, body: str, cookie: str) -> SoapFault | None:
        """The number of CPUs and the size of memory only change while a machine is off."""
        if "<numCPUs" in body or "<memoryMB" in body:
            return await self._unless_powered(body, cookie, "poweredOff")
        return None

    async def _unless_powered(self, body: str, cookie: str, state: str) -> SoapFault | None:
        vm = _ref_in(body, "_this")
        now = (
            _first(r">(powered\w+|suspended)<", await self._read(vm, "runtime.powerState", cookie) or "")
            if vm
            else None
        )
        if now is None or now == state:
            return None
        detail = f"<requestedState>{state}</requestedState><existingState>{now}</existingState>"
        return SoapFault(
            "InvalidPowerState", "The attempted operation cannot be performed in the current state", detail
        )

    async def _read(self, ref: tuple[str, str], path: str, cookie: str) -> str | None:
        """The XML of one property's value; None when the object does not exist."""
        kind, value = ref
        answer = await self._ask(
            '<RetrievePropertiesEx xmlns="urn:vim25"><_this type="PropertyCollector">propertyCollector</_this><specSet>'
            f"<propSet><type>{kind}</type><pathSet>{path}</pathSet></propSet>"
            f'<objectSet><obj type="{kind}">{escape(value)}</obj></objectSet></specSet>'
            "<options/></RetrievePropertiesEx>",
            cookie,
        )
        return _first(r"(<val.*?</val>)", answer)

    async def _ask(self, body: str, cookie: str) -> str:
        assert self._http is not None
        headers = {
            "Cookie": cookie,
            "SOAPAction": '"urn:vim25/6.5"',
            "Content-Type": "text/xml; charset=UTF-8",
        }
        async with self._http.post(
            f"{self._upstream}/sdk", data=_ENVELOPE.format(body).encode(), headers=headers
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


def _as_csv(text: str) -> str:
    """QueryPerf's answer in the other format."""

    def convert(found: re.Match[str]) -> str:
        item = found[0].replace('"PerfEntityMetric"', '"PerfEntityMetricCSV"')
        item = item.replace('"PerfMetricIntSeries"', '"PerfMetricSeriesCSV"')
        times = re.findall(r"<timestamp>([^<]*)</timestamp><interval>([^<]*)<", item)
        info = ",".join(f"{interval},{at}" for at, interval in times)
        item = re.sub(r"(<sampleInfo>.*</sampleInfo>)", f"<sampleInfoCSV>{info}</sampleInfoCSV>", item)
        return re.sub(r"(?<=</id>)<value>(.*?)</value>(?=</value>)", _join_values, item)

    return re.sub(r"<returnval.*?</returnval>", convert, text, flags=re.DOTALL)


def _join_values(found: re.Match[str]) -> str:
    return f"<value>{found[1].replace('</value><value>', ',')}</value>"


def _hide(text: str, hidden: set[str]) -> str:
    pattern = r"<objects><obj [^>]*>([^<]*)</obj>.*?</objects>"
    return re.sub(pattern, lambda each: "" if each[1] in hidden else each[0], text, flags=re.DOTALL)


def _deny(text: str, lacking: set[str]) -> str:
    for privilege in lacking:
        text = re.sub(rf"(<privId>{re.escape(privilege)}</privId>\s*<isGranted>)true", r"\1false", text)
    return text


def _ref_in(body: str, tag: str) -> tuple[str, str] | None:
    found = re.search(rf'<{tag}[^>]* type="(\w+)"[^>]*>([^<]+)</{tag}>', body)
    return (found.group(1), found.group(2)) if found else None


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, re.DOTALL)
    return found.group(1) if found else None
