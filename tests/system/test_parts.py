"""The real servers of the tests answer, keep tests apart, and survive what chaos tests do to them."""

import asyncio
import ssl

import aio_pika
import aiohttp
import asyncpg
import pytest
from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim

from tests.support import until
from tools.parts.postgres import PostgresServer
from tools.parts.rabbitmq import RabbitNode
from tools.parts.vcsim import Vcsim


async def count_tables(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        found = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        return int(found)
    finally:
        await connection.close()


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_an_empty_database(database_url: str, turn: int) -> None:
    assert await count_tables(database_url) == 0

    connection = await asyncpg.connect(database_url)
    await connection.execute("CREATE TABLE left_behind (id int)")
    # Left open on purpose: dropping the database must cut it.
    connection.terminate()

    assert await count_tables(database_url) == 1


async def test_a_killed_postgres_comes_back_with_what_was_committed(private_postgres: PostgresServer) -> None:
    url = await private_postgres.create_database("kept")
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS answer")
    await connection.execute("CHECKPOINT")
    await private_postgres.kill()
    connection.terminate()
    with pytest.raises(OSError, match=r"socket|refused|No such file"):
        await asyncpg.connect(url)

    await private_postgres.start()

    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT answer FROM kept") == 7
    await connection.close()


async def publish(url: str, text: bytes) -> int:
    """Put a message into the quorum queue `kept` and answer how many are there."""
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        message = aio_pika.Message(text, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, routing_key="kept")
        return await count_messages(channel)


async def count_messages(channel: aio_pika.abc.AbstractChannel) -> int:
    queue = await channel.declare_queue("kept", passive=True)
    return int(queue.declaration_result.message_count or 0)


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_an_empty_broker(amqp_url: str, turn: int) -> None:
    assert await publish(amqp_url, b"left behind") == 1


@pytest.mark.chaos
async def test_a_killed_broker_comes_back_at_its_address_with_its_messages(
    private_rabbitmq: RabbitNode,
) -> None:
    url = await private_rabbitmq.add_vhost("chaos")
    assert await publish(url, b"first") == 1
    await private_rabbitmq.kill()
    with pytest.raises(OSError, match="Connect"):
        await aio_pika.connect(url)

    await private_rabbitmq.start()

    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        queue = await channel.get_queue("kept")
        message = await until(lambda: queue.get(fail=False), what="the message is back")
        assert message.body == b"first"


def connect(vcsim: Vcsim, password: str) -> vim.ServiceInstance:
    context = ssl.create_default_context(cafile=str(vcsim.ca_file))
    instance: vim.ServiceInstance = SmartConnect(
        host=vcsim.host, port=vcsim.port, user=vcsim.username, pwd=password, sslContext=context
    )
    return instance


def host_use(instance: vim.ServiceInstance) -> dict[str, int]:
    content = instance.RetrieveContent()
    assert content.viewManager is not None
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True)
    return {host._moId: host.summary.quickStats.overallCpuUsage for host in view.view}


async def test_vcsim_shows_the_load_that_a_test_sets(vcsim: Vcsim) -> None:
    instance = await asyncio.to_thread(connect, vcsim, vcsim.password)
    hosts = await asyncio.to_thread(host_use, instance)
    assert len(hosts) == 3
    busy = sorted(hosts)[0]

    await vcsim.set_host_load(busy, cpu_mhz=1234, mem_mb=2048)

    assert (await asyncio.to_thread(host_use, instance))[busy] == 1234
    await asyncio.to_thread(Disconnect, instance)


async def test_vcsim_refuses_a_wrong_password(vcsim: Vcsim) -> None:
    with pytest.raises(vim.fault.InvalidLogin):
        await asyncio.to_thread(connect, vcsim, "wrong")


async def test_vcsim_is_trusted_through_its_own_authority_alone(vcsim: Vcsim) -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.get(vcsim.url)
