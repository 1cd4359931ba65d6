"""What every request passes, whatever it is for: its id, limits on its body, headers, one line in the log."""

import asyncio
import json
import math
import re
from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import Any, NoReturn
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.common.errors import Problem, answer, incident
from libs.common.names import is_storable

log = structlog.get_logger(__name__)

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_ODD_TEXT = "A text holds a zero byte or half a character."
_DEEPEST_NAMED = 8
_DRAIN_BYTES = 64 * 1_048_576
_DRAIN_S = 5.0
_QUIET_PATHS = ("/healthz", "/readyz", "/metrics")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_STRICT_POLICY = "default-src 'none'; frame-ancestors 'none'"


class Entrance:
    """ASGI middleware around a whole app. Whatever escapes the app is answered as an incident."""

    def __init__(
        self, app: ASGIApp, *, service: str, max_body_bytes: int, larger: Mapping[str, int] | None = None
    ) -> None:
        self._app = app
        self._service = service
        self._max_body_bytes = max_body_bytes
        self._larger = dict(larger or {})

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
            body = await _read_body(headers, receive, self._limit_of(scope["path"]))
            _refuse_odd_json(headers, body)
        except Problem as problem:
            await answer(problem)(scope, receive, answered)
            return
        try:
            await self._app(scope, _replay(body, receive), answered)
        except Exception as error:
            if answered.status:
                raise
            await incident(error)(scope, receive, answered)

    def _limit_of(self, path: str) -> int:
        larger = (limit for ending, limit in self._larger.items() if path.endswith(ending))
        return max(larger, default=self._max_body_bytes)


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
    quiet = scope["path"] in _QUIET_PATHS and status < 500
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


async def _read_body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The body, at most `limit` bytes of it in memory. Raises a 413 Problem."""
    declared = headers.get("content-length", "")
    body = bytearray()
    # A client that waits for "100 Continue" has sent nothing yet, and need not.
    if declared.isdigit() and int(declared) > limit and "expect" in headers:
        raise _too_large(limit)
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > limit:
            if message.get("more_body"):
                await _drain(receive)
            raise _too_large(limit)
        if not message.get("more_body"):
            return bytes(body)


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


def _too_large(limit: int) -> Problem:
    return Problem(413, f"A body may have at most {limit} bytes.", headers={"Connection": "close"})


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _refuse_odd_json(headers: Headers, body: bytes) -> None:
    """Refuse what JSON readers take and databases or judgements do not. Raises a Problem: 400, 422 for a text."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not body or not (kind == "application/json" or kind.endswith("+json")):
        return
    try:
        value = json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except Problem:
        raise
    except RecursionError:
        raise Problem(400, "The JSON is nested too deeply.") from None
    except (ValueError, UnicodeDecodeError):
        raise Problem(400, "The body is not valid JSON in UTF-8.") from None
    if b"\\u" in body:
        _refuse_odd_text(value)


def _refuse_constant(name: str) -> NoReturn:
    raise Problem(
        400, "NaN and Infinity are not JSON.", remedy="Leave the field out, or send null where it is allowed."
    )


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise Problem(400, "A number is too large.")
    return number


def _refuse_odd_text(value: Any) -> None:
    waiting: list[tuple[_Place, Any]] = [(None, value)]
    while waiting:
        place, item = waiting.pop()
        if isinstance(item, str):
            if not is_storable(item):
                raise Problem(422, _ODD_TEXT, field=_name(place), remedy="Leave it out.")
        elif isinstance(item, dict):
            waiting += [(place, name) for name in item]
            waiting += [((place, name), inner) for name, inner in item.items() if is_storable(name)]
        elif isinstance(item, list):
            waiting += [((place, number), inner) for number, inner in enumerate(item)]


_Place = tuple[Any, str | int] | None
"""Where a value is: the place around it and its name or number there. None: the whole body."""


def _name(place: _Place) -> str:
    names: list[str] = []
    while place is not None and len(names) < _DEEPEST_NAMED:
        place, name = place
        names.insert(0, str(name)[:64])
    return ".".join(names) or "body"


def prefixed(path: str, prefixes: Iterable[str]) -> bool:
    """Whether the path is one of the prefixes or below it; `/v1/users` is not above `/v1/usersandmore`."""
    return any(path == prefix or path.startswith(f"{prefix.rstrip('/')}/") for prefix in prefixes)
