"""The HTTP side of a service, and of a process: one FastAPI app per service, one site in front of them."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.common.auth import Verifier, marks_of
from libs.common.described import describe
from libs.common.entrance import QUIET_PATHS, Entrance, prefixed, route_of
from libs.common.errors import Problem, answer, install
from libs.common.metrics import HttpMetrics
from libs.common.repeats import install_replay
from libs.common.settings import Settings
from libs.common.tracing import OFF, Kind, Tracing, tell

if TYPE_CHECKING:
    from libs.common.readiness import Report
    from libs.common.service import Service

Ready = Callable[[bool], Awaitable["Report"]]
"""Whether the process can answer requests or, where that is asked, do all its work; and which parts of it answer."""


class Unmarked(Exception):
    """A route says neither who may use it nor that everybody may: nothing is served."""


class _Described(FastAPI):
    """An app whose document says who may ask, and how problems are told."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            describe(super().openapi(), routes_of(self))
        assert self.openapi_schema is not None
        return self.openapi_schema


def create_app(  # noqa: PLR0913 - composition: each is named at the one call
    name: str,
    *,
    routers: Sequence[APIRouter],
    settings: Settings,
    verifier: Verifier,
    title: str | None = None,
    version: str = "1",
    pages: Sequence[BaseRoute] = (),
    larger_bodies: Mapping[str, int] | None = None,
) -> FastAPI:
    """The app of one service. Raises Unmarked if a route carries neither `allow(...)` nor `public`.

    `larger_bodies` are bytes by the ending of the path, where the usual limit is too small for who has a token.
    `pages` are read by everybody without a token: files of a web page, nothing else. The OpenAPI document is
    at `/v1/<name>/openapi.json`, its reader beside it in developer mode only.
    """
    base = f"/v1/{name}"
    app = _Described(
        title=title or f"Tides {name}",
        version=version,
        openapi_url=f"{base}/openapi.json",
        docs_url=f"{base}/docs" if settings.developer_mode else None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        routes=list(pages),
    )
    app.state.verifier = verifier
    own = len(app.routes)
    for router in routers:
        app.include_router(router)
    for method, path, marks in _marked(app.routes[own:]):
        if not marks:
            raise Unmarked(f"{name}: {method} {path} needs Depends(allow(...)) or Depends(public)")
    install(app)
    install_replay(app, settings)
    app.add_middleware(
        Entrance,
        service=name,
        max_body_bytes=settings.max_body_bytes,
        larger=larger_bodies,
        verify=verifier.verify,
    )
    return app


def routes_of(app: FastAPI) -> list[tuple[str, str, frozenset[str]]]:
    """Every (method, path template, who may) of an app, documents and pages left out; sorted."""
    return sorted(entry for entry in _marked(app.routes) if entry[2])


def _marked(routes: Sequence[BaseRoute]) -> Iterator[tuple[str, str, frozenset[str]]]:
    for route in iter_route_contexts(routes):
        dependant = getattr(route, "dependant", None)
        marks = marks_of(_calls(dependant)) if dependant is not None else frozenset()
        for method in sorted(route.methods or {"*"}):
            yield method, route.path or "?", marks


def _calls(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    for inner in dependant.dependencies:
        if inner.call is not None:
            yield inner.call
        yield from _calls(inner)


def compose_site(
    services: Sequence["Service"],
    settings: Settings,
    registry: CollectorRegistry,
    readiness: Ready,
    tracing: Tracing = OFF,
) -> ASGIApp:
    """Every service's app behind its prefixes, with `/healthz`, `/readyz`, `/readyz/work`, `/metrics` beside them."""
    metrics = HttpMetrics(registry)
    own = Entrance(
        _own_pages(services, settings, registry, readiness),
        service="site",
        max_body_bytes=settings.max_body_bytes,
    )
    apps = [(service.name, (*service.prefixes, f"/v1/{service.name}"), service.app) for service in services]

    async def site(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        fitting = [
            (max(len(prefix) for prefix in prefixes if prefixed(path, [prefix])), name, app)
            for name, prefixes, app in apps
            if prefixed(path, prefixes)
        ]
        _, name, app = max(fitting, key=lambda item: item[0], default=(0, "site", own))
        status, started = 0, perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        # What a stranger's headers say of a trace is not believed: each request begins one.
        noted = OFF if path in QUIET_PATHS else tracing
        with noted.work(f"{scope['method']} {name}", None, Kind.ANSWERS):
            try:
                await app(scope, receive, noting)
            finally:
                route = (scope["method"], route_of(scope))
                tell(**{"http.route": route[1], "http.response.status_code": status})
                metrics.answered(name, route, status, perf_counter() - started)

    return site


def _own_pages(
    services: Sequence["Service"], settings: Settings, registry: CollectorRegistry, readiness: Ready
) -> ASGIApp:
    async def healthz() -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz() -> Response:
        report = await readiness(False)
        return JSONResponse(report.as_json(), 200 if report.is_ready else 503)

    async def work_readyz() -> Response:
        report = await readiness(True)
        return JSONResponse(report.as_json(), 200 if report.is_ready else 503)

    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def composition() -> Response:
        return JSONResponse({service.name: list(service.prefixes) for service in services})

    pages = {"/healthz": healthz, "/readyz": readyz, "/readyz/work": work_readyz, "/metrics": metrics}
    if settings.developer_mode:
        pages["/debug/services"] = composition

    return _Pages(pages)


class _Pages:
    """A handful of addresses that answer GET."""

    def __init__(self, pages: Mapping[str, Callable[[], Awaitable[Response]]]) -> None:
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = self._pages.get(scope["path"])
        if page is None:
            response: Response = answer(Problem(404, "There is nothing at this address."))
        elif scope["method"] not in ("GET", "HEAD"):
            response = answer(
                Problem(405, "This address does not take that method.", headers={"Allow": "GET"})
            )
        else:
            response = await page()
        await response(scope, receive, send)
