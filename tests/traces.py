"""Traces as a collector would get them, kept in memory."""

from dataclasses import dataclass, field

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_span_id, format_trace_id

from libs.common.collecting import Collector
from libs.common.tracing import Tracing


@dataclass(frozen=True)
class Seen:
    """A span that has ended."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    process: str
    facts: dict[str, object]
    trouble: str | None


@dataclass
class Notebook:
    """What one process notes."""

    process: str
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def __post_init__(self) -> None:
        self.tracing = Tracing(Collector(SimpleSpanProcessor(self.exporter), self.process))

    @property
    def spans(self) -> list[Seen]:
        """Every span that has ended, in that order."""
        return [_seen(span) for span in self.exporter.get_finished_spans()]


def lineage(spans: list[Seen], last: Seen) -> list[Seen]:
    """A span and everything that led to it, the first cause first."""
    by_id = {(span.trace_id, span.span_id): span for span in spans}
    line = [last]
    while line[0].parent_id is not None:
        line.insert(0, by_id[line[0].trace_id, line[0].parent_id])
    return line


def _seen(span: ReadableSpan) -> Seen:
    context = span.get_span_context()
    assert context is not None
    return Seen(
        span.name,
        format_trace_id(context.trace_id),
        format_span_id(context.span_id),
        None if span.parent is None else format_span_id(span.parent.span_id),
        str(span.resource.attributes["service.name"]),
        dict(span.attributes or {}),
        span.status.description,
    )
