"""Sizes by name: a policy says which part of a host a machine is, and workload hears numbers."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from libs.common.contracts.resource import ClusterFacts, HostFacts, InventoryChanged
from libs.common.contracts.supply import PolicyAssigned
from libs.common.ids import cluster_id
from libs.harvest.document import parse
from services.policy.main import build
from tests.service.lone_service import Lone, as_an_older_process_left_it, serve
from tests.service.test_policy import CLUSTER, DOCUMENT, NOW, RESOURCE, assign, create, resource

SIZED = {"template": "boinc-worker", "size": "quarter", "disk_gib": 20}
GIB = 1024
WIDE = HostFacts("h1", "h1", 41_600.0, 256.0 * GIB, 16, numa_nodes=2)
SMALL = HostFacts("h2", "h2", 20_800.0, 64.0 * GIB, 8)
OTHER = cluster_id(RESOURCE, "domain-c2")


@pytest.fixture
async def policy(database_url: str) -> AsyncIterator[Lone]:
    async with serve(build, "policy", database_url) as lone:
        yield lone


def inventory(revision: int, *hosts: HostFacts, other: tuple[HostFacts, ...] = ()) -> InventoryChanged:
    clusters = (
        ClusterFacts(CLUSTER, "domain-c1", "East", hosts),
        ClusterFacts(OTHER, "domain-c2", "West", other),
    )
    return InventoryChanged(at=NOW, revision=revision, resource_id=RESOURCE, clusters=clusters)


def heard(policy: Lone) -> list[tuple[int, int, int]]:
    """Revision, vCPUs and GiB of what was said, each document readable by the engine."""
    said = {event.id: event for event in policy.said if isinstance(event, PolicyAssigned)}
    read = [(event.revision, parse(event.document).machine) for event in said.values()]
    return sorted((revision, size.vcpus, size.memory_mib // GIB) for revision, size in read)


async def test_a_size_by_name_is_numbers_where_it_is_assigned(policy: Lone) -> None:
    await policy.tell(resource(), inventory(1, WIDE, other=(SMALL,)))
    made = await create(policy, machine=SIZED)
    assert made["document"]["machine"] == SIZED

    assert (await assign(policy, made["id"], "cluster", CLUSTER)).status == 201
    await policy.hear(1)
    assert heard(policy) == [(1, 4, 57)]

    await policy.tell(inventory(2, WIDE, replace(WIDE, host="h3", cores=12, numa_nodes=3), other=(SMALL,)))
    await policy.hear(2)
    assert heard(policy) == [(1, 4, 57), (2, 3, 57)], "the smallest host makes it"
    await policy.tell(inventory(3, replace(WIDE, cores=0), other=(SMALL,)))
    assert (await policy.ask("GET", f"/v1/policies/{made['id']}")).body["document"]["machine"] == SIZED

    whole = {**DOCUMENT, "machine": {**SIZED, "size": "half"}}
    etag = {"If-Match": "*"}
    refused = await policy.ask("PUT", f"/v1/policies/{made['id']}", whole, headers=etag)
    assert (refused.status, refused.field) == (422, "machine.size")
    assert "not known" in refused.body["detail"]
    await policy.tell(inventory(4, WIDE, other=(SMALL,)))
    revised = await policy.ask("PUT", f"/v1/policies/{made['id']}", whole, headers=etag)
    assert (revised.status, revised.body["document"]["machine"]["size"]) == (200, "half")
    await policy.hear(4)
    assert heard(policy)[2:] == [(3, 4, 57), (4, 8, 115)]


async def test_a_class_that_is_not_there_is_refused_with_those_that_are(policy: Lone) -> None:
    await policy.tell(resource(), inventory(1, WIDE, other=(SMALL,)))
    made = await create(policy, machine={**SIZED, "size": "whole"})
    refused = await assign(policy, made["id"], "cluster", CLUSTER)
    assert (refused.status, refused.field) == (422, "machine.size")
    assert "half, quarter, eighth" in refused.body["remedy"]
    assert (await assign(policy, made["id"], "cluster", OTHER)).status == 201
    await policy.hear(1)
    assert heard(policy) == [(1, 7, 50)]


@pytest.mark.parametrize(
    ("machine", "field"),
    [
        ({**SIZED, "size": "huge"}, "machine.size"),
        ({**SIZED, "size": 4}, "machine.size"),
        ({**SIZED, "vcpus": 4}, "machine.vcpus"),
        ({**SIZED, "memory_mib": 1024}, "machine.memory_mib"),
        ({"template": "boinc-worker", "disk_gib": 20}, "machine.vcpus"),
        ({"size": "half", "disk_gib": 20}, "machine.template"),
    ],
)
async def test_what_is_no_size_is_refused(policy: Lone, machine: dict[str, Any], field: str) -> None:
    refused = await policy.ask("POST", "/v1/policies/validate", {**DOCUMENT, "machine": machine})
    assert (refused.status, refused.field) == (422, field), refused.body


async def test_a_dry_run_takes_the_numbers_of_where_the_policy_is(policy: Lone) -> None:
    made = await create(policy, machine=SIZED)
    path = f"/v1/policies/{made['id']}/dry-runs"
    sample = {
        "cluster": "c", "name": "c", "at": "2026-11-20T12:00:00Z", "interval_s": 20, "hosts": ["a"],
        "host_names": ["a"],
        "states": ["connected"], "cpu_capacity_mhz": [41600], "cpu_used_mhz": [100], "cpu_ours_mhz": [0],
        "cpu_limit_mhz": [0], "memory_capacity_mib": [262144], "memory_used_mib": [1024], "memory_ours_mib": [0],
        "contention_percent": [None], "machines": [0],
    }  # fmt: skip
    refused = await policy.ask("POST", path, {"samples": [sample]})
    assert (refused.status, refused.field) == (422, "machine.size")
    await policy.tell(resource(), inventory(1, WIDE, other=(SMALL,)))
    assert (await assign(policy, made["id"], "resource", RESOURCE)).status == 201
    assert (await policy.ask("POST", path, {"samples": [sample]})).status == 200


async def test_an_inventory_that_an_older_process_took_is_taken_again(
    policy: Lone, database_url: str
) -> None:
    await policy.tell(resource(), inventory(1, WIDE, other=(SMALL,)))
    await as_an_older_process_left_it(database_url, "update policy.known_cluster set hosts = '[]'")
    made = await create(policy, machine=SIZED)
    refused = await assign(policy, made["id"], "cluster", CLUSTER)
    assert (refused.status, refused.field) == (422, "machine.size")
    await policy.tell(inventory(1, WIDE, other=(SMALL,)))
    assert (await assign(policy, made["id"], "cluster", CLUSTER)).status == 201
