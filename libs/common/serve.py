"""HTTP for a process: one socket, every service's app behind its prefix, health, readiness and metrics beside them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import uvicorn
from prometheus_client import CollectorRegistry

from libs.common.app import compose_site
from libs.common.readiness import Readiness
from libs.common.service import Service
from libs.common.settings import Settings
from libs.common.tracing import OFF, Tracing

STOP_WITHIN_S = 3


class CannotListen(Exception):
    """The address is taken or not allowed; the message names the settings to change."""


@asynccontextmanager
async def serving(
    services: Sequence[Service],
    settings: Settings,
    registry: CollectorRegistry,
    readiness: Readiness,
    tracing: Tracing = OFF,
) -> AsyncIterator[str]:
    """Serve until the block ends; yields the base URL. Port 0 takes a free one.

    Every app finds `state.stopping`, an event: answers without end are over when it is set.
    """
    for service in services:
        service.app.state.stopping = readiness.stopping
    listener = _listen(settings.host, settings.port)
    site = compose_site(services, settings, registry, readiness, tracing)
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
        readiness.stopping.set()
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
