"""Reading a sample that may be anything: what is kept, what becomes null, what is refused."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

from libs.common.contracts.usage import LATER_COLUMNS, Sample
from libs.harvest.owner import TOLERANCE

OLDEST = timedelta(days=8)
NEWEST = timedelta(hours=1)
LONGEST_INTERVAL_S = 3600.0
MOST_HOSTS = 5000
TURBO = 1.5
"""Above this much of a host's capacity a CPU figure is no measurement."""
IMPOSSIBLE = "impossible"
"""Quality of a row of which a value was impossible and became null."""
_LARGEST = 1e12


MEASURES = (
    "cpu_capacity_mhz",
    "cpu_used_mhz",
    "cpu_ours_mhz",
    "cpu_limit_mhz",
    "memory_capacity_mib",
    "memory_used_mib",
    "memory_ours_mib",
    "contention_percent",
    "machines",
    *LATER_COLUMNS,
)
"""The columns of a sample that are kept of every host."""


class Refused(StrEnum):
    """Why a sample is counted and not kept."""

    TOO_OLD = "too_old"
    IN_THE_FUTURE = "in_the_future"
    INTERVAL = "interval"
    COLUMNS = "columns"


@dataclass(frozen=True, slots=True)
class HostRow:
    """One host's interval as it is kept; None stands where the measurement was impossible or missing."""

    host: str
    measures: tuple[float | None, ...]
    """In the order of `MEASURES`."""
    state: str
    quality: str


def refuse(sample: Sample, now: datetime) -> Refused | None:
    """Why the sample cannot be kept; None: it can."""
    at = at_of(sample)
    if at < now - OLDEST:
        return Refused.TOO_OLD
    if at > now + NEWEST:
        return Refused.IN_THE_FUTURE
    if not (math.isfinite(sample.interval_s) and 0 < sample.interval_s <= LONGEST_INTERVAL_S):
        return Refused.INTERVAL
    widths = {len(column) for column in _columns(sample)}
    hosts = [clean_text(host) for host in sample.hosts]
    if widths != {len(hosts)} or len(set(hosts)) != len(hosts) or len(hosts) > MOST_HOSTS or "" in hosts:
        return Refused.COLUMNS
    return None


def at_of(sample: Sample) -> datetime:
    """The end of its interval; a naive time is taken for UTC."""
    return sample.at if sample.at.tzinfo else sample.at.replace(tzinfo=UTC)


def read_hosts(sample: Sample) -> list[HostRow]:
    """The rows of a sample that is not refused."""
    return [_row(sample, number) for number in range(len(sample.hosts))]


def clean(value: float | None, most: float = _LARGEST) -> float | None:
    """The value, or None where it is no possible figure."""
    if value is None or not math.isfinite(value) or value < 0 or value > most:
        return None
    return float(value)


def clean_text(text: str, longest: int = 200) -> str:
    """The text as the database can hold it."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()[:longest]


def day_of(at: datetime) -> date:
    """The day under which a sample is stored, in UTC."""
    return at.astimezone(UTC).date()


def _row(sample: Sample, number: int) -> HostRow:
    given: list[float | None] = [
        column[number] if (column := getattr(sample, name)) else None for name in MEASURES
    ]
    kept = [clean(value) for value in given]
    capacity_mhz = kept[0]
    if capacity_mhz:
        for place in (1, 2):
            kept[place] = clean(kept[place], capacity_mhz * TURBO)
    kept[2] = _believed(kept[2], kept[1], capacity_mhz or 0.0)
    whole = all(value is None or found is not None for value, found in zip(given, kept, strict=True))
    quality = sample.quality.value if whole else IMPOSSIBLE
    return HostRow(clean_text(sample.hosts[number]), tuple(kept), sample.states[number].value, quality)


def _believed(ours_mhz: float | None, used_mhz: float | None, capacity_mhz: float) -> float | None:
    """Our use, where the total bears it out: ours above the total earns nobody anything."""
    if ours_mhz is None or used_mhz is None or ours_mhz > used_mhz + TOLERANCE * capacity_mhz:
        return None
    return ours_mhz


def _columns(sample: Sample) -> list[Sequence[object]]:
    columns = {name: getattr(sample, name) for name in MEASURES}
    told = [column for name, column in columns.items() if column or name not in LATER_COLUMNS]
    return [sample.states, *told]
