"""What stands at a site: the hosts that clouds show there, or what their owners declare where they show none."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from services.registry.domain import name_key
from services.registry.domain.hosts import HostClass, Metal, classify

_MIB = 1024.0
_DIGITS = 3


class Source(StrEnum):
    """Where an inventory comes from."""

    SEEN = "seen"
    """The cloud shows its hosts."""
    DECLARED = "declared"
    """Somebody said so at registration."""
    UNKNOWN = "unknown"
    """Nothing was seen or said yet."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """Hosts and what they are made of, added up."""

    hosts: int = 0
    cores: int = 0
    memory_gib: float = 0.0
    gpus: int = 0
    """Those that are known of."""
    hosts_of_unknown_gpus: int = 0
    classes: Mapping[HostClass, int] = field(default_factory=dict)
    """Hosts by class; one of unknown GPUs, or that was only declared, is in none."""

    def __add__(self, other: "Holdings") -> "Holdings":
        return Holdings(
            self.hosts + other.hosts,
            self.cores + other.cores,
            round(self.memory_gib + other.memory_gib, _DIGITS),
            self.gpus + other.gpus,
            self.hosts_of_unknown_gpus + other.hosts_of_unknown_gpus,
            dict(Counter(self.classes) + Counter(other.classes)),
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """A resource and what it brings to its site."""

    resource_id: UUID
    name: str
    site: str
    source: Source
    holdings: Holdings


@dataclass(frozen=True, slots=True)
class Site:
    """A place by its name, as the first of its resources spells it."""

    name: str
    standing: tuple[Standing, ...]

    @property
    def holdings(self) -> Holdings:
        return add_up(one.holdings for one in self.standing)


def count(
    inventory: Sequence[Mapping[str, Any]], declared: Mapping[str, Any] | None
) -> tuple[Source, Holdings]:
    """What a resource has, by its clusters as monitor told them or else as declared."""
    hosts = [host for cluster in inventory for host in cluster["hosts"]]
    if hosts:
        return Source.SEEN, _count_hosts(hosts)
    if declared is None:
        return Source.UNKNOWN, Holdings()
    gpus = declared["gpus"]
    return Source.DECLARED, Holdings(
        hosts=declared["hosts"],
        cores=declared["cores"],
        memory_gib=round(declared["memory_gib"], _DIGITS),
        gpus=gpus or 0,
        hosts_of_unknown_gpus=declared["hosts"] if gpus is None else 0,
    )


def group(standing: Iterable[Standing]) -> list[Site]:
    """Sites in the order of their names; names that differ in capitals alone are one."""
    found: dict[str, list[Standing]] = {}
    for one in standing:
        found.setdefault(name_key(one.site), []).append(one)
    return [Site(found[key][0].site, tuple(found[key])) for key in sorted(found)]


def add_up(holdings: Iterable[Holdings]) -> Holdings:
    """All together."""
    return sum(holdings, Holdings())


def _count_hosts(hosts: Sequence[Mapping[str, Any]]) -> Holdings:
    known = [host.get("gpus") for host in hosts]
    memory_mib = sum(host["memory_capacity_mib"] for host in hosts)
    classes = [
        classify(Metal(host["cores"], host["memory_capacity_mib"], gpus))
        for host, gpus in zip(hosts, known, strict=True)
    ]
    return Holdings(
        hosts=len(hosts),
        cores=sum(host["cores"] for host in hosts),
        memory_gib=round(memory_mib / _MIB, _DIGITS),
        gpus=sum(gpus or 0 for gpus in known),
        hosts_of_unknown_gpus=known.count(None),
        classes=dict(Counter(one for one in classes if one is not None)),
    )
