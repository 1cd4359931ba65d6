"""Traces by OpenTelemetry's SDK, sent by OTLP over HTTP. Imported only where they are wanted.

Where to, how many and how often is told by OpenTelemetry's own variables: `OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`, `OTEL_BSP_*`.
"""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from libs.common.log import mask, mask_text
from libs.common.metrics import VERSION
from libs.common.settings import InvalidSettings
from libs.common.tracing import Kind

log = structlog.get_logger(__name__)

HANDED_OVER_WITHIN_S = 3.0
LONGEST_FACT = 500
_W3C = TraceContextTextMapPropagator()
_KINDS = {
    Kind.WORKS: SpanKind.INTERNAL,
    Kind.SAYS: SpanKind.PRODUCER,
    Kind.HEARS: SpanKind.CONSUMER,
    Kind.ANSWERS: SpanKind.SERVER,
}
_SCALARS = (bool, int, float)


class _Noted:
    """A span as the rest of Tides sees it."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.trace_id = format_trace_id(span.get_span_context().trace_id)
        self.headers: dict[str, str] = {}
        _W3C.inject(self.headers)

    def tell(self, facts: Mapping[str, object]) -> None:
        """Note more about it."""
        self._span.set_attributes(_shown(facts))


class Collector:
    """A tracer that hands spans to a processor of OpenTelemetry's."""

    def __init__(self, processor: SpanProcessor, name: str) -> None:
        # What the variables say of the process wins over what it says of itself.
        told = Resource.create({})
        is_named = not str(told.attributes[SERVICE_NAME]).startswith("unknown_service")
        own = {SERVICE_VERSION: VERSION} if is_named else {SERVICE_VERSION: VERSION, SERVICE_NAME: name}
        self._provider = TracerProvider(resource=told.merge(Resource(own)), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("tides", VERSION)

    @contextmanager
    def span(
        self, name: str, kind: Kind, cause: Mapping[str, str] | None, facts: Mapping[str, object]
    ) -> Iterator[_Noted]:
        """Note the block. Of an error only its kind: its text may quote anything."""
        context = None if cause is None else _W3C.extract(cause, Context())
        with self._tracer.start_as_current_span(
            name,
            context,
            _KINDS[kind],
            _shown(facts),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield _Noted(span)
            except BaseException as error:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    async def aclose(self) -> None:
        """Send the rest, for three seconds at most: a collector that is away delays no stop."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            try:
                self._provider.shutdown()
            finally:
                with suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(ended.set)

        # No executor's: the loop waits for those at its end, however long they take.
        threading.Thread(target=shut_down, name="tides-traces", daemon=True).start()
        try:
            async with asyncio.timeout(HANDED_OVER_WITHIN_S):
                await ended.wait()
        except TimeoutError:
            log.warning("traces.not_handed_over")


def open_collector(environment: Mapping[str, str], name: str) -> Collector:
    """Send spans as OpenTelemetry's variables say. Raises InvalidSettings for what Tides cannot do."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if exporter != "otlp":
        raise InvalidSettings(f"OTEL_TRACES_EXPORTER: {exporter!r} is not there; give otlp, or none")
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environment.get(variable, "").strip() or "http/protobuf"
        if protocol != "http/protobuf":
            raise InvalidSettings(f"{variable}: {protocol!r} is not spoken; give http/protobuf (port 4318)")
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        if not environment.get(variable, "http://").strip().startswith(("http://", "https://")):
            raise InvalidSettings(f"{variable}: not an address; give http://host:4318")
    try:
        collector = Collector(BatchSpanProcessor(OTLPSpanExporter()), name)
    except ValueError as error:
        raise InvalidSettings(f"OTEL_*: {mask_text(str(error))}") from None
    log.info("traces.collected", service=name)
    return collector


def _shown(facts: Mapping[str, object]) -> dict[str, str | bool | int | float]:
    return {
        name if "." in name else f"tides.{name}": value if isinstance(value, _SCALARS) else _text(value)
        for name, value in facts.items()
        if value is not None
    }


def _text(value: object) -> str:
    return str(mask(str(value)))[:LONGEST_FACT]
