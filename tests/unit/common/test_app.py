"""What every app does with every request, and the site in front of several."""

import io
import json
from datetime import UTC, datetime
from importlib.metadata import version
from time import process_time
from typing import Annotated, Any
from uuid import uuid4

import pytest
from fastapi import APIRouter, Depends, FastAPI
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, SecretStr
from starlette.types import ASGIApp

from libs.common import log
from libs.common.app import Unmarked, compose_site, create_app, routes_of
from libs.common.auth import Principal, Role, Signer, Verifier, allow, generate_signing_keys, public
from libs.common.errors import conflict
from libs.common.readiness import Part, Report
from libs.common.service import Service
from libs.common.settings import Settings
from tests.unit.common.asgi import Answer, ask

PRIVATE, PUBLIC = generate_signing_keys()
JSON = {"content-type": "application/json"}
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CALLER = Principal(uuid4(), "ida", Role.VIEWER, uuid4(), uuid4())


class Thing(BaseModel):
    size: int
    password: SecretStr = SecretStr("")


def an_app(name: str = "things", **more: Any) -> FastAPI:
    router = APIRouter(prefix=f"/v1/{name}")

    @router.get("/mine")
    async def read(caller: Annotated[Principal, Depends(allow(Role.VIEWER))]) -> dict[str, str]:
        return {"name": caller.name}

    @router.get("/{thing_id}", dependencies=[Depends(allow(Role.ADMIN))])
    async def read_one(thing_id: int) -> dict[str, int]:
        return {"id": thing_id}

    @router.post("", dependencies=[Depends(public)])
    async def create(body: Thing) -> dict[str, int]:
        return {"size": body.size}

    @router.put("", dependencies=[Depends(public)])
    async def fail() -> None:
        raise RuntimeError("postgresql://tides:hunter2@db/ is gone")

    @router.patch("", dependencies=[Depends(public)])
    async def refuse() -> None:
        raise conflict("It is full.", "Make room.", field="size")

    @router.post("/large", dependencies=[Depends(allow(Role.VIEWER))])
    async def take(body: dict[str, Any]) -> dict[str, int]:
        return {"length": len(body)}

    settings = Settings(max_body_bytes=1024, **more)
    larger = {"/large": 8_000_000}
    verifier = Verifier(PUBLIC)
    return create_app(name, routers=[router], settings=settings, verifier=verifier, larger_bodies=larger)


def bearer(principal: Principal = CALLER) -> dict[str, str]:
    return {"authorization": f"Bearer {Signer(PRIVATE).sign(principal)}"}


async def post(app: ASGIApp, *chunks: bytes, **headers: str) -> Answer:
    return await ask(app, "POST", "/v1/things", chunks or (b"",), {**JSON, **headers})


def test_a_route_without_a_mark_stops_the_composition() -> None:
    router = APIRouter(prefix="/v1/things")

    @router.get("/open")
    async def read() -> None: ...

    with pytest.raises(Unmarked, match="GET /v1/things/open"):
        create_app("things", routers=[router], settings=Settings(), verifier=Verifier(PUBLIC))


def test_a_mark_may_come_with_the_router() -> None:
    router = APIRouter(prefix="/v1/things", dependencies=[Depends(allow(Role.OPERATOR))])

    @router.get("")
    async def read() -> None: ...

    app = create_app("things", routers=[router], settings=Settings(), verifier=Verifier(PUBLIC))
    assert routes_of(app) == [("GET", "/v1/things", frozenset({"admin", "operator"}))]


async def test_who_may_and_who_may_not() -> None:
    app = an_app()
    assert (await ask(app, "GET", "/v1/things/mine")).status == 401
    assert (
        await ask(app, "GET", "/v1/things/mine", headers={"authorization": "Basic eHg6eHg="})
    ).status == 401
    answer = await ask(app, "GET", "/v1/things/mine", headers=bearer())
    assert (answer.status, answer.json()) == (200, {"name": "ida"})
    answer = await ask(app, "GET", "/v1/things/7", headers=bearer())
    assert (answer.status, answer.json()["type"]) == (403, "urn:tides:problem:forbidden")
    # Before anything is said about the parameter.
    assert (await ask(app, "GET", "/v1/things/x")).status == 401


