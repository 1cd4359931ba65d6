"""RabbitMQ, PostgreSQL and processes of services, as every bench of an installation needs them."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil

from libs.common.bus import open_bus
from libs.common.bus.base import Bus
from tests.system.processes import Deployment, Process
from tools.parts.postgres import PostgresServer
from tools.parts.rabbitmq import RabbitNode


@dataclass
class Parts:
    """An installation in which nothing runs yet, its bus, and a look into its database."""

    folder: Path
    deployment: Deployment
    rabbit_url: str
    bus: Bus
    database: asyncpg.Connection


@asynccontextmanager
async def opened_parts(code: Path | None = None) -> AsyncIterator[Parts]:
    """Private servers, gone at the end; services are those of the checkout `code`, or of this one."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rabbit, postgres = RabbitNode(), PostgresServer()
        for part in (rabbit, postgres):
            stack.push_async_callback(part.close)
            await part.start()
        url = await postgres.create_database("tides")
        deployment = Deployment(folder, url, rabbit.url, code=code)
        stack.push_async_callback(deployment.stop)
        bus = await open_bus(rabbit.url)
        stack.push_async_callback(bus.aclose)
        database = await asyncpg.connect(url)
        stack.push_async_callback(database.close)
        yield Parts(folder, deployment, rabbit.url, bus, database)


def cpu_s(process: Process) -> float:
    """CPU seconds of one of ours so far."""
    assert process.process is not None
    return spent_s(psutil.Process(process.process.pid))


def spent_s(process: psutil.Process) -> float:
    """CPU seconds of a process so far; 0 when it has ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
