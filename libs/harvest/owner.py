"""What the owner of each host uses, and whether the measurement can be believed.

Owner load is total minus ours at the same timestamps. What cannot be true never means "idle": an unbelievable
host counts as full, an unbelievable sample as silence.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from libs.common.contracts.usage import HostState, Sample
from libs.harvest.types import HostMemory, Policy, ReasonCode

FUTURE_S = 60.0
"""A timestamp further ahead of the present than this is a broken clock."""
TOLERANCE = 0.02
"""Of capacity: how far ours may stand above the total, by rounding and skew, before it is impossible."""
_TURBO = 4.0
"""Of capacity: turbo and hyper-threading pass 100 %, nothing passes this."""
MOST_INTERVAL_S = 300.0
"""A longer interval than this is no excuse for silence."""
_CONNECTED = HostState.CONNECTED
_MOST = 1e9
"""MHz, MiB or GiB that no single host has."""


class HostLoad(NamedTuple):
    """One host of a believable sample."""

    host: str
    connected: bool
    capacity_mhz: float
    """0: unknown."""
    cpu: float
    """Owner load, fraction of capacity, 0 to 1; 1 when it cannot be believed."""
    memory: float
    """Owner's memory, fraction, 0 to 1; 1 when it cannot be believed or is not measured."""
    memory_capacity_mib: float
    """0: unknown."""
    memory_ours_mib: float
    fault: str | None = None
    """What is impossible about its CPU."""
    memory_fault: str | None = None


def patience_s(policy: Policy, *intervals_s: float | None) -> float:
    """How old the newest sample may be: as the policy says, and at least three of the intervals known."""
    known_s = [number(interval_s) or 0.0 for interval_s in intervals_s]
    return max(policy.stale_after_s, *(3.0 * min(interval_s, MOST_INTERVAL_S) for interval_s in known_s))


def find_fault(
    sample: Sample, now: datetime, stale_after_s: float
) -> tuple[ReasonCode, str, float | None] | None:
    """Why the whole sample cannot be used: code, what is wrong, and by how many seconds. None: it can."""
    age_s = (now - sample.at).total_seconds()
    if age_s < -FUTURE_S:
        return ReasonCode.IMPOSSIBLE, "future", -age_s
    if age_s > stale_after_s:
        return ReasonCode.STALE, "age", age_s
    return _find_misfit(sample)


def _find_misfit(sample: Sample) -> tuple[ReasonCode, str, float | None] | None:
    """What is wrong with the sample's form."""
    if (number(sample.interval_s) or 0.0) <= 0.0:
        return ReasonCode.IMPOSSIBLE, "interval", None
    columns = (
        sample.host_names,
        sample.states,
        sample.cpu_capacity_mhz,
        sample.cpu_used_mhz,
        sample.cpu_ours_mhz,
        sample.cpu_limit_mhz,
        sample.memory_capacity_mib,
        sample.memory_used_mib,
        sample.memory_ours_mib,
        sample.contention_percent,
        sample.machines,
    )
    if any(len(column) != len(sample.hosts) for column in columns):
        return ReasonCode.IMPOSSIBLE, "columns", None
    if len(set(sample.hosts)) != len(sample.hosts) or "" in sample.hosts:
        return ReasonCode.IMPOSSIBLE, "hosts_named_twice", None
    if not sample.hosts:
        return ReasonCode.HOSTS, "none", None
    return None


def read_hosts(sample: Sample, known: Mapping[str, HostMemory]) -> tuple[HostLoad, ...]:
    """The hosts of a sample that `find_fault` accepts, ordered by reference."""
    measured = memory_is_measured(sample)
    columns = zip(
        sample.hosts,
        sample.states,
        sample.cpu_capacity_mhz,
        sample.cpu_used_mhz,
        sample.cpu_ours_mhz,
        sample.memory_capacity_mib,
        sample.memory_used_mib,
        sample.memory_ours_mib,
        strict=True,
    )
    loads = [_read_host(row, known.get(row[0]), measured) for row in columns]
    return tuple(sorted(loads))  # no two have the same name


def memory_is_measured(sample: Sample) -> bool:
    """False when every memory column is plainly empty: a cloud that does not say."""
    columns = (sample.memory_capacity_mib, sample.memory_used_mib, sample.memory_ours_mib)
    return any(number(value) != 0.0 for column in columns for value in column)


_Row = tuple[str, HostState, object, object, object, object, object, object]
"""A host's name and state, and capacity, use and ours of its CPU and of its memory."""


def _read_host(row: _Row, known: HostMemory | None, memory_measured: bool) -> HostLoad:
    host, state, cpu_capacity, cpu_used, cpu_ours, memory_capacity_mib, memory_used, memory_ours = row
    capacity = _capacity(cpu_capacity)
    cpu, fault = _owner_share(capacity, cpu_used, cpu_ours)
    memory, memory_fault, memory_capacity = 1.0, None, None
    if memory_measured:
        memory_capacity = _capacity(memory_capacity_mib)
        memory, memory_fault = _owner_share(memory_capacity, memory_used, memory_ours)
    return HostLoad(
        host,
        state == _CONNECTED,
        capacity or (known.capacity_mhz if known else 0.0),
        cpu,
        memory,
        memory_capacity or 0.0,
        number(memory_ours) or 0.0,
        fault,
        memory_fault,
    )


def _owner_share(capacity: float | None, used: object, ours: object) -> tuple[float, str | None]:
    """Owner's fraction of a capacity, or full and the reason why it cannot be known."""
    if capacity is None:
        return 1.0, "capacity"
    if type(used) is float and type(ours) is float and 0.0 <= ours <= used <= capacity:
        return (used - ours) / capacity, None  # almost always
    return _doubt(capacity, number(used), number(ours))


def _doubt(capacity: float, total: float | None, lent: float | None) -> tuple[float, str | None]:
    """The same of figures that may be impossible."""
    if total is None or lent is None:
        return 1.0, "not_a_number"
    if total < 0 or lent < 0:
        return 1.0, "negative"
    if total > _TURBO * capacity:
        return 1.0, "above_capacity"
    if lent > total + TOLERANCE * capacity:
        return 1.0, "ours_above_total"
    share = (total - lent) / capacity
    return 0.0 if share < 0.0 else 1.0 if share > 1.0 else share, None


def _capacity(value: object) -> float | None:
    if type(value) is float and 1.0 <= value <= _MOST:
        return value
    capacity = number(value)
    return capacity if capacity is not None and 1.0 <= capacity <= _MOST else None


def number(value: object) -> float | None:
    """A finite number of a plausible size, or None."""
    if type(value) is float:  # almost always
        return value if -_MOST <= value <= _MOST else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= _MOST else None
