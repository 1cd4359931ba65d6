"""Documents whose machine has a size by name (`machine.size: quarter`) in place of vCPUs and memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from libs.common.contracts.resource import HostFacts
from libs.harvest.document import InvalidPolicy
from libs.harvest.sizes import PARTS, HostSize, SizeClass, derive

Numbers = Mapping[str, int]
"""`vcpus` and `memory_mib`."""
_ANY: Numbers = {"vcpus": 1, "memory_mib": 1024}


def take_size(document: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The document with some numbers in the place of its size, to be checked as any other, and that size.

    Raises InvalidPolicy for a size that there never is, or that stands beside numbers.
    """
    machine = document.get("machine")
    if not isinstance(machine, Mapping) or machine.get("size") is None:
        return dict(document), None
    size = machine["size"]
    if not isinstance(size, str) or size not in PARTS:
        raise InvalidPolicy("machine.size", f"is none of {', '.join(PARTS)}")
    for name in _ANY:
        if name in machine:
            raise InvalidPolicy(f"machine.{name}", "follows from the size: leave one of them out")
    return fill(document, _ANY), size


def put_size(document: Mapping[str, Any], size: str | None) -> dict[str, Any]:
    """The document with its size in the place of numbers; as it is without one."""
    if size is None:
        return dict(document)
    kept = {name: value for name, value in document["machine"].items() if name not in _ANY}
    return {**document, "machine": {**kept, "size": size}}


def size_of(document: Mapping[str, Any]) -> str | None:
    """The size by name of a document that was kept."""
    size: str | None = document.get("machine", {}).get("size")
    return size


def fill(document: Mapping[str, Any], numbers: Numbers | None) -> dict[str, Any]:
    """The document with these numbers in the place of its size; as it is without a size or without numbers."""
    if numbers is None or size_of(document) is None:
        return dict(document)
    kept = {name: value for name, value in document["machine"].items() if name != "size"}
    return {**document, "machine": {**kept, **numbers}}


def to_row(host: HostFacts) -> dict[str, Any]:
    """What is kept of a host."""
    return {
        "cores": host.cores,
        "cpu_mhz": host.cpu_capacity_mhz,
        "memory_mib": host.memory_capacity_mib,
        "numa_nodes": host.numa_nodes,
    }


def sizes_of(rows: Sequence[Mapping[str, Any]]) -> tuple[SizeClass, ...]:
    """The size classes of hosts that were kept."""
    return derive(HostSize(**row) for row in rows)
