"""What a backtest runs on: virtual machines to be placed on hosts, or the owners of hosts as they are."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

DAY_S = 86_400.0
HELD_S = 3_600.0
"""A gap up to this long is filled with the last value; longer, and the machine was off."""
HOST_CORES = 16
CORE_MHZ = 2_600.0
HOST_MEMORY_MIB = 262_144.0
"""Of the hosts on which a trace of virtual machines is placed."""
BEGINNING = datetime(2013, 7, 1, tzinfo=UTC)
"""Of a trace that does not say when it was: a Monday, so windows of a policy fall on the days of the trace."""


class BadTrace(ValueError):
    """A trace that cannot be replayed; the message says why in one sentence."""


@dataclass(frozen=True, slots=True)
class MachinesTrace:
    """Virtual machines of an owner: rows are machines, columns are steps, NaN is no sample."""

    cpu_mhz: Floats
    vcpus: Ints
    step_s: float
    memory_mib: Floats | None = None
    begins: datetime = BEGINNING


@dataclass(frozen=True, slots=True)
class Load:
    """The owners of a cluster's hosts over time."""

    owner: Floats
    """Share of a host's CPU, 0 to 1, by host and step."""
    step_s: float
    cores: Floats
    """By host."""
    core_mhz: float = CORE_MHZ
    memory: Floats | None = None
    """The owner's share of a host's memory; None: not known."""
    memory_mib: float = HOST_MEMORY_MIB
    memory_binds: bool = False
    """The memory is that of these very hosts: the engine is told, and machines go only where they fit."""
    absent: Flags | None = None
    """By host and step: it was not there, or nobody measured it. Its owner is then 1. None: all were there."""
    numbers: Ints | None = None
    """Of the steps, counted from `begins`, where stretches in which nothing was measured are left out."""
    begins: datetime = BEGINNING
    levels: Floats | None = None
    """Of ticks that were made up: the mean around which each was, by host and tick."""

    @property
    def hosts(self) -> int:
        """How many there are."""
        return int(self.owner.shape[0])

    @property
    def undated(self) -> bool:
        """Whether the trace does not say when it was."""
        return self.begins == BEGINNING

    @property
    def days(self) -> float:
        """How long it is."""
        return float(self.owner.shape[1] * self.step_s / DAY_S)

    def at_s(self, step: int) -> float:
        """Seconds from `begins` to the beginning of a step."""
        return self.step_s * float(step if self.numbers is None else self.numbers[step])

    def away(self, step: int) -> Flags | None:
        """Which hosts were not there; None where all were."""
        return None if self.absent is None else np.asarray(self.absent[:, step])

    def between(self, first_day: float, last_day: float) -> "Load":
        """The days from `first_day` up to and without `last_day`. Raises BadTrace where there are none."""
        a, b = (round(day * DAY_S / self.step_s) for day in (first_day, last_day))
        if not 0 <= a < b or a >= self.owner.shape[1]:
            raise BadTrace(f"days {first_day:g} to {last_day:g} are not in a trace of {self.days:.1f} days")
        memory = None if self.memory is None else self.memory[:, a:b]
        absent = None if self.absent is None else self.absent[:, a:b]
        begins, numbers = self.begins, None if self.numbers is None else self.numbers[a:b]
        if numbers is None:
            begins += timedelta(seconds=a * self.step_s)
        return replace(
            self, owner=self.owner[:, a:b], memory=memory, absent=absent, numbers=numbers, begins=begins
        )


def count_memory_bound(load: Load, begin: int, end: int, mib_per_vcpu: float) -> float | None:
    """Host-steps in which memory below 90 % holds fewer vCPUs of ours than CPU below 90 % would feed."""
    if load.memory is None:
        return None
    cores = np.maximum(0.0, 0.9 - load.owner[:, begin:end]) * load.cores[:, None]
    room_mib = np.maximum(0.0, 0.9 - load.memory[:, begin:end]) * load.memory_mib
    return float((room_mib < cores * mib_per_vcpu).sum())


def hold(values: Floats, step_s: float, beyond: float) -> Floats:
    """The values with gaps up to an hour filled with the last one, and `beyond` in longer ones."""
    missing = ~np.isfinite(values)
    steps = np.arange(values.shape[1])
    before = np.maximum.accumulate(np.where(missing, -1, steps), axis=1)
    after = np.minimum.accumulate(np.where(missing, steps.size + 10**9, steps)[:, ::-1], axis=1)[:, ::-1]
    short = missing & (before >= 0) & ((after - before - 1) * step_s <= HELD_S)
    held = np.take_along_axis(values, np.maximum(before, 0), axis=1)
    return np.where(short, held, np.where(missing, beyond, values))


def resample(load: Load, step_s: float) -> Load:
    """Means over longer steps; `step_s` is a whole multiple of the trace's own."""
    times = round(step_s / load.step_s)
    if times <= 1:
        return load
    whole = load.owner.shape[1] // times * times
    if whole == 0:
        raise BadTrace("the trace is shorter than one interval")

    def mean(values: Floats) -> Floats:
        return np.asarray(values[:, :whole].reshape(values.shape[0], -1, times).mean(axis=2))

    memory = None if load.memory is None else mean(load.memory)
    absent = None if load.absent is None else mean(load.absent.astype(np.float64)) > 0.0
    longer = replace(load, owner=mean(load.owner), memory=memory, absent=absent, step_s=load.step_s * times)
    return longer if load.numbers is None else replace(longer, numbers=load.numbers[:whole:times] // times)
