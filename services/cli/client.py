"""The REST client behind every command: a token exchanged for access, deadlines, problems as one line."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import aiohttp
from pydantic import SecretStr

CALL_WITHIN_S = 45.0
"""Longer than the 30 s that a service gives a cloud to answer."""
CONNECT_WITHIN_S = 5.0
QUIET_FOR_S = 45.0
"""A stream that says nothing for three keep-alives is lost."""
RENEW_BEFORE_S = 60.0
PAGE = 200

_SERVICES = {
    "identity": ("users", "tokens", "sessions", "me", "organisations"),
    "registry": ("resources", "abandonments"),
    "policy": ("policies",),
    "templates": ("templates",),
    "contribution": (
        "projects",
        "listed-projects",
        "accounts",
        "contributions",
        "guests",
        "claims",
        "grants",
    ),
    "monitor": ("monitors",),
    "workload": ("clusters", "workloads", "machines", "decisions", "events", "sweeps"),
    "stats": ("stats",),
}
SERVICE_OF = {plural: service for service, plurals in _SERVICES.items() for plural in plurals}


class Failed(Exception):
    """A command that did not succeed, in one line for a person."""


class Refused(Failed):
    """The service said no."""

    def __init__(self, line: str, status: int) -> None:
        super().__init__(line)
        self.status = status


class Unreachable(Failed):
    """There was no answer."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the services are, and who asks."""

    url: str
    token: SecretStr
    by_service: Mapping[str, str] = field(default_factory=dict)

    def url_of(self, path: str) -> str:
        """The whole address of `/v1/<plural>...`."""
        service = SERVICE_OF.get(path.split("/")[2].partition("?")[0], "")
        return self.by_service.get(service, self.url).rstrip("/") + path


@dataclass(frozen=True, slots=True)
class Told:
    """One server-sent event."""

    id: str
    kind: str
    data: Any


class Client:
    """Calls with a deadline each. Raises Failed, never anything of the network library."""

    def __init__(self, http: aiohttp.ClientSession, target: Target) -> None:
        self._http = http
        self._target = target
        self._access = ""
        self._good_until = 0.0
        self._renewing = asyncio.Lock()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> Any:
        """The answer's JSON; None where it has no body. `data` goes as it is instead of a JSON body."""
        for is_last in (False, True):
            sent = {"Authorization": f"Bearer {await self._token()}", **(headers or {})}
            given: dict[str, Any] = {"data": data} if data is not None else {"json": body}
            try:
                return await self._once(method, path, params=_query(params), headers=sent, **given)
            except Refused as refused:
                if refused.status != 401 or is_last:
                    raise
                self._good_until = 0.0
        raise AssertionError("unreachable")

    async def pages(self, path: str, **params: Any) -> list[dict[str, Any]]:
        """The items of every page."""
        items: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            asked = {**params, "limit": PAGE, "cursor": cursor}
            page = await self.call("GET", path, params=asked)
            items += page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return items

    async def stream(self, path: str, last_id: str | None, **params: Any) -> AsyncIterator[Told]:
        """Server-sent events, from `last_id` on where it is given, until the connection is lost.

        The first one has no data: the stream is open.
        """
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        asked = {"params": _query(params), "headers": headers}
        async with self._opened("GET", path, QUIET_FOR_S, **asked) as content:
            yield Told("", "open", None)
            async for told in _read_events(content):
                yield told

    async def lines(self, path: str, body: Any) -> AsyncIterator[Any]:
        """What a POST answers, one value of JSON a line, as the lines come."""
        async with self._opened("POST", path, None, json=body, headers={}) as content:
            async for line in content:
                yield json.loads(line)

    @asynccontextmanager
    async def _opened(
        self, method: str, path: str, quiet_s: float | None, *, headers: dict[str, str], **given: Any
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """An answer that is read while it comes, however long it takes, but for a silence of `quiet_s`."""
        sent = {"Authorization": f"Bearer {await self._token()}", **headers}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_WITHIN_S, sock_read=quiet_s)
        url = self._target.url_of(path)
        with _explained(url):
            async with self._http.request(method, url, headers=sent, timeout=timeout, **given) as answer:
                if answer.status >= 400:
                    raise _refused(answer.status, await answer.text())
                yield answer.content

    async def _token(self) -> str:
        async with self._renewing:
            if monotonic() >= self._good_until:
                token = {"token": self._target.token.get_secret_value()}
                answer = await self._once("POST", "/v1/tokens/exchange", json=token)
                self._access = answer["access_token"]
                self._good_until = monotonic() + max(1.0, answer["expires_in"] - RENEW_BEFORE_S)
            return self._access

    async def _once(self, method: str, path: str, **given: Any) -> Any:
        url = self._target.url_of(path)
        with _explained(url):
            async with self._http.request(method, url, **given) as answer:
                text = await answer.text()
        if answer.status >= 400:
            raise _refused(answer.status, text)
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise Failed(f"{url} does not speak Tides' language: check TIDES_URL") from None


@asynccontextmanager
async def open_client(target: Target) -> AsyncIterator[Client]:
    """A client for as long as the block lasts."""
    timeout = aiohttp.ClientTimeout(total=CALL_WITHIN_S, sock_connect=CONNECT_WITHIN_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        yield Client(http, target)


class _explained:
    """Turns what the network library raises into Unreachable."""

    def __init__(self, url: str) -> None:
        self._where = "/".join(url.split("/")[:3])

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TimeoutError):
            raise Unreachable(f"no answer from {self._where} in time") from None
        if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
            raise Failed(f"TIDES_URL: {self._where} is no address; give http://host:port") from None
        if isinstance(error, aiohttp.ClientError | OSError):
            raise Unreachable(
                f"cannot reach {self._where}: is `tides run` running there? Set TIDES_URL"
            ) from None


def _query(params: Mapping[str, Any] | None) -> dict[str, str]:
    """Without what is None; booleans as the services read them."""
    given = {name: value for name, value in (params or {}).items() if value is not None}
    return {
        name: str(value).lower() if value in (True, False) else str(value) for name, value in given.items()
    }


def _refused(status: int, text: str) -> Refused:
    """`field: detail. remedy` of a problem; never the raw body of anything else."""
    try:
        problem = json.loads(text)
        field_, detail = problem.get("field"), str(problem["detail"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return Refused(f"refused with HTTP status {status}", status)
    if field_ and not detail.startswith(f"{field_}"):
        detail = f"{field_}: {detail}"
    remedy = f" {problem['remedy']}" if problem.get("remedy") else ""
    line = plain(f"{detail.rstrip('.')}.{remedy}")
    if status == 401:
        line += " (TIDES_TOKEN, TIDES_TOKEN_FILE or --token-file)"
    return Refused(line, status)


def plain(text: object) -> str:
    """Text from afar without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))


async def _read_events(lines: aiohttp.StreamReader) -> AsyncIterator[Told]:
    """Events of a stream; one without data only says where the reader stands."""
    last_id, kind, data = "", "message", ""
    async for raw in lines:
        name, _, value = raw.decode("utf-8", "replace").rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        match name:
            case "id":
                last_id = value
            case "event":
                kind = value
            case "data":
                data += value
            case "" if not value:
                if last_id or data:
                    yield Told(last_id, kind, json.loads(data) if data else None)
                kind, data = "message", ""
