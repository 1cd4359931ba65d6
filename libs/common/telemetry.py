"""Whether traces are collected, by OpenTelemetry's own variables. What it takes is imported only then."""

from collections.abc import Mapping

from libs.common.settings import InvalidSettings
from libs.common.tracing import OFF, Tracing

_WANTING = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables name somebody who collects traces."""
    is_disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    is_none = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    return not (is_disabled or is_none) and any(environment.get(name, "").strip() for name in _WANTING)


def open_tracing(environment: Mapping[str, str], name: str) -> Tracing:
    """Tracing as `OTEL_*` want it; `name` is this process's, where they give none. Raises InvalidSettings."""
    if not is_wanted(environment):
        return OFF
    try:
        from libs.common.collecting import open_collector
    except ModuleNotFoundError as error:
        raise InvalidSettings(
            f"OTEL_* ask for traces, and {error.name} is not installed: pip install 'tides[tracing]',"
            " or set OTEL_SDK_DISABLED=true"
        ) from None
    return Tracing(open_collector(environment, name))
