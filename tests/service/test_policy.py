"""Policy, from outside: what an operator can do, and what workload hears."""

import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from time import perf_counter
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


async def test_what_is_assigned_late_twice_or_elsewhere_moves_only_its_own_revision(policy: Lone) -> None:
    await policy.tell(inventory(2), inventory(1), resource(5), resource(4))
    one, two = await create(policy), await create(policy, name="days")

    for made in (one, two, two):
        assert (await assign(policy, made["id"], "resource", RESOURCE)).status == 201
    assert (await policy.ask("DELETE", f"/v1/policies/{one['id']}")).status == 204

    heard = sorted(
        (event for event in await policy.hear(3) if isinstance(event, PolicyAssigned)),
        key=lambda event: event.revision,
    )
    assert [(event.revision, event.policy_name) for event in heard] == [
        (1, "nights"),
        (2, "days"),
        (3, "days"),
    ]
    listed = await policy.ask("GET", f"/v1/policies/{two['id']}/assignments", role=Role.VIEWER)
    assert [(item["scope"], item["scope_id"]) for item in listed.body["items"]] == [
        ("resource", str(RESOURCE))
    ]


async def test_assignments_end_with_their_resource(policy: Lone) -> None:
    await policy.tell(resource(), inventory())
    made = await create(policy)
    await assign(policy, made["id"], "resource", RESOURCE)
    await assign(policy, made["id"], "cluster", CLUSTER)

    await policy.tell(resource(9, gone=True), resource(9, gone=True), resource(8))

    heard = [event for event in await policy.hear(4) if isinstance(event, PolicyAssigned) and event.gone]
    assert {event.scope_id for event in heard} == {RESOURCE, CLUSTER}
    assert (await policy.ask("DELETE", f"/v1/policies/{made['id']}")).status == 204
    again = await create(policy)
    assert (await assign(policy, again["id"], "resource", RESOURCE)).field == "scope_id"


async def test_an_assignment_ends_with_its_resource_though_its_cluster_has_gone_before(policy: Lone) -> None:
    made = await create(policy)
    await policy.tell(resource(), inventory())
    assert (await assign(policy, made["id"], "cluster", CLUSTER)).status == 201
    await policy.tell(inventory(2).model_copy(update={"clusters": (), "gone": True}))
    await policy.tell(resource(2, gone=True))

    *_, ended = [event for event in await policy.hear(2) if isinstance(event, PolicyAssigned)]
    assert (ended.scope_id, ended.revision, ended.gone) == (CLUSTER, 2, True)
    assert (await policy.ask("DELETE", f"/v1/policies/{made['id']}")).status == 204


async def test_an_id_is_good_once_its_owner_is_known_and_for_an_administrator_at_once(policy: Lone) -> None:
    made = await create(policy)
    unknown = await assign(policy, made["id"], "cluster", CLUSTER)
    assert (unknown.status, unknown.field) == (422, "scope_id")

    await policy.tell(inventory())

    for scope, scope_id in (("cluster", CLUSTER), ("resource", RESOURCE)):
        early = await assign(policy, made["id"], scope, scope_id)
        assert (early.status, early.field) == (422, "scope_id")
        assert early.body["remedy"] == "Try again in a moment."
        assert (await assign(policy, made["id"], scope, scope_id, role=Role.ADMIN)).status == 201

    await policy.tell(resource(organisation=THEIRS))
    assert (await assign(policy, made["id"], "cluster", CLUSTER)).status == 422
    await policy.tell(resource(2))
    assert (await assign(policy, made["id"], "cluster", CLUSTER)).status == 201
    assert (await assign(policy, made["id"], "resource", RESOURCE)).status == 201


async def test_a_revision_must_name_what_it_was_made_from_and_stays_for_ever(policy: Lone) -> None:
    made = await create(policy)
    path = f"/v1/policies/{made['id']}"
    assert (await policy.ask("PUT", path, DOCUMENT)).status == 428
    assert (
        await policy.ask("PUT", path, {**DOCUMENT, "sigma": 5}, headers={"If-Match": '"1"'})
    ).status == 200
    assert (await policy.ask("PUT", path, DOCUMENT, headers={"If-Match": '"1"'})).status == 412

    found = (await policy.ask("GET", f"{path}/revisions", role=Role.VIEWER)).body["items"]

    assert [(item["revision"], item["document"]["sigma"]) for item in found] == [(2, 5.0), (1, 6.0)]
    assert parse(found[1]["document"]) == parse(DOCUMENT)
    assert found[0]["created_by"] == "someone"


