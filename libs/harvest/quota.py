"""Quotas: what all machines of an organisation may be together, and who of those that are there stays within one."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class Quota:
    """The most of each kind; None: no bound of this kind."""

    machines: int | None = None
    vcpus: int | None = None
    memory_mib: int | None = None
    disk_gib: float | None = None

    def bounds(self) -> Iterator[tuple[str, float]]:
        """Each kind that is bounded, and by how much."""
        for kind in KINDS:
            most = getattr(self, kind)
            if most is not None:
                yield kind, most


def read_quota(known: Mapping[str, Any]) -> Quota:
    """A quota of a policy's document; kinds that this version does not know bound nothing."""
    return Quota(**{kind: known[kind] for kind in KINDS if kind in known})


KINDS = tuple(field.name for field in fields(Quota))


class Sized(Protocol):
    """What takes of a quota."""

    @property
    def vcpus(self) -> int: ...
    @property
    def memory_mib(self) -> int: ...
    @property
    def disk_gib(self) -> float: ...


S = TypeVar("S", bound=Sized)


@dataclass(frozen=True, slots=True)
class Left:
    """How many more machines of one size fit, and what bounds them."""

    machines: int
    kind: str
    used: float
    most: float


def size_of(one: Sized, kind: str) -> float:
    """What one machine takes of a kind; a figure that makes no sense counts as all there can be."""
    if kind == "machines":
        return 1.0
    size = float(getattr(one, kind))
    return size if size >= 0 else math.inf


def used_by(machines: Iterable[Sized], kind: str) -> float:
    """What these take of a kind together."""
    return math.fsum(size_of(one, kind) for one in machines)


def tightest(quotas: Iterable[Quota]) -> Quota | None:
    """One quota that holds where all of these do; None without any."""
    known = list(quotas)
    if not known:
        return None
    bounds = {kind: [most for quota in known if (most := getattr(quota, kind)) is not None] for kind in KINDS}
    return Quota(**{kind: min(most) if most else None for kind, most in bounds.items()})


def keep_within(quota: Quota, in_order: Sequence[S]) -> list[S]:
    """Those that may stay, in the order given: one that does not fit any more makes no room for itself."""
    left = dict(quota.bounds())
    kept = []
    for one in in_order:
        if all(size_of(one, kind) <= left[kind] for kind in left):
            left = {kind: most - size_of(one, kind) for kind, most in left.items()}
            kept.append(one)
    return kept


def left_for(quota: Quota, there: Sequence[Sized], size: Sized) -> Left | None:
    """How many more of this size fit beside those that are there, named what is exceeded; None: nothing is bounded."""
    return left_of(quota, use_of(quota, there), size)


def use_of(quota: Quota, there: Sequence[Sized]) -> dict[str, float]:
    """What these take together of each kind that is bounded."""
    return {kind: used_by(there, kind) for kind, _ in quota.bounds()}


def left_of(quota: Quota, used: Mapping[str, float], size: Sized) -> Left | None:
    """The same as `left_for` where it is known what those that are there take."""
    found = [
        Left(_fitting(most - used[kind], size_of(size, kind)), kind, used[kind], most)
        for kind, most in quota.bounds()
    ]
    return min(found, key=lambda left: (left.machines, left.used <= left.most), default=None)


def alone(quota: Quota | None, size: Sized) -> int | None:
    """How many machines of this size a quota leaves where there are no others; None: no bound."""
    left = None if quota is None else left_for(quota, (), size)
    return None if left is None else left.machines


MOST = 9999
"""No cluster has room for more."""


def _fitting(room: float, size: float) -> int:
    if room < size:
        return 0
    return MOST if size <= 0 else min(MOST, int(room // size))
