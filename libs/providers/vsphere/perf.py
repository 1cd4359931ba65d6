"""Performance counters in bulk: real-time values by entity and time, whatever order a server gives them in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pyVmomi import vim, vmodl

from libs.providers.base import Cause, Unavailable
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.inventory import ref_id
from libs.providers.vsphere.settings import NATIVE_INTERVAL_S

BATCH = 200
MOST_SAMPLES = 180
"""An hour: what hosts keep of their real-time statistics."""

CPU_MHZ = "cpu.usagemhz.average"
CPU_READY_MS = "cpu.ready.summation"
MEMORY_KIB = "mem.consumed.average"

Series = dict[int, float]
"""Values by the end of their 20-second interval, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Ids of the counters by name, as this server numbers them."""

    ids: dict[str, int]

    def named(self, names: Iterable[str]) -> dict[int, str]:
        """Ids of these counters. Raises Unavailable when the server lacks one."""
        try:
            return {self.ids[name]: name for name in names}
        except KeyError as missing:
            raise Unavailable(Cause.INVALID, f"this server has no performance counter {missing}") from None


@dataclass(frozen=True, slots=True)
class Readings:
    """Series by entity and counter name."""

    series: dict[tuple[str, str], Series]

    def of(self, entity: str, counter: str) -> Series:
        return self.series.get((entity, counter), {})

    def times(self) -> set[int]:
        """Every time at which anything was read."""
        return {at for series in self.series.values() for at in series}


def read_counters(api: Api) -> Counters:
    """The catalogue, read once per session: ids differ between servers."""
    found = api.content.perfManager.perfCounter
    return Counters(
        {f"{item.groupInfo.key}.{item.nameInfo.key}.{item.rollupType}": int(item.key) for item in found}
    )


def query(api: Api, counters: dict[int, str], refs: Sequence[Any], samples: int) -> Readings:
    """The newest `samples` real-time values of each entity, in batches."""
    readings = Readings({})
    metrics = [vim.PerformanceManager.MetricId(counterId=number, instance="") for number in counters]
    count = max(1, min(MOST_SAMPLES, samples))
    for start in range(0, len(refs), BATCH):
        specs = [
            vim.PerformanceManager.QuerySpec(
                entity=ref,
                metricId=metrics,
                intervalId=NATIVE_INTERVAL_S,
                format="normal",
                maxSample=count,
            )
            for ref in refs[start : start + BATCH]
        ]
        for answer in _ask(api, specs):
            _add(readings, answer, counters)
    return readings


def _ask(api: Api, specs: list[Any]) -> list[Any]:
    """One batch. An entity that has just gone or cannot answer fails the whole call: halve until it is alone."""
    try:
        return list(api.content.perfManager.QueryPerf(specs) or ())
    except (vmodl.fault.ManagedObjectNotFound, vmodl.fault.InvalidArgument):
        if len(specs) == 1:
            return []
        half = len(specs) // 2
        return _ask(api, specs[:half]) + _ask(api, specs[half:])


def _add(readings: Readings, answer: Any, counters: dict[int, str]) -> None:
    times = [to_grid(info.timestamp) for info in answer.sampleInfo or ()]
    for found in answer.value or ():
        name = counters.get(int(found.id.counterId))
        if name is None or found.id.instance:
            continue
        series = readings.series.setdefault((ref_id(answer.entity), name), {})
        # A series may be shorter than its times, and says -1 where a value is missing.
        for at, value in sorted(zip(times, found.value or (), strict=False)):
            if value >= 0:
                series[at] = float(value)


def to_grid(at: datetime) -> int:
    """The 20-second tick that a time belongs to; a second early still belongs to it."""
    return int(at.timestamp() + 1) // NATIVE_INTERVAL_S * NATIVE_INTERVAL_S
