"""What monitor measures about itself, by resource."""

from uuid import UUID

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.01, 0.05, 0.2, 0.5, 1, 2, 5, 10, 20, 30)


class Instruments:
    """Rounds, their length, samples and failures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        resource = ("resource",)
        self._rounds = Counter("tides_monitor_rounds", "Rounds begun.", resource, registry=registry)
        self._seconds = Histogram(
            "tides_monitor_round_seconds",
            "From asking the cloud to the last confirmed sample.",
            resource,
            buckets=_SECONDS,
            registry=registry,
        )
        self._samples = Counter("tides_monitor_samples", "Samples published.", resource, registry=registry)
        self._failures = Counter(
            "tides_monitor_failures", "Rounds that failed.", ("resource", "cause"), registry=registry
        )
        self._waiting = Gauge(
            "tides_monitor_unpublished", "Intervals that wait for the bus.", resource, registry=registry
        )
        self._held = Gauge("tides_monitor_held", "Resources that this process watches.", registry=registry)

    def round_ended(self, resource_id: UUID, seconds: float, samples: int, waiting: int) -> None:
        """One round was published, wholly or in part."""
        label = str(resource_id)
        self._rounds.labels(label).inc()
        self._seconds.labels(label).observe(seconds)
        self._samples.labels(label).inc(samples)
        self._waiting.labels(label).set(waiting)

    def round_failed(self, resource_id: UUID, seconds: float, cause: str) -> None:
        """The cloud did not answer as it should."""
        label = str(resource_id)
        self._rounds.labels(label).inc()
        self._seconds.labels(label).observe(seconds)
        self._failures.labels(label, cause).inc()

    def holds(self, resources: int) -> None:
        """How many resources this process watches now."""
        self._held.set(resources)
