"""What Tides measures about itself, on a registry that is an argument: nothing is global."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """The runner's instruments."""

    def __init__(self, registry: CollectorRegistry) -> None:
        beat = ("service", "beat")
        self._beats = Counter("tides_beats", "Beats run.", beat, registry=registry)
        self._beats_failed = Counter("tides_beats_failed", "Beats that raised.", beat, registry=registry)
        self._beat_seconds = Histogram(
            "tides_beat_seconds", "How long a beat took.", beat, buckets=_SECONDS, registry=registry
        )
        event = ("service", "key")
        self._events = Counter("tides_events_handled", "Events handled.", event, registry=registry)
        self._events_failed = Counter(
            "tides_events_failed", "Events whose handling raised.", event, registry=registry
        )
        self._outbox_depth = Gauge(
            "tides_outbox_depth", "Events waiting to be published.", ("service",), registry=registry
        )

        self._sealed = Gauge(
            "tides_sealed_secrets",
            "Secrets by the key that sealed them.",
            ("service", "secret", "key_id"),
            registry=registry,
        )
        self._sealed_by: dict[tuple[str, str], set[str]] = {}

    @contextmanager
    def beat(self, service: str, beat: str) -> Iterator[None]:
        """Count and time one run of a beat; one that raises counts as failed too."""
        started = perf_counter()
        self._beats.labels(service, beat).inc()
        try:
            yield
        except Exception:
            self._beats_failed.labels(service, beat).inc()
            raise
        finally:
            self._beat_seconds.labels(service, beat).observe(perf_counter() - started)

    @contextmanager
    def event(self, service: str, key: str) -> Iterator[None]:
        """Count one delivery: handled, or failed when it raises."""
        try:
            yield
        except Exception:
            self._events_failed.labels(service, key).inc()
            raise
        self._events.labels(service, key).inc()

    def outbox_depth(self, service: str, events: int) -> None:
        """How many events wait to be published now."""
        self._outbox_depth.labels(service).set(events)

    def sealed_secrets(self, service: str, secret: str, counts: Mapping[str, int]) -> None:
        """How many secrets each key has sealed now; a key that seals none any more shows 0."""
        known = self._sealed_by.setdefault((service, secret), set())
        known.update(counts)
        for key_id in known:
            self._sealed.labels(service, secret, key_id).set(counts.get(key_id, 0))


class HttpMetrics:
    """The site's instrument."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("service", "method", "route", "status")
        self._seconds = Histogram(
            "tides_http_seconds", "How long an answer took.", labels, buckets=_SECONDS, registry=registry
        )

    def answered(self, service: str, route: tuple[str, str], status: int, seconds: float) -> None:
        """One request was answered; `route` is method and template, never the path itself."""
        self._seconds.labels(service, *route, str(status)).observe(seconds)
