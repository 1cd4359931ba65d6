"""Reading a sample that may be anything: what is kept, what becomes null, what is refused."""

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from itertools import repeat
from operator import attrgetter

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
_USED, _OURS = MEASURES.index("cpu_used_mhz"), MEASURES.index("cpu_ours_mhz")
_columns_of = attrgetter(*MEASURES)
_Column = Sequence[float | None]


class Refused(StrEnum):
    """Why a sample is counted and not kept."""

    TOO_OLD = "too_old"
    IN_THE_FUTURE = "in_the_future"
    INTERVAL = "interval"
    COLUMNS = "columns"


HostRow = tuple[float | str | None, ...]
"""One host's interval as it is kept, in the order of `HOST_COLUMNS`; None: no possible figure."""
HOST_COLUMNS = ("host", "interval_s", *MEASURES, "state", "quality")


def refuse(sample: Sample, now: datetime) -> Refused | None:
    """Why the sample cannot be kept; None: it can."""
    at = at_of(sample)
    if at < now - OLDEST:
        return Refused.TOO_OLD
    if at > now + NEWEST:
        return Refused.IN_THE_FUTURE
    if not (math.isfinite(sample.interval_s) and 0 < sample.interval_s <= LONGEST_INTERVAL_S):
        return Refused.INTERVAL
    hosts = set(map(clean_text, sample.hosts))
    count = len(sample.hosts)
    if _widths(sample) != {count} or len(hosts) != count or count > MOST_HOSTS or "" in hosts:
        return Refused.COLUMNS
    return None


def at_of(sample: Sample) -> datetime:
    """The end of its interval; a naive time is taken for UTC."""
    return sample.at if sample.at.tzinfo else sample.at.replace(tzinfo=UTC)


def read_hosts(sample: Sample) -> list[HostRow]:
    """The rows of a sample that is not refused."""
    count = len(sample.hosts)
    columns: list[_Column] = [column or (None,) * count for column in _columns_of(sample)]
    if not _is_plain(columns):
        return [_row(sample, number, row) for number, row in enumerate(zip(*columns, strict=True))]
    hosts = map(clean_text, sample.hosts)
    interval_s, quality = repeat(sample.interval_s, count), repeat(sample.quality.value, count)
    return list(zip(hosts, interval_s, *columns, sample.states, quality, strict=True))


def clean(value: float | None, most: float = _LARGEST) -> float | None:
    """The value, or None where it is no possible figure."""
    if value is None or not math.isfinite(value) or value < 0 or value > most:
        return None
    return float(value)


def clean_text(text: str, longest: int = 200) -> str:
    """The text as the database can hold it."""
    if text.isascii() and "\x00" not in text:  # almost always
        return text[:longest]
    return text.replace("\x00", "").encode("utf-8", "replace").decode()[:longest]


def day_of(at: datetime) -> date:
    """The day under which a sample is stored, in UTC."""
    return at.astimezone(UTC).date()


def _is_plain(columns: Sequence[_Column]) -> bool:
    """Whether nothing in these columns is impossible, so that all is kept as it is: they are looked at together. Where
    this says no, `_row` tells what may stay."""
    capacities, used, ours = columns[0], columns[_USED], columns[_OURS]
    if None in capacities or None in used or None in ours:
        return False
    known = [value for column in columns for value in column if value is not None]
    # The least and the greatest of values among which one is no number may be any; their sum is none.
    if known and not (min(known) >= 0 and max(known) <= _LARGEST and not math.isnan(sum(known))):
        return False
    return all(
        our_mhz <= used_mhz <= capacity_mhz * TURBO  # type: ignore[operator]
        for capacity_mhz, used_mhz, our_mhz in zip(capacities, used, ours, strict=True)
    )


def _row(sample: Sample, number: int, given: Sequence[float | None]) -> HostRow:
    kept = [clean(value) for value in given]
    capacity_mhz = kept[0]
    if capacity_mhz:
        for place in (_USED, _OURS):
            kept[place] = clean(kept[place], capacity_mhz * TURBO)
    kept[_OURS] = _believed(kept[_OURS], kept[_USED], capacity_mhz or 0.0)
    whole = all(value is None or found is not None for value, found in zip(given, kept, strict=True))
    quality = sample.quality.value if whole else IMPOSSIBLE
    return (clean_text(sample.hosts[number]), sample.interval_s, *kept, sample.states[number].value, quality)


def _believed(ours_mhz: float | None, used_mhz: float | None, capacity_mhz: float) -> float | None:
    """Our use, where the total bears it out: ours above the total earns nobody anything."""
    if ours_mhz is None or used_mhz is None or ours_mhz > used_mhz + TOLERANCE * capacity_mhz:
        return None
    return ours_mhz


def _widths(sample: Sample) -> set[int]:
    """How long the columns are, but for later ones that are empty."""
    columns = _columns_of(sample)
    first, later = columns[: -len(LATER_COLUMNS)], columns[-len(LATER_COLUMNS) :]
    return {len(sample.states), *map(len, first), *(len(column) for column in later if column)}
