"""New sealing keys, in a whole installation: what an old key sealed follows, and the old key can be taken away."""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families

from libs.boinc.web import password_hash
from libs.common import personal_tokens, rotation
from libs.common.secrets import fresh_key
from libs.providers.simulated import ClusterDefinition, OwnerProfile, SimulatedSettings, create_cloud, driver
from tests.boinclab.web import serving
from tests.service.whole_house import PASSWORD, POLICY, WEAK_KEY, Whole, open_whole
from tests.support import until

OLD, NEW = f"old:{fresh_key()}", f"new:{fresh_key()}"
SECRETS = {
    "registry": {"resource.sealed_secret", "resource.sealed_alternate"},
    "monitor": {"resource.sealed_secret"},
    "templates": {"known_resource.sealed_secret"},
    "contribution": {
        "contribution.sealed_authenticator",
        "account.sealed_login",
        "account.sealed_strong_key",
        "account.sealed_weak_key",
    },
    "workload": {"resource.sealed_secret", "contribution.sealed_authenticator", "machine.sealed_guest_token"},
}


@pytest.fixture
def url() -> Iterator[str]:
    address = f"sim://{uuid4().hex}"
    lab = ClusterDefinition(name="lab", hosts=2, owner=OwnerProfile.IDLE, cores=8, datastore_gib=4096)
    create_cloud(address, PASSWORD, SimulatedSettings(interval_s=1, clone_s=0, boot_s=0, clusters=(lab,)))
    yield address
    driver.forget_cloud(address)


async def _lend(whole: Whole, url: str) -> None:
    """Everything that a machine needs, with secrets in all of it."""
    given = {
        "name": "Lab", "provider": "simulated", "url": url, "username": "tides", "password": PASSWORD, "interval_s": 1,
    }  # fmt: skip
    resource_id = (await whole.made("/v1/resources", given))["id"]
    alternate = {"alternate": {"username": "tides-2", "password": PASSWORD}}
    path, seen = f"/v1/resources/{resource_id}", {"If-Match": "*"}
    assert (await whole.ask("PATCH", path, alternate, headers=seen)).status == 200
    template = {"name": "worker", "resource_id": resource_id, "reference": "boinc-worker"}
    made = await until(lambda: whole.accepted("/v1/templates", template), what="templates")
    await whole.made(f"/v1/templates/{made['id']}/versions/1/approve", None)
    rules = await whole.made("/v1/policies", POLICY | {"max_machines": 1})
    where = {"scope": "resource", "scope_id": resource_id}
    await whole.made(f"/v1/policies/{rules['id']}/assignments", where)
    project = await whole.made("/v1/projects", {"name": "P", "url": "https://p.example/"})
    lent = {"project_id": project["id"], "weight": 1, "authenticator": WEAK_KEY}
    await whole.made("/v1/contributions", lent)
    await whole.made(f"/v1/resources/{resource_id}/mode", {"mode": "lend"})


async def _store_accounts(whole: Whole) -> None:
    """An account that is let in, and one whose login waits for a project that is away."""
    async with serving("up") as up, serving("away") as away:
        ids = [
            (await whole.made("/v1/projects", {"name": one.name, "url": one.url, "verify": True}))["id"]
            for one in (up, away)
        ]
        up.user("e@x.example", password_hash(PASSWORD, "e@x.example"))
        away.stopped = True
        for project_id in ids:
            asked = {"project_id": project_id, "email": "e@x.example", "password": PASSWORD}
            await whole.made("/v1/accounts", asked)

        async def let_in() -> bool:
            return [one["state"] for one in await whole.items("/v1/accounts")] == ["ready", "asked"]

        await until(let_in, timeout=20, what="an account")


async def _running(whole: Whole) -> list[dict[str, Any]]:
    return [machine for machine in await whole.items("/v1/machines") if machine["state"] == "running"]


async def _sealed_by(whole: Whole) -> dict[str, set[str]]:
    """By place, the keys of every sealed secret in the database, wherever a service keeps one."""
    columns = await whole.fetch(
        "select table_schema, table_name, column_name from information_schema.columns"
        " where column_name like 'sealed\\_%'"
    )
    places = [(row["table_schema"], row["table_name"], row["column_name"]) for row in columns]
    found = {}
    for schema, table, column in places:
        query = (
            f"select distinct split_part({column}, '.', 1) as key from {schema}.{table} where {column} <> ''"
        )
        found[f"{schema}.{table}.{column}"] = {row["key"] for row in await whole.fetch(query)}
    return found


async def _counts(whole: Whole) -> dict[tuple[str, ...], float]:
    """What `/metrics` says, by service, secret and key id."""
    async with whole.http.get(f"{whole.run.url}/metrics") as answer:
        families = text_string_to_metric_families(await answer.text())
    samples = [one for family in families if family.name == "tides_sealed_secrets" for one in family.samples]
    labels = ("service", "secret", "key_id")
    return {tuple(one.labels[label] for label in labels): one.value for one in samples}


async def test_every_secret_follows_the_newest_key(
    database_url: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.runner.RESEAL_EVERY_S", 0.2)
    monkeypatch.setattr(rotation, "BATCH", 1)
    lasting = {"bootstrap_admin_token": personal_tokens.fresh(), "installation_id": str(uuid4())}

    def installation(*keys: str) -> AbstractAsyncContextManager[Whole]:
        return open_whole(database_url, sealing_keys=",".join(keys), **lasting)

    async with installation(OLD) as whole:
        await _lend(whole, url)
        await _store_accounts(whole)
        await until(lambda: _running(whole), timeout=40, what="a machine")
        before = await _sealed_by(whole)
    places = {f"{service}.{secret}" for service, secrets in SECRETS.items() for secret in secrets}
    assert before == {place: {"old"} for place in places}

    async with installation(OLD, NEW) as whole:

        async def followed() -> bool:
            return await _sealed_by(whole) == {place: {"new"} for place in places}

        await until(followed, timeout=30, what="every secret to be sealed by the new key")

        async def counted() -> dict[tuple[str, ...], float]:
            counts = await _counts(whole)
            return counts if counts.keys() >= everything and all(counts[one] for one in everything) else {}

        everything = {(service, secret, "new") for service, secrets in SECRETS.items() for secret in secrets}
        counts = await until(counted, what="the counts by key")
        assert {one for one, secrets in counts.items() if secrets} == everything

    async with installation(NEW) as whole:
        (machine,) = await _running(whole)
        answer = await whole.ask("POST", f"/v1/machines/{machine['id']}/drain", {"reason": "another, please"})
        assert answer.status == 202, answer.body

        async def replaced() -> bool:
            return any(other["id"] != machine["id"] for other in await _running(whole))

        await until(replaced, timeout=60, what="a machine that is made with the new key alone")