async def test_yaml_says_the_same_as_json_and_times_stay_times(policy: Lone) -> None:
    text = """
name: nights
machine: {template: boinc-worker, vcpus: 4, memory_mib: 4096, disk_gib: 20}
windows:
  - days: [mon]
    start: 22:00
    end: 06:00
"""
    made = await policy.ask("POST", "/v1/policies", data=text, headers={"Content-Type": "application/yaml"})

    assert made.status == 201, made.body
    assert parse(made.body["document"]) == parse(DOCUMENT)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"cpu": {"idle": 0.5, "stop_new": 0.4, "reclaim": 0.8}}, "cpu.stop_new"),
    ({"machine": {**DOCUMENT["machine"], "vcpus": 0}}, "machine.vcpus"),
    ({"max_shares": 1}, "max_shares"),
    ({"name": "a\tb"}, "name"),
    ({"time_zone": "../../etc/passwd"}, "time_zone"),
    ({"max_machines": 10**30}, "body"),
]


async def test_a_wrong_document_is_told_by_its_field(policy: Lone) -> None:
    for path in ("/v1/policies/validate", "/v1/policies"):
        for changes, field in WRONG:
            answer = await policy.ask("POST", path, {**DOCUMENT, **changes})
            assert (answer.status, answer.field) == (422, field), answer.body
    assert (await policy.ask("POST", "/v1/policies/validate", DOCUMENT)).body == {
        "ok": True,
        "name": "nights",
    }


HOSTILE = [
    ("application/yaml", "a: &a [1]\nb: *a", 422),
    ("application/yaml", "!!python/object/apply:os.system ['true']", 422),
    ("application/yaml", "[" * 5000, 422),
    ("application/yaml", "[" * 500, 422),
    ("application/yaml", "a: [" + "b," * 30_000 + "]", 422),
    ("application/yaml", "- " * 30_000, 422),
    ("application/yaml", "? " * 30_000, 422),
    ("application/yaml", "{a: " * 499, 422),
    ("application/yaml", "!" * 60_000, 422),
    ("application/yaml", "a: " + "'" * 60_000, 422),
    ("application/yaml", "- just\n- a list", 422),
    ("application/yaml", "name: 2026-11-20", 422),
    ("application/yaml", "name: .nan", 422),
    ("application/yaml", "\x00", 422),
    ("application/json", '{"name": "a\\u0000b"}', 422),
    ("text/plain", '{"name": "a\\u0000b"}', 422),
    ("application/yaml", "name: " + "x" * 70_000, 413),
    ("text/plain", "[" * 100, 422),
    ("text/plain", '{"a":' * 100_000, 413),
]


async def test_hostile_bodies_are_refused_with_a_sentence(policy: Lone) -> None:
    for kind, body, status in HOSTILE:
        began = perf_counter()
        answer = await policy.ask("POST", "/v1/policies", data=body, headers={"Content-Type": kind})

        assert answer.status == status, answer.body
        assert body[:20] not in answer.body["detail"]
        assert perf_counter() - began < 3, body[:20]


async def test_names_are_unique_and_pages_follow_each_other(policy: Lone) -> None:
    made = [await create(policy, name=f"policy {number}") for number in range(3)]
    assert (await policy.ask("POST", "/v1/policies", {**DOCUMENT, "name": "policy 1"})).status == 409

    first = (await policy.ask("GET", "/v1/policies?limit=2", role=Role.VIEWER)).body
    rest = (await policy.ask("GET", f"/v1/policies?cursor={first['next_cursor']}")).body

    assert [item["id"] for item in first["items"] + rest["items"]] == [item["id"] for item in made]
    assert rest["next_cursor"] is None


