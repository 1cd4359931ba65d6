"""Services that lost their databases, in a whole installation: they ask, and know again what the others know."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from libs.common import personal_tokens
from libs.common.secrets import fresh_key
from libs.providers.simulated import ClusterDefinition, SimulatedSettings, create_cloud, driver
from services.contribution.usecases import lending as contribution
from services.monitor import usecases as monitor
from services.policy import usecases as policy
from services.registry.usecases import hearing as registry
from services.templates import usecases as templates
from tests.service.whole_house import PASSWORD, POLICY, WEAK_KEY, Whole, open_whole
from tests.support import until

PROJECTIONS = {
    "workload.resource": "id, revision, organisation_id, name, url, sealed_secret, mode, gone",
    "workload.assignment": "scope, scope_id, revision, gone, case when gone then null else document end",
    "workload.template": "version_id, revision, name, version, reference, state",
    "workload.contribution": "id, revision, project_name, weight, active, resource_ids, sealed_authenticator",
    "workload.cluster join workload.resource r on r.id = resource_id and not r.gone": "cluster.id, cluster.name",
    "stats.resource": "id, revision, organisation_id, name, gone",
    "stats.inventory": "resource_id, revision",
    "policy.known_resource": "resource_id, organisation_id, revision, inventory_revision, gone",
    "policy.known_cluster": "cluster_id, resource_id, name",
    "templates.known_resource": "resource_id, revision, url, sealed_secret, gone",
}
"""What others have said, by table: the columns that say it."""


@pytest.fixture
def urls() -> Iterator[list[str]]:
    addresses = [f"sim://{uuid4().hex}" for _ in range(3)]
    shape = SimulatedSettings(interval_s=1, clusters=(ClusterDefinition(name="lab", hosts=1, cores=8),))
    for address in addresses:
        create_cloud(address, PASSWORD, shape)
    yield addresses
    for address in addresses:
        driver.forget_cloud(address)


@pytest.fixture
def lasting() -> dict[str, Any]:
    """What an installation keeps over a restart."""
    return {
        "sealing_keys": f"k1:{fresh_key()}",
        "bootstrap_admin_token": personal_tokens.fresh(),
        "installation_id": str(uuid4()),
    }


async def _register(whole: Whole, name: str, url: str) -> str:
    given = {
        "name": name, "provider": "simulated", "url": url, "username": "tides", "password": PASSWORD, "interval_s": 1,
    }  # fmt: skip
    made: str = (await whole.made("/v1/resources", given))["id"]
    return made


async def _end(whole: Whole, path: str) -> None:
    answer = await whole.ask("DELETE", path)
    assert answer.status in (202, 204), answer.body


async def _furnish(whole: Whole, urls: list[str]) -> None:
    """Two of everything that others publish, one of which ends; and a resource whose inventory ends with it."""
    first, second, gone = [await _register(whole, f"lab {n}", url) for n, url in enumerate(urls)]
    await until(lambda: _clusters(whole, 3), timeout=30, what="clusters")
    for name in ("worker", "old"):
        given = {"name": name, "resource_id": first, "reference": "boinc-worker"}
        made = await until(lambda given=given: whole.accepted("/v1/templates", given), what="templates")  # type: ignore[misc]
        await whole.made(f"/v1/templates/{made['id']}/versions/1/approve", None)
    await whole.made(f"/v1/templates/{made['id']}/versions/1/revoke", None)
    for name, resource_id in (("kept", first), ("ended", second)):
        rules = await whole.made("/v1/policies", POLICY | {"name": name})
        path = f"/v1/policies/{rules['id']}"
        await whole.made(f"{path}/assignments", {"scope": "resource", "scope_id": resource_id})
        project = await whole.made("/v1/projects", {"name": name, "url": f"https://{name}.example/"})
        lent = {"project_id": project["id"], "weight": 1, "authenticator": WEAK_KEY}
        given = await whole.made("/v1/contributions", lent)
    await _end(whole, f"{path}/assignments/resource/{second}")
    await _end(whole, path)
    await _end(whole, f"/v1/contributions/{given['id']}")
    await _end(whole, f"/v1/resources/{gone}")
    await until(lambda: _resources(whole, 2), timeout=30, what="the end of a resource")


async def _clusters(whole: Whole, resources: int) -> bool:
    known = await whole.fetch("select distinct resource_id from policy.known_cluster")
    return len(known) == resources


async def _resources(whole: Whole, count: int) -> bool:
    return len(await whole.items("/v1/resources")) == count


async def _known(whole: Whole) -> dict[str, list[str]]:
    """Every projection, in a form that compares."""
    return {
        table: sorted(str(tuple(row.values())) for row in await whole.fetch(f"select {columns} from {table}"))
        for table, columns in PROJECTIONS.items()
    }


async def _published(whole: Whole) -> list[str]:
    """The publishers' own rows: replay must change none of them."""
    queries = (
        "select id, revision from registry.resource",
        "select id, null from registry.gone_resource",
        "select id, inventory_revision from monitor.resource",
        "select scope_id, revision from policy.assignment",
        "select id, revision from templates.template_version",
        "select id, revision from contribution.contribution",
    )
    return [str(sorted(str(tuple(row.values())) for row in await whole.fetch(query))) for query in queries]


async def test_a_service_that_lost_its_database_learns_what_is_there_and_what_is_gone(
    database_url: str, urls: list[str], lasting: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for publisher in (contribution, monitor, policy, registry, templates):
        monkeypatch.setattr(publisher, "BATCH", 1)  # every state is a page of its own
    async with open_whole(database_url, **lasting) as whole:
        await _furnish(whole, urls)
        expected = await _settled(whole)
        published = await _published(whole)
    assert [len(rows) for rows in expected.values()] == [3, 2, 2, 2, 2, 3, 3, 3, 2, 3]

    await whole.fetch("drop schema workload cascade")
    await whole.fetch("drop schema stats cascade")
    await whole.fetch("truncate policy.known_resource, policy.known_cluster, templates.known_resource")
    async with open_whole(database_url, **lasting) as whole:
        await until(lambda: _knows(whole, expected), timeout=30, what="everything to be known again")
        assert await _published(whole) == published


async def _settled(whole: Whole) -> dict[str, list[str]]:
    """What is known once nothing is on its way any more."""

    async def quiet() -> bool:
        return whole.run.activity.is_idle and await whole.run.bus.depth() == 0

    await until(quiet, timeout=30, what="the installation to be quiet")
    return await _known(whole)


async def _knows(whole: Whole, expected: dict[str, list[str]]) -> bool:
    known = await _known(whole)
    return {table: rows for table, rows in known.items() if rows != expected[table]} == {}
