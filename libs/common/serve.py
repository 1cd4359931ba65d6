"""HTTP for a process: one socket, every service's app behind its prefix, health, readiness and metrics beside them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import uvicorn
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from libs.common.app import compose_site
from libs.common.bus.base import Bus
from libs.common.service import Service
from libs.common.settings import Settings

STOP_WITHIN_S = 5
READY_WITHIN_S = 3


class CannotListen(Exception):
    """The address is taken or not allowed; the message names the settings to change."""


@asynccontextmanager
async def serving(
    services: Sequence[Service], settings: Settings, registry: CollectorRegistry, bus: Bus
) -> AsyncIterator[str]:
    """Serve until the block ends; yields the base URL. Port 0 takes a free one.

    Every app finds `state.stopping`, an event: answers without end are over when it is set.
    """
    stopping = asyncio.Event()
    for service in services:
        service.app.state.stopping = stopping

    async def ready() -> dict[str, bool]:
        checks = {service.name: _answers(service) for service in services}
        return dict(zip(checks, await asyncio.gather(*checks.values()), strict=True))

    listener = _listen(settings.host, settings.port)
    site = compose_site(services, settings, registry, ready)
    config = uvicorn.Config(
        site,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([listener]))
    try:
        yield f"http://{settings.host}:{listener.getsockname()[1]}"
    finally:
        stopping.set()
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # without it, no TCP_NODELAY
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise CannotListen(
            f"cannot listen on {host}:{port} ({error.strerror}): set TIDES_HOST or TIDES_PORT"
        ) from None
    listener.listen(128)
    return listener


async def _answers(service: Service) -> bool:
    try:
        async with asyncio.timeout(READY_WITHIN_S), service.database.transaction() as session:
            await session.execute(text("select 1"))
    except Exception:
        return False
    return True
