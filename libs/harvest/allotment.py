"""Whom each machine works for, where projects have priorities and quotas of their own.

The oldest machines are given first. Each works for the projects of the highest priority that have room for it, by
their weights. Those below that have no quota stand by: where its own projects have no work, a machine fetches theirs.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)
M = TypeVar("M", bound=Hashable)
NOBODY = -101
"""The priority of a machine that works for nobody: below every project's."""
_ENDLESS = 2**63


@dataclass(frozen=True, slots=True)
class Asking(Generic[P]):
    """A project that is lent to."""

    project: P
    priority: int = 0
    most_machines: int | None = None
    most_vcpus: int | None = None
    resources: frozenset[Hashable] | None = None
    """Whose machines may work for it; None: those of every resource."""

    @property
    def is_bounded(self) -> bool:
        return self.most_machines is not None or self.most_vcpus is not None


@dataclass(frozen=True, slots=True)
class Given(Generic[M]):
    """A machine that can work for somebody."""

    machine: M
    resource: Hashable
    vcpus: int


@dataclass(frozen=True, slots=True)
class Share(Generic[P]):
    """For whom one machine works, and who stands by."""

    projects: tuple[P, ...] = ()
    standing_by: tuple[P, ...] = ()
    priority: int = NOBODY


class Allotment(Generic[P, M]):
    """What has been given to whom so far; machines are given one by one."""

    def __init__(self, asking: Iterable[Asking[P]], *, apart: bool = True) -> None:
        """`apart` False: a machine works for all projects of its resource or for none; none can be left out."""
        self._asking = tuple(asking)
        self._apart = apart
        self._left = {one.project: [one.most_machines, one.most_vcpus] for one in self._asking}

    def copy(self) -> "Allotment[P, M]":
        """Another one from here on; what it gives takes nothing from this one."""
        twin: Allotment[P, M] = Allotment(self._asking, apart=self._apart)
        twin._left = {project: list(left) for project, left in self._left.items()}
        return twin

    def give(self, machine: Given[M]) -> Share[P]:
        """Let the machine work for those who are next."""
        share = self.look(machine)
        self._take(share, machine, 1)
        return share

    def give_more(self, machine: Given[M], most: int) -> int:
        """Let machines like this one, `most` of them, work one after the other; returns how many find work.

        It takes a step for each project that runs out, not for each machine.
        """
        given = 0
        while given < most and (share := self.look(machine)).projects:
            alike = min(most - given, *(self._room_of(project, machine) for project in share.projects))
            self._take(share, machine, alike)
            given += alike
        return given

    def _take(self, share: Share[P], machine: Given[M], count: int) -> None:
        for project in share.projects:
            machines, vcpus = self._left[project]
            self._left[project] = [
                None if machines is None else machines - count,
                None if vcpus is None else vcpus - count * max(1, machine.vcpus),
            ]

    def look(self, machine: Given[M]) -> Share[P]:
        """For whom the machine would work, were it given now."""
        able = [one for one in self._asking if one.resources is None or machine.resource in one.resources]
        room = [one for one in able if self._has_room(one, machine)]
        if not room or (not self._apart and len(room) < len(able)):
            return Share()
        highest = max(one.priority for one in room)
        first = [one for one in room if one.priority == highest or not self._apart]
        rest = [one for one in room if one not in first and not one.is_bounded]
        return Share(tuple(one.project for one in first), tuple(one.project for one in rest), highest)

    def _has_room(self, one: Asking[P], machine: Given[M]) -> bool:
        return self._room_of(one.project, machine) >= 1

    def _room_of(self, project: P, machine: Given[M]) -> int:
        """How many machines like this one have room."""
        machines, vcpus = self._left[project]
        by_vcpus = _ENDLESS if vcpus is None else vcpus // max(1, machine.vcpus)
        return by_vcpus if machines is None else min(machines, by_vcpus)


def allot(
    asking: Iterable[Asking[P]], oldest_first: Sequence[Given[M]], *, apart: bool = True
) -> dict[M, Share[P]]:
    """Whom each machine works for."""
    allotment: Allotment[P, M] = Allotment(asking, apart=apart)
    return {one.machine: allotment.give(one) for one in oldest_first}


def is_trivial(asking: Sequence[Asking[P]]) -> bool:
    """Whether every machine works for every project anyway: none is bounded, and none is above another."""
    return len({one.priority for one in asking}) <= 1 and not any(one.is_bounded for one in asking)
