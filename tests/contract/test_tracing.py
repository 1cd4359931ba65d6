"""One trace goes from process to process, through outbox and bus, to whoever OpenTelemetry's variables name."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from fastapi import APIRouter, Depends
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from libs.common.auth import public
from libs.common.contracts.resource import ResourceRecovered
from libs.common.db import Database, Session
from libs.common.runner import Build, running
from libs.common.service import Hears, Runtime
from libs.common.telemetry import open_tracing
from tests.contract.tiny import a_build, an_event, settings_for
from tests.support import until
from tests.traces import Notebook, lineage

KEY = ResourceRecovered.key
HEARD = f"hearing.{KEY}"


def saying() -> Build:
    """Says one event for who asks it to."""
    router = APIRouter()
    opened: list[Database] = []

    @router.post("/v1/saying/{what}", dependencies=[Depends(public)])
    async def say(what: str) -> str:
        async with opened[0].transaction() as session:
            session.emit(an_event(1))
        return what

    def make(_: Runtime, database: Database) -> Mapping[str, Any]:
        opened.append(database)
        return {}

    return a_build(make, "saying", routers=[router])


async def ask_to_say(url: str) -> None:
    """As a stranger who claims that it belongs to a trace of theirs."""
    theirs = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{url}/v1/saying/hunter2", headers=theirs) as answer:
            assert answer.status == 200
        await (await http.get(f"{url}/readyz")).read()


def answering(traces: list[str]) -> Build:
    """Answers the first event by another, which it hears too, after it has failed once."""

    async def answer(session: Session, event: ResourceRecovered) -> None:
        traces.append(get_contextvars()["trace_id"])
        if len(traces) == 1:
            raise ValueError("hunter2 is wrong")
        if event.outage_s == 1:
            session.emit(an_event(2))

    return a_build(lambda _, __: {"hears": (Hears(ResourceRecovered, answer),)}, "hearing")


async def test_one_trace_goes_through_two_processes_their_outboxes_and_the_bus(
    database_url: str, bus_url: str
) -> None:
    says, hears, traces = Notebook("says"), Notebook("hears"), list[str]()
    settings = settings_for(database_url, bus_url)
    async with (
        running([answering(traces)], settings, tracing=hears.tracing),
        running([saying()], settings, tracing=says.tracing) as sayer,
    ):
        await ask_to_say(sayer.url)
        await until(lambda: [span.name for span in hears.spans].count(f"process {HEARD}") == 3, 30)
        spans = [*says.spans, *hears.spans]

    handled = [span for span in hears.spans if span.name == f"process {HEARD}"]
    line = lineage(spans, handled[-1])
    assert [(span.process, span.name) for span in line] == [
        ("says", "POST saying"),
        ("says", f"publish {KEY}"),
        ("hears", f"process {HEARD}"),
        ("hears", f"publish {KEY}"),
        ("hears", f"process {HEARD}"),
    ]
    assert {span.trace_id for span in spans if KEY in span.name} == set(traces) == {line[0].trace_id}
    assert line[0].facts == {"http.route": "/v1/saying/{what}", "http.response.status_code": 200}
    assert line[0].trace_id != "a" * 32, "nobody outside chooses a trace"
    assert not [span for span in says.spans if span.name == "GET site"], "nobody asks who looks at health"
    assert line[1].facts["messaging.system"] == ("rabbitmq" if bus_url.startswith("amqp") else "postgresql")
    assert [span.trouble for span in handled] == ["ValueError", None, None], "of an error only its kind"
    assert "hunter2" not in str(spans)


@asynccontextmanager
async def collector(answer: Any) -> AsyncIterator[str]:
    site = web.Application()
    site.router.add_post("/v1/traces", answer)
    runner = web.AppRunner(site, shutdown_timeout=0.1)
    await runner.setup()
    server = web.TCPSite(runner, "127.0.0.1", 0)
    await server.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def told(url: str, within_s: int) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_TIMEOUT": str(within_s)}


async def test_traces_go_where_opentelemetrys_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[ExportTraceServiceRequest] = []

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        got.append(ExportTraceServiceRequest.FromString(body))
        return web.Response(content_type="application/x-protobuf")

    monkeypatch.setattr("libs.common.collecting.HANDED_OVER_WITHIN_S", 30.0)
    async with collector(take) as url:
        for name, value in told(url, 20).items():
            monkeypatch.setenv(name, value)
        tracing = open_tracing(told(url, 20), "tides-monitor")
        with tracing.work("monitor.round", resource="postgresql://tides:hunter2@db/x"):
            pass
        await tracing.aclose()
    (spans,) = (request.resource_spans[0] for request in got)
    about = {fact.key: fact.value.string_value for fact in spans.resource.attributes}
    assert about["service.name"] == "tides-monitor"
    (span,) = spans.scope_spans[0].spans
    assert span.name == "monitor.round"
    assert [(fact.key, fact.value.string_value) for fact in span.attributes] == [
        ("tides.resource", "postgresql://tides:***@db/x")
    ]


async def test_a_collector_that_hangs_delays_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr("libs.common.collecting.HANDED_OVER_WITHIN_S", 0.2)
    async with collector(hang) as url:
        for name, value in told(url, 1).items():
            monkeypatch.setenv(name, value)
        tracing = open_tracing(told(url, 1), "tides")
        with tracing.work("monitor.round"):
            pass
        with capture_logs() as logs:
            async with asyncio.timeout(20):
                await tracing.aclose()
    assert [line["event"] for line in logs] == ["traces.not_handed_over"]
