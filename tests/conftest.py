"""Real servers for tests: those of `./dev test`, else started when first asked for."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from tools.parts import PartMissing, postgres, rabbitmq
from tools.parts.postgres import PostgresServer
from tools.parts.rabbitmq import RabbitNode
from tools.parts.vcsim import Vcsim

T = TypeVar("T")
P = TypeVar("P", Vcsim, RabbitNode, PostgresServer)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes begins first, so that at the end no core waits for one long test."""
    items.sort(key=lambda item: "system" not in item.path.parts)


def run_or_fail(act: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run to the end; a part that cannot be had fails the test with one sentence, it never skips it."""
    try:
        return asyncio.run(act())
    except PartMissing as missing:
        pytest.fail(str(missing), pytrace=False)


@asynccontextmanager
async def started(part: P) -> AsyncIterator[P]:
    """A part that is this test's alone."""
    try:
        await part.start()
        yield part
    except PartMissing as missing:
        pytest.fail(str(missing), pytrace=False)
    finally:
        await part.close()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The superuser's URL of the server that the session shares."""
    found = run_or_fail(postgres.find_running)
    server = PostgresServer()
    if found is None:
        run_or_fail(server.start)
    yield found or server.url
    run_or_fail(server.close)


@pytest.fixture(scope="session")
def broker_urls() -> Iterator[tuple[str, str]]:
    """The AMQP and the management URL of the broker that the session shares."""
    found = run_or_fail(rabbitmq.find_running)
    node = RabbitNode()
    if found is None:
        run_or_fail(node.start)
    yield found or (node.url, node.management_url)
    run_or_fail(node.close)


@pytest.fixture
async def database_url(postgres_url: str) -> AsyncIterator[str]:
    """A new, empty database for this test, as asyncpg takes it (about 20 ms)."""
    name = f"t_{uuid.uuid4().hex}"
    yield await postgres.create_database(postgres_url, name)
    await postgres.drop_database(postgres_url, name)


@pytest.fixture
async def amqp_url(broker_urls: tuple[str, str]) -> AsyncIterator[str]:
    """A new virtual host for this test."""
    url, management_url = broker_urls
    name = f"t-{uuid.uuid4().hex}"
    yield await rabbitmq.add_vhost(url, management_url, name)
    await rabbitmq.remove_vhost(management_url, name)


@pytest.fixture
async def vcsim() -> AsyncIterator[Vcsim]:
    """A vCenter of one cluster, three hosts and two machines; `vcsim.start(hosts=50)` makes it another."""
    async with started(Vcsim()) as server:
        yield server


@pytest.fixture
async def private_rabbitmq() -> AsyncIterator[RabbitNode]:
    """A broker of this test's own, to stop, kill and start (about five seconds each)."""
    async with started(RabbitNode()) as node:
        yield node


@pytest.fixture
async def private_postgres() -> AsyncIterator[PostgresServer]:
    """A server of this test's own, to restart and kill."""
    async with started(PostgresServer()) as server:
        yield server