async def test_problems_have_one_form() -> None:
    answer = await ask(an_app(), "PATCH", "/v1/things", headers={"x-request-id": "abcdefgh-1"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:tides:problem:conflict",
        "title": "In conflict with the present state",
        "status": 409,
        "detail": "It is full.",
        "field": "size",
        "remedy": "Make room.",
        "request_id": "abcdefgh-1",
    }


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nothing", 404), ("DELETE", "/v1/things", 405)]
)
async def test_unknown_addresses_and_methods_are_problems(method: str, path: str, status: int) -> None:
    answer = await ask(an_app(), method, path)
    assert (answer.status, answer.json()["status"]) == (status, status)


async def test_wrong_fields_are_listed_and_nothing_is_echoed() -> None:
    answer = await post(an_app(), b'{"size": "hunter2", "password": ["hunter2"]}')
    assert answer.status == 422
    assert [item["field"] for item in answer.json()["errors"]] == ["size", "password"]
    assert b"hunter2" not in answer.body


@pytest.mark.parametrize(
    "body",
    [
        b'{"size": NaN}',
        b'{"size": 1e999}',
        b'{"size": 1, "x": [Infinity]}',
        b"{",
        b'"\xff"',
        b"[" * 1000 + b"]",
    ],
)
async def test_what_is_no_json_is_refused(body: bytes) -> None:
    answer = await post(an_app(), body)
    assert (answer.status, answer.json()["type"]) == (400, "urn:tides:problem:unreadable")


async def test_a_body_is_counted_also_when_it_comes_in_chunks_or_lies_about_itself() -> None:
    app = an_app()
    assert (await post(app, b'{"size": 1', b"}", b" " * 1000)).status == 200
    assert (await post(app, b'{"size": 1', b"}", b" " * 1020)).status == 413
    assert (await post(app, *[b" " * 100] * 20)).status == 413
    assert (await post(app, *[b" " * 100] * 20, **{"content-length": "5"})).status == 413
    waiting = await post(app, **{"content-length": "5000", "expect": "100-continue"})
    assert (waiting.status, waiting.headers["connection"]) == (413, "close")


async def test_a_large_body_is_looked_at_only_for_who_is_known() -> None:
    app = an_app()
    path, chunks = "/v1/things/large", [b'{"x": "', *[b"y" * 1000] * 100, b'"}']
    assert (await ask(app, "POST", path, chunks, {**JSON, **bearer()})).status == 200
    for headers in ({}, {"authorization": "Bearer nonsense"}):
        unreadable = [*chunks, b"{"]  # looked at, it would be a 400
        assert (await ask(app, "POST", path, unreadable, {**JSON, **headers})).status == 401
        waiting = {**JSON, **headers, "content-length": "100000", "expect": "100-continue"}
        assert (await ask(app, "POST", path, (b"",), waiting)).status == 401
    # Elsewhere the usual limit holds for everybody.
    assert (await ask(app, "POST", "/v1/things", chunks, {**JSON, **bearer()})).status == 413
    beyond = [b'{"x": "', *[b"y" * 1_000_000] * 9, b'"}']
    assert (await ask(app, "POST", path, beyond, {**JSON, **bearer()})).status == 413


async def test_a_body_full_of_escapes_costs_little() -> None:
    app = an_app()
    whole = ",".join(['"\\ud83d\\ude00"'] * 500_000)  # one character each, of two escapes
    before_s = process_time()
    body = f'{{"x": [{whole}]}}'.encode()
    answer = await ask(app, "POST", "/v1/things/large", [body], {**JSON, **bearer()})
    assert answer.status == 200
    assert process_time() - before_s < 1.5
    for odd in (b"\\ud83d", b"\\u0000", b"\xed\xa0\xbd"):
        refused = await ask(
            app, "POST", "/v1/things/large", [b'{"y": {"z": [0, "' + odd + b'"]}}'], {**JSON, **bearer()}
        )
        assert (refused.status, refused.json().get("field")) in ((422, "y.z.1"), (400, None))
        assert (refused.status == 400) == (odd[0] > 127)


async def test_our_own_failure_is_logged_and_not_shown() -> None:
    stream = io.StringIO()
    log.configure("INFO", "json", stream)
    answer = await ask(an_app(), "PUT", "/v1/things")
    log.configure()
    assert answer.status == 500
    assert b"hunter2" not in answer.body
    assert b"gone" not in answer.body
    failed, request = (json.loads(line) for line in stream.getvalue().splitlines())
    assert failed["incident"] == answer.json()["incident"]
    assert "RuntimeError" in failed["exception"]
    assert "hunter2" not in stream.getvalue()
    assert failed["request_id"] == request["request_id"] == answer.headers["x-request-id"]


