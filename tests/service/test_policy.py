"""Policy, from outside: what an operator can do, and what workload hears."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.auth import Role
from libs.common.contracts.resource import ClusterFacts, InventoryChanged, Mode, ResourceChanged
from libs.common.contracts.supply import PolicyAssigned, Scope
from libs.common.ids import cluster_id
from libs.harvest.document import parse
from services.policy.main import build
from tests.service.lone_service import OURS, THEIRS, Answer, Lone, serve

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
RESOURCE = uuid4()
CLUSTER = cluster_id(RESOURCE, "domain-c1")
DOCUMENT: dict[str, Any] = {
    "name": "nights",
    "machine": {"template": "boinc-worker", "vcpus": 4, "memory_mib": 4096, "disk_gib": 20},
    "windows": [{"days": ["mon"], "start": "22:00", "end": "06:00"}],
}


@pytest.fixture
async def policy(database_url: str) -> AsyncIterator[Lone]:
    async with serve(build, "policy", database_url) as lone:
        yield lone


def resource(revision: int = 1, *, organisation: UUID = OURS, gone: bool = False) -> ResourceChanged:
    return ResourceChanged(
        at=NOW, revision=revision, gone=gone, resource_id=RESOURCE, organisation_id=organisation, name="vc",
        provider="simulated", url="https://vc.example", settings={}, username="tides", sealed_secret="k.x",
        ca_pem=None, thumbprint=None, mode=Mode.OBSERVE, interval_s=20,
    )  # fmt: skip


def inventory(revision: int = 1) -> InventoryChanged:
    cluster = ClusterFacts(CLUSTER, "domain-c1", "East", ())
    return InventoryChanged(at=NOW, revision=revision, resource_id=RESOURCE, clusters=(cluster,))


async def create(policy: Lone, **changes: Any) -> dict[str, Any]:
    made = await policy.ask("POST", "/v1/policies", {**DOCUMENT, **changes})
    assert made.status == 201, made.body
    found: dict[str, Any] = made.body
    return found


async def assign(policy: Lone, policy_id: str, scope: str, scope_id: UUID, **who: Any) -> Answer:
    body = {"scope": scope, "scope_id": str(scope_id)}
    return await policy.ask("POST", f"/v1/policies/{policy_id}/assignments", body, **who)


async def test_an_assigned_policy_reaches_workload_with_every_revision_until_its_end(policy: Lone) -> None:
    await policy.tell(resource(), inventory())
    made = await create(policy)
    path = f"/v1/policies/{made['id']}"

    assert (await assign(policy, made["id"], "cluster", CLUSTER)).status == 201
    revised = await policy.ask("PUT", path, {**DOCUMENT, "max_share": 0.5}, headers={"If-Match": '"1"'})
    assert (revised.status, revised.body["revision"], revised.headers["etag"]) == (200, 2, '"2"')
    assert (await policy.ask("DELETE", path)).status == 409
    assert (await policy.ask("DELETE", f"{path}/assignments/cluster/{CLUSTER}")).status == 204
    assert (await assign(policy, made["id"], "cluster", CLUSTER)).status == 201

    heard = [event for event in await policy.hear(4) if isinstance(event, PolicyAssigned)]
    heard.sort(key=lambda event: event.revision)
    assert [(event.revision, event.policy_revision, event.gone) for event in heard] == [
        (1, 1, False), (2, 2, False), (3, 2, True), (4, 2, False),
    ]  # fmt: skip
    assert {event.scope_id for event in heard} == {CLUSTER}
    assert {event.scope for event in heard} == {Scope.CLUSTER}
    assert parse(heard[0].document).max_share == 1.0
    assert parse(heard[1].document).max_share == 0.5
    assert (await policy.ask("DELETE", f"{path}/assignments/cluster/{CLUSTER}")).status == 204
    assert (await policy.ask("DELETE", path)).status == 204
    assert (await policy.ask("GET", path)).status == 404
