"""What every request passes, whatever it is for: its id, limits on its body, headers, one line in the log."""

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from typing import Any, NoReturn
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.common.auth import bearer_of
from libs.common.errors import Problem, answer, incident
from libs.common.names import is_storable

log = structlog.get_logger(__name__)

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_ODD_TEXT = "A text holds a zero byte or half a character."
_DEEPEST_NAMED = 8
_THREAD_ABOVE_BYTES = 64 * 1024
_ODD_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
"""Without it nothing in a valid JSON text is odd."""
_DRAIN_BYTES = 64 * 1_048_576
_DRAIN_S = 5.0
QUIET_PATHS = ("/healthz", "/readyz", "/readyz/work", "/metrics", "/boinc/rpc.php", "/guests/beat")
"""Asked by machines all day long; what is wrong with one is said where it is noticed."""
_NEVER_JSON = ("/boinc/rpc.php",)
"""Where a foreign protocol's bodies come, whatever their label says."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_STRICT_POLICY = "default-src 'none'; frame-ancestors 'none'"


class Entrance:
    """ASGI middleware around a whole app. Whatever escapes the app is answered as an incident.

    Beyond `max_body_bytes` (up to `larger`, by the ending of the path) only a token that `verify` takes opens the door.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: str,
        max_body_bytes: int,
        larger: Mapping[str, int] | None = None,
        verify: Callable[[str], object] | None = None,
    ) -> None:
        self._app = app
        self._service = service
        self._max_body_bytes = max_body_bytes
        self._larger = dict(larger or {})
        self._verify = verify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _SANE_ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        with structlog.contextvars.bound_contextvars(request_id=request_id, service=self._service):
            started, answered = perf_counter(), _Answered(send, request_id)
            try:
                await self._serve(scope, headers, receive, answered)
            finally:
                _note(scope, answered.status, perf_counter() - started)

    async def _serve(self, scope: Scope, headers: Headers, receive: Receive, answered: "_Answered") -> None:
        try:
            _refuse_odd_address(scope)
            body = await self._read_body(scope["path"], headers, receive)
            if _is_json(headers) and scope["path"] not in _NEVER_JSON:
                await _check_json(body)
        except Problem as problem:
            await answer(problem)(scope, receive, answered)
            return
        try:
            await self._app(scope, _replay(body, receive), answered)
        except Exception as error:
            if answered.status:
                raise
            await incident(error)(scope, receive, answered)

    async def _read_body(self, path: str, headers: Headers, receive: Receive) -> bytes:
        """The body, at most the limit of it in memory. Raises a 401 or 413 Problem."""
        declared = headers.get("content-length", "")
        # A client that waits for "100 Continue" has sent nothing yet, and need not.
        if declared.isdigit() and "expect" in headers:
            self._check_length(int(declared), path, headers)
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return bytes(body)
            body += message.get("body", b"")
            try:
                self._check_length(len(body), path, headers)
            except Problem:
                body.clear()
                if message.get("more_body"):
                    await _drain(receive)
                raise
            if not message.get("more_body"):
                return bytes(body)

    def _check_length(self, length: int, path: str, headers: Headers) -> None:
        """Raise 413 for what nobody may send here, 401 for what only somebody known may."""
        if length <= self._max_body_bytes:
            return
        limits = [most for ending, most in self._larger.items() if path.endswith(ending)]
        if limits and self._verify is not None:
            self._verify(bearer_of(headers))
        limit = max([self._max_body_bytes, *limits])
        if length > limit:
            raise Problem(413, f"A body may have at most {limit} bytes.", headers={"Connection": "close"})


class _Answered:
    """The way back: adds headers, remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers["X-Request-ID"] = self._request_id
            if not headers.get("content-type", "").startswith(("text/html", "text/css", "text/javascript")):
                headers.setdefault("Content-Security-Policy", _STRICT_POLICY)
                headers.setdefault("Cache-Control", "no-store")
        await self._send(message)


def route_of(scope: Scope) -> str:
    """The template of the route that answered, e.g. `/v1/users/{user_id}`; `-` where none did."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    route = context if context is not None else scope.get("route")
    return str(getattr(route, "path", None) or "-")


def _note(scope: Scope, status: int, seconds: float) -> None:
    principal = scope.get("state", {}).get("principal")
    quiet = scope["path"] in QUIET_PATHS and status < 500
    (log.debug if quiet else log.info)(
        "http.request",
        method=scope["method"],
        route=route_of(scope),
        status=status,
        ms=round(seconds * 1000, 1),
        principal=str(principal.user_id) if principal else None,
    )


def _refuse_odd_address(scope: Scope) -> None:
    if "\x00" in scope["path"]:
        raise Problem(404, "There is nothing at this address: it holds a zero byte.")
    if b"%00" in scope.get("query_string", b""):
        raise Problem(400, "The address holds a zero byte.")


async def _drain(receive: Receive) -> None:
    """Throw away the rest, within reason: a client that is still sending would never see the answer."""
    thrown = 0
    try:
        async with asyncio.timeout(_DRAIN_S):
            while thrown < _DRAIN_BYTES:
                message = await receive()
                thrown += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
    except TimeoutError:
        return


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _is_json(headers: Headers) -> bool:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


async def _check_json(body: bytes) -> None:
    """Refuse what JSON readers take and databases or judgements do not. Raises a Problem: 400, 422 for a text."""
    if len(body) > _THREAD_ABOVE_BYTES:
        await asyncio.to_thread(_refuse_odd_json, body)
    elif body:
        _refuse_odd_json(body)


def _refuse_odd_json(body: bytes) -> None:
    try:
        # As text: of bytes `json` would take UTF-16 too, and halves of characters that are not escaped.
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
    except Problem:
        raise
    except RecursionError:
        raise Problem(400, "The JSON is nested too deeply.") from None
    except ValueError:
        raise Problem(400, "The body is not valid JSON in UTF-8.") from None
    if _ODD_ESCAPE.search(body) and _has_odd_text(value):
        raise Problem(422, _ODD_TEXT, field=_place_of_odd_text(value), remedy="Leave it out.")


def _refuse_constant(name: str) -> NoReturn:
    raise Problem(
        400, "NaN and Infinity are not JSON.", remedy="Leave the field out, or send null where it is allowed."
    )


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise Problem(400, "A number is too large.")
    return number


def _has_odd_text(value: Any) -> bool:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if not is_storable(item):
                return True
        elif isinstance(item, dict):
            waiting += item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return False


def _place_of_odd_text(value: Any) -> str:
    """The names and numbers that lead towards the first such text, joined by dots; of deep ones the beginning."""
    path: list[Any] = []
    while isinstance(value, dict | list) and len(path) < _DEEPEST_NAMED:
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        step = next(((name, inner) for name, inner in inside if _has_odd_text([name, inner])), None)
        if step is None or (isinstance(step[0], str) and not is_storable(step[0])):
            break
        path.append(step[0])
        value = step[1]
    return ".".join(str(name)[:64] for name in path) or "body"


def prefixed(path: str, prefixes: Iterable[str]) -> bool:
    """Whether the path is one of the prefixes or below it; `/v1/users` is not above `/v1/usersandmore`."""
    return any(path == prefix or path.startswith(f"{prefix.rstrip('/')}/") for prefix in prefixes)
