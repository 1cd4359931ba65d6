"""Gauges of what stands in a database or on the bus: read by one beat, shown from memory, and not shown once old.

Every replica reads the same rows, so what it shows is the whole installation's: `max by (...)` over replicas, never
`sum`. A figure that could not be read again for a minute is left out instead of standing still.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from libs.common.db import Database, Session

READ_EVERY_S = 15.0
SHOWN_FOR_S = 4 * READ_EVERY_S
_SHARED = " The whole installation's, the same from every replica: aggregate with max, never sum."

Readings = Mapping[tuple[str, ...], float]
"""Values by the labels' values, in the gauge's order."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """One gauge; `labels` are few and bounded: ids and our own words, never what a tenant typed."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Figures:
    """Gauges that one cheap query of a service fills."""

    gauges: tuple[Gauge, ...]
    read: Callable[[Session], Awaitable[Sequence[Readings]]]
    """What each gauge shows now, in the gauges' order; labels that are not read are gone."""


class Board(Collector):
    """What was last read, as `/metrics` shows it."""

    def __init__(self, registry: CollectorRegistry, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._gauges: dict[str, Gauge] = {}
        self._read: dict[tuple[str, str], tuple[float, Readings]] = {}
        registry.register(self)

    def declare(self, gauges: Sequence[Gauge]) -> None:
        """Gauges that are shown with their help from now on, also before anything was read."""
        self._gauges |= {gauge.name: gauge for gauge in gauges}

    def put(self, owner: str, gauge: Gauge, readings: Readings) -> None:
        """What was read for a gauge by a service, or by the process (an empty owner)."""
        self.declare([gauge])
        self._read[owner, gauge.name] = (self._now(), dict(readings))

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing yet: gauges are declared later."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Every gauge; without values where none was read within a minute."""
        oldest = self._now() - SHOWN_FOR_S
        for name, gauge in sorted(self._gauges.items()):
            owned = [
                (owner, readings)
                for (owner, read), (at, readings) in sorted(self._read.items())
                if read == name and at > oldest
            ]
            labels = ("service", *gauge.labels) if any(owner for owner, _ in owned) else gauge.labels
            family = GaugeMetricFamily(name, gauge.help + _SHARED, labels=labels)
            for owner, readings in owned:
                for values, value in readings.items():
                    family.add_metric([owner, *values] if owner else list(values), value)
            yield family


def measuring(
    service: str, database: Database, figures: Sequence[Figures], board: Board
) -> Callable[[], Awaitable[None]]:
    """A beat's work: read all figures of a service in one transaction and show them."""
    for each in figures:
        board.declare(each.gauges)

    async def measure() -> None:
        async with database.transaction() as session:
            found = [await each.read(session) for each in figures]
        for each, read in zip(figures, found, strict=True):
            for gauge, readings in zip(each.gauges, read, strict=True):
                board.put(service, gauge, readings)

    return measure
