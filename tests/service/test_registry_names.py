"""A name is one resource's in its organisation; what bore the same one before lives on."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from libs.providers.simulated import create_cloud, driver
from services.registry.main import build
from tests.service.lone_service import THEIRS, Answer, Lone, serve

PASSWORD = "correct horse"
_BACK = """
drop index uq_resource_name;
alter table resource drop column name_key, drop column requires_probe, drop column activated_at,
    drop column probe_id, drop column probe_until, drop column probe, drop column site, drop column declared,
    drop column alternate_username, drop column sealed_alternate, drop column alternate_since,
    drop column alternate_why, drop column first_try_at, drop column credential_revision, drop column stand_in_id;
update resource set name = 'LAB' where name = 'Other';
update alembic_version set version_num = '0003';
"""


@pytest.fixture
def urls() -> Iterator[list[str]]:
    addresses = [f"sim://{uuid4().hex}" for _ in range(4)]
    for address in addresses:
        create_cloud(address, PASSWORD)
    yield addresses
    for address in addresses:
        driver.forget_cloud(address)


async def register(registry: Lone, url: str, name: str, **who: Any) -> Answer:
    given = {"name": name, "provider": "simulated", "url": url, "username": "tides", "password": PASSWORD}
    return await registry.ask("POST", "/v1/resources", given, **who)


async def rename(registry: Lone, made: Answer, name: str) -> Answer:
    path = f"/v1/resources/{made.body['id']}"
    return await registry.ask("PATCH", path, {"name": name}, headers={"If-Match": "*"})


def is_refused(answer: Answer) -> bool:
    return (answer.status, answer.field, "another name" in str(answer.body)) == (409, "name", True)


async def test_a_name_is_given_once_in_an_organisation_whatever_its_capitals(
    database_url: str, urls: list[str]
) -> None:
    async with serve(build, "registry", database_url) as registry:
        at_once = await asyncio.gather(*(register(registry, url, "Straße") for url in urls[:3]))
        assert sorted(answer.status for answer in at_once) == [201, 409, 409]
        assert all(is_refused(answer) for answer in at_once if answer.status == 409)
        first = next(answer for answer in at_once if answer.status == 201)
        free = next(url for url, answer in zip(urls, at_once, strict=False) if answer.status == 409)

        assert is_refused(await register(registry, free, "STRASSE"))
        assert (await register(registry, free, "strasse", organisation=THEIRS)).status == 201
        second = await register(registry, urls[3], "East")
        assert is_refused(await rename(registry, second, "straße"))
        assert (await rename(registry, first, "STRASSE")).status == 200
        assert (await rename(registry, first, "West")).status == 200
        assert (await rename(registry, second, "straße")).status == 200


async def test_names_that_were_borne_twice_before_stay_and_are_given_to_nobody_else(
    database_url: str, urls: list[str]
) -> None:
    async with serve(build, "registry", database_url) as registry:
        for url, name in zip(urls, ("Lab", "Other"), strict=False):
            assert (await register(registry, url, name)).status == 201
    connection = await asyncpg.connect(database_url)
    await connection.execute("set search_path to registry")
    await connection.execute(_BACK)
    await connection.close()

    async with serve(build, "registry", database_url) as registry:
        items = (await registry.ask("GET", "/v1/resources")).body["items"]
        older, younger = (Answer(200, item, {}) for item in items)
        assert [older.body["name"], younger.body["name"]] == ["Lab", "LAB"]
        assert (await rename(registry, younger, "lab")).status == 200
        assert (await rename(registry, older, "Elsewhere")).status == 200
        assert is_refused(await register(registry, urls[2], "Lab"))
        assert (await rename(registry, younger, "Other")).status == 200
        assert (await register(registry, urls[2], "Lab")).status == 201


async def test_a_name_that_an_older_process_gave_is_taken_and_the_one_before_is_free(
    database_url: str, urls: list[str]
) -> None:
    async with serve(build, "registry", database_url) as registry:
        first = await register(registry, urls[0], "Lab")
        connection = await asyncpg.connect(database_url)
        # It knows of no key: it changes the name alone, and adds rows without one.
        await connection.execute("update registry.resource set name = 'Moved'")
        await connection.close()

        assert is_refused(await register(registry, urls[1], "moved"))
        second = await register(registry, urls[1], "Lab")
        assert second.status == 201, second.body
        assert is_refused(await rename(registry, second, "MOVED"))
        assert is_refused(await rename(registry, first, "lab"))
        assert (await rename(registry, first, "Elsewhere")).status == 200
        assert (await rename(registry, second, "Moved")).status == 200
