"""What Tides measures about itself, on a registry that is an argument: nothing is global."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from libs.common.figures import Board

VERSION = version("tides")
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
        self._beat_every = Gauge(
            "tides_beat_interval_seconds",
            "How often a beat runs at least, in this process.",
            beat,
            registry=registry,
        )
        self._beat_succeeded = Gauge(
            "tides_beat_last_success_timestamp_seconds",
            "When a beat last ended well in this process; over replicas take min: each has to beat.",
            beat,
            registry=registry,
        )
        event = ("service", "key")
        self._events = Counter("tides_events_handled", "Events handled.", event, registry=registry)
        self._events_failed = Counter(
            "tides_events_failed", "Events whose handling raised.", event, registry=registry
        )
        self._sealed = Gauge(
            "tides_sealed_secrets",
            "Secrets by the key that sealed them.",
            ("service", "secret", "key_id"),
            registry=registry,
        )
        self._sealed_by: dict[tuple[str, str], set[str]] = {}
        self._add_parts(registry)

    def _add_parts(self, registry: CollectorRegistry) -> None:
        """What is not of beats, events and secrets."""
        self._refusals = Counter(
            "tides_database_refusals",
            "Writes of messages that the server refused for reasons of its own; they are tried until it takes them.",
            ("service", "cause"),
            registry=registry,
        )
        self._strange_words = Counter(
            "tides_strange_words",
            "Words in events that are newer than this program, which took the careful one for them.",
            ("service", "key", "field"),
            registry=registry,
        )
        self._lane_failures = Counter(
            "tides_lane_failures", "Work that ended with an unexpected error.", ("lane",), registry=registry
        )
        self._cloud_seconds = Histogram(
            "tides_provider_call_seconds",
            "How long a call to a cloud took, well or badly.",
            ("service", "call"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._cloud_errors = Counter(
            "tides_provider_errors",
            "Calls to a cloud that failed; cancelled: the caller's deadline passed, or the process stopped.",
            ("service", "resource", "call", "cause"),
            registry=registry,
        )
        self._answers = Gauge(
            "tides_part_up",
            "Whether a part (bus, or the database of a service) answered this process, when it was last asked.",
            ("part",),
            registry=registry,
        )
        Info("tides_build", "The version of this program.", registry=registry).info({"version": VERSION})
        self.board = Board(registry)
        """Gauges of what stands in databases and on the bus."""

    @contextmanager
    def beat(self, service: str, beat: str) -> Iterator[None]:
        """Count and time one run of a beat; one that raises counts as failed too."""
        started = perf_counter()
        self._beats.labels(service, beat).inc()
        try:
            yield
            self._beat_succeeded.labels(service, beat).set_to_current_time()
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

    def refused(self, service: str, cause: str) -> None:
        """The database of a service could not take what was right: no disk left, for one."""
        self._refusals.labels(service, cause).inc()

    def strange_word(self, service: str, key: str, field: str) -> None:
        """An event had a word that this program does not know."""
        self._strange_words.labels(service, key, field).inc()

    def begins(self, service: str, beat: str, every_s: float) -> None:
        """A beat is about to run for the first time: from now on its age counts."""
        self._beat_every.labels(service, beat).set(every_s)
        self._beat_succeeded.labels(service, beat).set_to_current_time()

    def lane_failed(self, kind: str) -> None:
        """Work in a lane of this kind ended with an error that nobody expected."""
        self._lane_failures.labels(kind).inc()

    def cloud_called(self, service: str, call: str, seconds: float) -> None:
        """A call to a cloud has ended."""
        self._cloud_seconds.labels(service, call).observe(seconds)

    def cloud_failed(self, service: str, resource: str, call: str, cause: str) -> None:
        """A call to a cloud failed; `resource` is its id, `cause` a driver's word."""
        self._cloud_errors.labels(service, resource, call, cause).inc()

    def answered(self, part: str, up: bool) -> None:
        """A part of the process was asked whether it is there."""
        self._answers.labels(part).set(up)

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
