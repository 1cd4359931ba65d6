"""What workload counts about itself, in this process: sum over replicas."""

from uuid import UUID

from prometheus_client import CollectorRegistry, Counter, Gauge

from libs.providers.base import Cause

NOT_JUDGED = "not_judged"
NO_POLICY = "no_policy"


class Instruments:
    """Decisions and limits."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._decisions = Counter(
            "tides_decisions",
            "Judgements of a cluster by verdict; no_policy: none is assigned; not_judged: it failed, and it was held.",
            ("verdict",),
            registry=registry,
        )
        self._changes = Counter(
            "tides_limit_changes",
            "Machines and pools that a cloud really reconfigured; each is a task in its administrator's list.",
            ("resource",),
            registry=registry,
        )
        self._failures = Counter(
            "tides_limit_failures",
            "Requests for the limits of a cluster that a cloud refused or did not answer.",
            ("resource", "cause"),
            registry=registry,
        )

        self._held = Gauge(
            "tides_workload_held", "Resources on whose clouds this process acts.", registry=registry
        )

    def holds(self, count: int) -> None:
        """How many resources this process may act on."""
        self._held.set(count)

    def decided(self, verdict: str = NOT_JUDGED) -> None:
        """A cluster was judged, with a Verdict or one of the words above."""
        self._decisions.labels(str(verdict)).inc()

    def limits_changed(self, resource_id: UUID, changes: int) -> None:
        """A cloud took limits."""
        self._changes.labels(str(resource_id)).inc(changes)

    def limits_failed(self, resource_id: UUID, cause: Cause) -> None:
        """A cloud did not take limits."""
        self._failures.labels(str(resource_id), cause.value).inc()
