"""The catalogue of sizes of a resource: machines that are parts of its hosts."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from libs.harvest.sizes import HostSize, derive
from services.registry.models import Resource


class SizeShown(BaseModel):
    """A size that a policy may name as `machine.size`."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    vcpus: int
    memory_mib: int
    cpu_mhz: float
    """What its vCPUs are worth when each has a core of its own."""


class ClusterSizes(BaseModel):
    """The sizes of one cluster."""

    id: UUID
    name: str
    items: list[SizeShown]


class SizesShown(BaseModel):
    """Sizes that fit every host of the resource, and those of each cluster alone: a policy is assigned to either."""

    items: list[SizeShown]
    clusters: list[ClusterSizes]


def show_sizes(resource: Resource) -> SizesShown:
    """The catalogue, by the inventory."""
    every = [host for cluster in resource.inventory for host in cluster["hosts"]]
    return SizesShown(
        items=_derive(every),
        clusters=[
            ClusterSizes(id=cluster["cluster_id"], name=cluster["name"], items=_derive(cluster["hosts"]))
            for cluster in resource.inventory
        ],
    )


def _derive(hosts: Iterable[Mapping[str, Any]]) -> list[SizeShown]:
    sizes = derive(
        HostSize(host["cores"], host["cpu_capacity_mhz"], host["memory_capacity_mib"], host.get("numa_nodes"))
        for host in hosts
    )
    return [SizeShown.model_validate(one) for one in sizes]
