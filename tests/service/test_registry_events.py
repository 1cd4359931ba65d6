"""Registry and the others: what it takes from monitor, and new keys."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest

from libs.common.auth import Signer, generate_signing_keys
from libs.common.contracts.resource import (
    ClusterFacts,
    HostFacts,
    InventoryChanged,
    ResourceChanged,
    ResourceDegraded,
    ResourceRecovered,
)
from libs.common.ids import cluster_id
from libs.common.runner import running
from libs.common.secrets import fresh_key
from libs.common.settings import Settings
from libs.providers.base import sealing_context
from libs.providers.simulated import create_cloud, driver
from services.registry.main import build
from tests.service.lone_service import Lone, _listening, as_an_older_process_left_it, serve

PASSWORD = "correct horse"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
async def registry(database_url: str) -> AsyncIterator[Lone]:
    async with serve(build, "registry", database_url) as lone:
        yield lone


@pytest.fixture
def url() -> Iterator[str]:
    address = f"sim://{uuid4().hex}"
    create_cloud(address, PASSWORD)
    yield address
    driver.forget_cloud(address)


async def register(registry: Lone, url: str) -> UUID:
    given = {"name": "Lab", "provider": "simulated", "url": url, "username": "tides", "password": PASSWORD}
    made = await registry.ask("POST", "/v1/resources", given)
    assert made.status == 201, made.body
    return UUID(made.body["id"])


async def health(registry: Lone, resource_id: UUID) -> tuple[Any, Any]:
    found = (await registry.ask("GET", f"/v1/resources/{resource_id}")).body["health"]
    return found["state"], found["cause"]


async def test_outages_and_their_ends_are_shown_in_the_order_of_their_times(registry: Lone, url: str) -> None:
    resource_id = await register(registry, url)
    degraded = ResourceDegraded(at=NOW, resource_id=resource_id, cause="auth", detail="wrong password")
    recovered = ResourceRecovered(at=NOW + timedelta(minutes=5), resource_id=resource_id, outage_s=300)

    await registry.tell(degraded)
    assert await health(registry, resource_id) == ("degraded", "auth")
    await registry.tell(recovered)
    assert await health(registry, resource_id) == ("ok", None)
    await registry.tell(ResourceDegraded(at=NOW, resource_id=resource_id, cause="tls", detail="late"))
    assert await health(registry, resource_id) == ("ok", None)
    await registry.tell(ResourceDegraded(at=NOW, resource_id=uuid4(), cause="tls", detail="a stranger"))


async def test_the_newest_inventory_is_shown(registry: Lone, url: str, database_url: str) -> None:
    resource_id = await register(registry, url)

    def inventory(revision: int, hosts: int) -> InventoryChanged:
        made_of: dict[str, Any] = {"threads": 16, "numa_nodes": 2, "gpus": 1, "gpu_models": ("A40",)}
        facts = tuple(
            HostFacts(f"host-{n}", f"esx{n}", 20_800.0, 65_536.0, 8, **(made_of if n else {}))
            for n in range(hosts)
        )
        cluster = ClusterFacts(cluster_id(resource_id, "domain-c1"), "domain-c1", "East", facts)
        return InventoryChanged(at=NOW, revision=revision, resource_id=resource_id, clusters=(cluster,))

    await registry.tell(inventory(2, 3), inventory(1, 2))

    shown = (await registry.ask("GET", f"/v1/resources/{resource_id}")).body
    (cluster,) = shown["clusters"]
    assert cluster["id"] == str(cluster_id(resource_id, "domain-c1"))
    assert (cluster["reference"], cluster["name"], cluster["cores"]) == ("domain-c1", "East", 24)
    assert (cluster["cpu_mhz"], cluster["memory_mib"], len(cluster["hosts"])) == (62_400.0, 196_608.0, 3)
    assert cluster["hosts"][0] == {
        "reference": "host-0", "name": "esx0", "cores": 8, "cpu_mhz": 20_800.0, "memory_mib": 65_536.0,
        "threads": None, "numa_nodes": None, "gpus": None, "gpu_models": [], "host_class": None,
    }  # fmt: skip
    other = cluster["hosts"][1]
    assert (other["threads"], other["numa_nodes"], other["gpus"]) == (16, 2, 1)
    assert (other["gpu_models"], other["host_class"]) == (["A40"], "medium_gpu")

    without = "update registry.resource set inventory = (inventory #- '{0,hosts,1,gpus}')"
    await as_an_older_process_left_it(database_url, without)
    await registry.tell(inventory(2, 3))
    shown = (await registry.ask("GET", f"/v1/resources/{resource_id}")).body
    assert shown["clusters"][0]["hosts"][1]["gpus"] == 1
    await registry.tell(inventory(2, 1))
    shown = (await registry.ask("GET", f"/v1/resources/{resource_id}")).body
    assert len(shown["clusters"][0]["hosts"]) == 3, "else the same revision is the same"
    assert shown["health"]["state"] == "ok"
    assert shown["revision"] == 1


@asynccontextmanager
async def restarted(database_url: str, keys: str, signing: tuple[str, str]) -> AsyncIterator[Lone]:
    private, verify_keys = signing
    given = {"database_url": database_url, "sealing_keys": keys, "verify_keys": verify_keys, "port": 0}
    settings = Settings.model_validate(given)
    async with running([build], settings) as run, aiohttp.ClientSession() as http:
        lone = Lone(run, Signer(private), http, settings.vault())
        async with _listening(lone, [ResourceChanged.key]):
            yield lone


async def test_secrets_follow_the_newest_key(database_url: str, url: str) -> None:
    signing = generate_signing_keys()
    old, new = f"old:{fresh_key()}", f"new:{fresh_key()}"
    async with restarted(database_url, old, signing) as registry:
        await register(registry, url)
        (first,) = await registry.hear(1)
    async with restarted(database_url, f"{old},{new}", signing) as registry:
        await registry.settle()
        newest = max(
            (one for one in registry.said if isinstance(one, ResourceChanged)), key=lambda one: one.revision
        )

    assert isinstance(first, ResourceChanged)
    assert (first.sealed_secret.partition(".")[0], newest.sealed_secret.partition(".")[0]) == ("old", "new")
    assert newest.revision == 2
    vault = Settings.model_validate({"sealing_keys": new}).vault()
    assert vault.open(newest.sealed_secret, sealing_context(url, None, None)) == PASSWORD


async def test_a_secret_whose_key_is_lost_is_asked_for_again(database_url: str, url: str) -> None:
    signing = generate_signing_keys()
    async with restarted(database_url, f"old:{fresh_key()}", signing) as registry:
        resource_id = await register(registry, url)
    async with restarted(database_url, f"new:{fresh_key()}", signing) as registry:
        path = f"/v1/resources/{resource_id}"
        refused = await registry.ask("POST", f"{path}/validate")
        assert (refused.status, refused.field) == (422, "password")
        mended = await registry.ask("PATCH", path, {"password": PASSWORD}, headers={"If-Match": '"1"'})
        assert mended.status == 200, mended.body
        assert (await registry.ask("POST", f"{path}/validate")).status == 200