async def test_a_request_is_one_fact_without_its_query() -> None:
    stream = io.StringIO()
    log.configure("INFO", "json", stream)
    await ask(an_app(), "GET", "/v1/things/mine?token=hunter2", headers=bearer())
    log.configure()
    (line,) = stream.getvalue().splitlines()
    fact = json.loads(line)
    assert (fact["event"], fact["service"]) == ("http.request", "things")
    assert (fact["method"], fact["route"], fact["status"]) == ("GET", "/v1/things/mine", 200)
    assert fact["principal"] == str(CALLER.user_id)
    assert "hunter2" not in line


@pytest.mark.parametrize("given", ["", "x", "a b c d e f g h", "\r\nSet-Cookie: x", "x" * 65, "'\"<script>"])
async def test_an_odd_request_id_is_replaced(given: str) -> None:
    answer = await ask(an_app(), "PATCH", "/v1/things", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 32


async def test_answers_carry_the_headers_of_a_careful_server() -> None:
    headers = (await ask(an_app(), "PATCH", "/v1/things")).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]


async def test_documents_are_there_and_their_reader_only_for_developers() -> None:
    assert (await ask(an_app(), "GET", "/v1/things/openapi.json")).json()["openapi"].startswith("3.")
    assert (await ask(an_app(), "GET", "/v1/things/docs", headers=bearer())).status in (403, 404)
    answer = await ask(an_app(developer_mode=True), "GET", "/v1/things/docs")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


class FakeService:
    """As much of a service as the site looks at."""

    def __init__(self, name: str, app: FastAPI) -> None:
        self.name, self.app, self.prefixes = name, app, (f"/v1/{name}",)


def a_site(ready: bool = True, bus: bool = True, **more: Any) -> tuple[ASGIApp, CollectorRegistry]:
    services: Any = [FakeService(name, an_app(name)) for name in ("things", "thingsandmore")]
    registry = CollectorRegistry()

    async def readiness(work: bool) -> Report:
        why = "" if ready else "no answer within 3 s"
        parts = {"things": Part(ready, NOON, why), "bus": Part(bus, NOON, "" if bus else "it is away")}
        report = Report("ready" if ready else "not ready", parts)
        return report.for_work() if work else report

    listed: list[Service] = services
    return compose_site(listed, Settings(**more), registry, readiness), registry


async def test_the_site_sends_each_request_to_the_service_it_is_for() -> None:
    site, _ = a_site()
    for name in ("things", "thingsandmore"):
        answer = await ask(site, "POST", f"/v1/{name}", [b'{"size": 3}'], JSON)
        assert (answer.status, answer.json()) == (200, {"size": 3})
    for path in (
        "/",
        "/v1",
        "/v1/thing",
        "/v1/thingsand",
        "/v1/thingsx/mine",
        "//v1/things",
        "/debug/services",
    ):
        answer = await ask(site, "GET", path)
        assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_health_readiness_and_metrics() -> None:
    site, _ = a_site()
    assert (await ask(site, "GET", "/healthz")).json() == {"status": "alive"}
    assert (await ask(site, "GET", "/readyz")).status == 200
    unready, _ = a_site(ready=False)
    answer = await ask(unready, "GET", "/readyz")
    assert (answer.status, answer.json()) == (
        503,
        {
            "status": "not ready",
            "version": version("tides"),
            "parts": {"things": False, "bus": True},
            "since": dict.fromkeys(("things", "bus"), NOON.isoformat()),
            "missing": ["things: no answer within 3 s"],
        },
    )
    assert (await ask(unready, "GET", "/healthz")).status == 200
    assert (await ask(unready, "GET", "/readyz/work")).status == 503
    assert (await ask(site, "GET", "/readyz/work")).status == 200
    cut_off, _ = a_site(bus=False)
    for path, status in (("/readyz", 200), ("/readyz/work", 503)):
        answer = await ask(cut_off, "GET", path)
        assert (answer.status, answer.json()["missing"]) == (status, ["bus: it is away"])
    assert (await ask(site, "POST", "/healthz")).status == 405


async def test_metrics_name_the_template_and_never_the_path() -> None:
    site, _ = a_site()
    await ask(site, "GET", "/v1/things/4711", headers=bearer())
    await ask(site, "GET", "/v1/things/a/b/hunter2")
    text = (await ask(site, "GET", "/metrics")).body.decode()
    assert 'route="/v1/things/{thing_id}",service="things",status="403"' in text
    assert "4711" not in text
    assert "hunter2" not in text


async def test_debug_pages_are_for_developers() -> None:
    site, _ = a_site(developer_mode=True)
    assert (await ask(site, "GET", "/debug/services")).json()["things"] == ["/v1/things"]
