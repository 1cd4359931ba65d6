"""The BalticLSC network as simulated clouds: five sites of hosts of several kinds, only observed."""

from dataclasses import dataclass
from typing import Any

from services.cli.client import Client
from services.cli.names import RESOURCE


@dataclass(frozen=True, slots=True)
class Kind:
    """Equal hosts: so many, each with so many cores, GiB and GPUs."""

    name: str
    hosts: int
    cores: int
    memory_gib: int
    gpus: int = 0


SITES: dict[str, tuple[Kind, ...]] = {
    "WUT": (Kind("gpu", 2, 16, 128, 4), Kind("cpu", 4, 12, 128)),
    "IMCS": (Kind("cpu", 2, 4, 8),),
    "RISE": (Kind("gpu", 27, 60, 240, 8), Kind("cpu", 3, 40, 152)),
    "MTC": (Kind("gpu", 1, 32, 96, 4), Kind("cpu", 4, 16, 48)),
    "TSP": (Kind("gpu", 1, 4, 24, 1), Kind("cpu", 4, 8, 16)),
}
"""Nodes, cores, GB and GPUs in all as the network published them; how they fall to hosts is made up."""


async def furnish_sites(client: Client, password: str, interval_s: int) -> None:
    """Register whatever is not there yet. Raises Failed."""
    known = {item["name"] for item in await client.pages(RESOURCE.path)}
    for site, kinds in SITES.items():
        if site not in known:
            await client.call("POST", RESOURCE.path, resource_at(site, kinds, password, interval_s))


def resource_at(site: str, kinds: tuple[Kind, ...], password: str, interval_s: int) -> dict[str, Any]:
    """The simulated cloud of a site, as it is registered."""
    clusters = [
        {
            "name": f"{site.lower()}-{kind.name}",
            "hosts": kind.hosts,
            "cores": kind.cores,
            "memory_gib": kind.memory_gib,
            "gpus": kind.gpus,
            "owner": "office",
        }
        for kind in kinds
    ]
    return {
        "name": site,
        "site": site,
        "provider": "simulated",
        "url": f"sim://balticlsc-{site.lower()}",
        "username": "tides",
        "password": password,
        "interval_s": interval_s,
        "settings": {"clusters": clusters, "interval_s": interval_s},
    }
