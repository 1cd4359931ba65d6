"""What RabbitMQ and PostgreSQL carry with nobody of ours between: the limits that the pipeline is measured against."""

import asyncio
import time
from collections.abc import Sequence
from uuid import uuid4

import aio_pika
import asyncpg

from libs.common.bus.base import Message
from libs.common.clock import WallClock

QUEUE = "bench.alone"


async def consume_alone(url: str, messages: Sequence[Message]) -> float:
    """Messages per second that one aio-pika consumer takes from a quorum queue and acknowledges, bodies unread."""
    connection = await aio_pika.connect_robust(url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.set_qos(prefetch_count=10)
        queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        for message in messages:
            body = aio_pika.Message(message.body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(body, routing_key=QUEUE)
        left, done = len(messages), asyncio.Event()

        async def take(delivered: aio_pika.abc.AbstractIncomingMessage) -> None:
            nonlocal left
            await delivered.ack()
            left -= 1
            if not left:
                done.set()

        began = time.perf_counter()
        await queue.consume(take)
        await asyncio.wait_for(done.wait(), 300)
        took = time.perf_counter() - began
        await queue.delete(if_unused=False, if_empty=False)
    return len(messages) / took


async def copy_alone(url: str, samples: int, hosts: int) -> float:
    """Samples per second: their host rows by COPY into a temporary table, then into a keyed one, repeats left out."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "create table bench_rows (cluster_id uuid, at timestamptz, host text, interval_s float8, "
            + ", ".join(f"m{number} float8" for number in range(8))
            + ", primary key (cluster_id, at, host))"
        )
        at = WallClock().now()
        rows = [
            (cluster, at, f"host-{number}", 20.0, *(1.0,) * 8)
            for cluster in (uuid4() for _ in range(samples))
            for number in range(hosts)
        ]
        began = time.perf_counter()
        async with connection.transaction():
            await connection.execute("create temporary table given (like bench_rows) on commit drop")
            await connection.copy_records_to_table("given", records=rows)
            await connection.execute("insert into bench_rows select * from given on conflict do nothing")
        return samples / (time.perf_counter() - began)
    finally:
        await connection.close()