async def test_roles_and_organisations_keep_apart(policy: Lone) -> None:
    await policy.tell(resource(organisation=THEIRS), inventory())
    made = await create(policy)
    path = f"/v1/policies/{made['id']}"

    assert (await policy.ask("GET", path, role=None)).status == 401
    assert (await policy.ask("POST", "/v1/policies", DOCUMENT, role=Role.VIEWER)).status == 403
    assert (await policy.ask("GET", path, organisation=THEIRS)).status == 404
    assert (await policy.ask("GET", "/v1/policies", organisation=THEIRS)).body["items"] == []
    assert (await policy.ask("GET", path, organisation=THEIRS, role=Role.ADMIN)).status == 200
    assert (await assign(policy, made["id"], "cluster", CLUSTER)).field == "scope_id"
    assert (await assign(policy, made["id"], "cluster", CLUSTER, role=Role.ADMIN)).status == 201


async def test_every_preset_is_a_policy_once_it_has_a_machine(policy: Lone) -> None:
    presets = (await policy.ask("GET", "/v1/policies/presets", role=Role.VIEWER)).body["items"]

    assert {item["name"] for item in presets} >= {"balanced", "gentle", "greedy"}
    for item in presets:
        whole = {**item["document"], "machine": DOCUMENT["machine"]}
        assert (await policy.ask("POST", "/v1/policies/validate", whole)).status == 200


def samples(count: int, owner_mhz: float) -> list[dict[str, Any]]:
    return [
        {
            "cluster": "domain-c1", "name": "East", "at": (NOW + timedelta(seconds=20 * number)).isoformat(),
            "interval_s": 20, "hosts": ["h1"], "host_names": ["esx-1"], "states": ["connected"],
            "cpu_capacity_mhz": [40000], "cpu_used_mhz": [owner_mhz], "cpu_ours_mhz": [0], "cpu_limit_mhz": [0],
            "memory_capacity_mib": [131072], "memory_used_mib": [20000], "memory_ours_mib": [0],
            "contention_percent": [None], "machines": [0],
        }
        for number in range(count)
    ]  # fmt: skip


async def test_a_dry_run_shows_what_would_have_been_decided_and_why(policy: Lone) -> None:
    made = await create(policy, windows=[])
    path = f"/v1/policies/{made['id']}/dry-runs"
    idle, busy = samples(60, 4000), samples(60, 39000)

    quiet = (await policy.ask("POST", path, {"samples": idle[::-1]}, role=Role.VIEWER)).body["decisions"]
    loud = (await policy.ask("POST", path, {"samples": busy})).body["decisions"]
    paused = (await policy.ask("POST", path, {"samples": idle, "facts": {"paused": "by Ann"}})).body[
        "decisions"
    ]

    assert len(quiet) == 60
    assert [item["at"] for item in quiet] == sorted(item["at"] for item in quiet)
    assert (quiet[-1]["verdict"], quiet[-1]["wanted"], quiet[-1]["rung"]) == ("idle", 1, "lend")
    assert quiet[-1]["budgets_mhz"]["h1"] > 20000
    assert quiet[-1]["reason"].startswith("lending")
    assert (loud[-1]["verdict"], loud[-1]["wanted"], loud[-1]["code"]) == ("busy", 0, "owner_cpu")
    assert "owner CPU 97.5 % is above reclaim" in loud[-1]["reason"]
    assert (paused[-1]["wanted"], paused[-1]["code"]) == (0, "paused")


async def test_a_dry_run_has_bounds(policy: Lone) -> None:
    made = await create(policy)
    path = f"/v1/policies/{made['id']}/dry-runs"

    assert (await policy.ask("POST", path, {"samples": []})).field == "samples"
    many = io.BytesIO(json.dumps({"samples": samples(1, 1) * 10_001}).encode())
    json_headers = {"Content-Type": "application/json"}
    assert (await policy.ask("POST", path, data=many, headers=json_headers)).field == "samples"
    odd = {**samples(1, 1)[0], "hosts": []}
    assert (await policy.ask("POST", path, {"samples": [odd]})).body["decisions"][0]["code"] == "impossible"
    naive = {**samples(1, 1)[0], "at": "0001-01-01T00:00:00"}
    assert (await policy.ask("POST", path, {"samples": [naive, *samples(1, 1)]})).status == 200
