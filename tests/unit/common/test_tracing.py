"""Traces: off unless OpenTelemetry's variables want them, and of a cause only what can be read."""

import subprocess
import sys

import pytest

from libs.common.settings import InvalidSettings
from libs.common.telemetry import is_wanted, open_tracing
from libs.common.tracing import OFF, Tracing, as_part, carried, part, tell
from tests.traces import Notebook, lineage

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "tides"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "True"}, False),
    ],
)
def test_the_usual_variables_turn_them_on_and_off(environment: dict[str, str], wanted: bool) -> None:
    assert is_wanted(environment) is wanted
    if not wanted:
        assert open_tracing(environment, "tides") is OFF


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: 'zipkin'"),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc'"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "OTEL_EXPORTER_OTLP_ENDPOINT: not an address"),
    ],
)
def test_what_cannot_be_done_is_said_by_its_variable(environment: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidSettings, match=named):
        open_tracing(environment, "tides")


def test_who_collects_none_imports_nothing_of_it() -> None:
    # FastAPI imports the API; what costs is the SDK and what sends.
    look = (
        "import services.cli.run, services.workload.main, sys;"
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter', 'requests'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


async def test_without_a_collector_nothing_is_carried() -> None:
    with Tracing().work("round", {"traceparent": "x"}), part("decide"):
        tell(cluster="lab")
        assert carried() == {}


async def test_work_is_the_consequence_of_its_cause_and_parts_are_parts() -> None:
    notebook = Notebook("tides")

    @as_part("decide")
    async def decide() -> dict[str, str]:
        tell(cluster="lab", wanted=2, host=None)
        return carried()

    with notebook.tracing.work("round"):
        kept = await decide()
        with notebook.tracing.work("other"):
            assert carried()["traceparent"] != kept["traceparent"]
    assert carried() == {}
    with notebook.tracing.work("act", kept):
        pass
    act, *_ = (span for span in notebook.spans if span.name == "act")
    line = lineage(notebook.spans, act)
    assert [span.name for span in line] == ["round", "decide", "act"]
    assert line[1].facts == {"tides.cluster": "lab", "tides.wanted": 2}
    (other,) = (span for span in notebook.spans if span.name == "other")
    assert (other.parent_id, other.trace_id != act.trace_id) == (None, True)


@pytest.mark.parametrize(
    "cause", ["", "00-0-0-00", "x" * 10_000, "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\0"]
)
async def test_a_cause_that_cannot_be_read_is_none(cause: str) -> None:
    notebook = Notebook("tides")
    with notebook.tracing.work("handle", {"traceparent": cause, "tracestate": cause}):
        pass
    assert [span.parent_id for span in notebook.spans] == [None]
