"""Reaching the servers of an installation at the start: one line says which setting, which host and why not."""

from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

import asyncpg
import structlog

from libs.common.bus import open_bus
from libs.common.bus.base import Bus, BusUnavailable, Queue
from libs.common.bus.retry import CONNECT_WITHIN_S, until_deadline
from libs.common.db import refusal_of_server
from libs.common.migrate import migrate
from libs.common.settings import Settings, variable_of

log = structlog.get_logger(__name__)

_PORTS = {"amqp": 5672, "amqps": 5671}
_CONNECT_S = 10.0
_WORDS = {
    "ConnectionRefusedError": "nothing listens there",
    "gaierror": "no host of this name is known",
    "TimeoutError": "no answer",
    "ProbableAuthenticationError": "it refuses the login; check user name and password",
}
_MIGRATE_TIMES = 10
_FINAL = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
"""What waiting does not mend: a wrong user or password, a database that is not there."""


class ServerUnreachable(Exception):
    """A server that is needed does not answer: one line with the setting, host and port, and never a password."""


async def reach_database(settings: Settings, within_s: float = CONNECT_WITHIN_S) -> None:
    """Wait until PostgreSQL takes a login. Raises ServerUnreachable, at once where waiting mends nothing."""
    lost = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError)
    url = settings.database_dsn.replace("postgresql+asyncpg://", "postgresql://", 1)
    _insist_on_readable("database_url", "PostgreSQL", url)
    final: list[Exception] = []
    is_told = False

    async def attempt() -> None:
        nonlocal is_told
        try:
            connection = await asyncpg.connect(url, timeout=_CONNECT_S)
        except _FINAL as error:
            final.append(error)
            return
        except lost as error:
            if not is_told:  # who started it should not have to guess what it waits for
                log.warning("server.awaited", setting="TIDES_DATABASE_URL", at=where(url), why=_words(error))
            is_told = True
            raise
        await connection.close()

    try:
        await until_deadline(attempt, lost, within_s)
    except BusUnavailable as error:
        raise _unreachable("database_url", "PostgreSQL", url, _words(error.__cause__)) from None
    if final:
        is_login = isinstance(final[0], asyncpg.InvalidAuthorizationSpecificationError)
        why = _WORDS["ProbableAuthenticationError"] if is_login else "it has no database of this name"
        raise _unreachable("database_url", "PostgreSQL", url, why)


async def migrate_reached(settings: Settings, schema: str, scripts: str) -> None:
    """`migrate`, begun again where the server goes away in the midst of it: all of it is one transaction.

    Raises ServerUnreachable, and whatever the migration itself raises.
    """
    for times_left in reversed(range(_MIGRATE_TIMES)):
        try:
            await migrate(settings.database_dsn, schema, scripts)
            return
        except Exception as error:
            if not times_left or not _is_outage(error):
                raise
            log.warning("schema.interrupted", schema=schema, error=type(error).__name__)
        await reach_database(settings)


def _is_outage(error: Exception) -> bool:
    """Whether the server went away, or says that it is about to."""
    return (
        isinstance(error, OSError | asyncpg.PostgresConnectionError | asyncpg.InterfaceError)
        or refusal_of_server(error) == "shutting_down"
        or bool(getattr(error, "connection_invalidated", False))
    )


async def reach_bus(settings: Settings, url: str | None = None) -> Bus:
    """The bus that the settings name, or that of `url`. Raises ServerUnreachable after 30 s."""
    url = url or settings.bus_dsn
    name = "RabbitMQ" if url.startswith("amqp") else "PostgreSQL"
    field = "bus_url" if settings.bus_url else "database_url"
    _insist_on_readable(field, name, url)
    try:
        return await open_bus(url)
    except BusUnavailable as error:
        raise _unreachable(field, name, url, _words(error.__cause__)) from None


async def declare_reached(settings: Settings, bus: Bus, queues: Sequence[Queue]) -> None:
    """Make sure that the queues exist, once the bus answers. Raises ServerUnreachable."""
    try:
        await bus.declare(queues)
    except BusUnavailable as error:
        url = settings.bus_dsn
        name, field = ("RabbitMQ" if url.startswith("amqp") else "PostgreSQL"), "bus_url"
        why = f"it did not make the queues ({_words(error.__cause__)}); look at its log and its disk and memory alarms"
        raise _unreachable(field if settings.bus_url else "database_url", name, url, why) from None


def where(url: str) -> str:
    """Host and port of a server's URL; empty where they cannot be told for sure. Never a user or a password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    # A password with an unescaped / or ? ends the host too early: what stands before it is no host.
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return ""
    host = host or (parse_qs(parts.query).get("host") or [""])[0]
    return f"{host}:{port or _PORTS.get(parts.scheme, 5432)}" if host else ""


def _insist_on_readable(field: str, server: str, url: str) -> None:
    """Raises ServerUnreachable for a URL that no waiting makes readable; nothing of it is repeated."""
    try:
        parts = urlsplit(url)
        hosts = parts.netloc.rpartition("@")[2].split(",")  # PostgreSQL's may be several
        is_readable = all(urlsplit(f"//{host}").port != 0 for host in hosts)
        is_readable = is_readable and "@" not in f"{parts.path}{parts.fragment}"
    except ValueError:
        is_readable = False
    if not is_readable:
        raise ServerUnreachable(
            f"{variable_of(field)}: this is no URL of {server}: it is scheme://user:password@host:port/name,"
            " and of a user or password each of : / ? # [ ] @ % is written as % and two digits (/ as %2F)"
        )


def _words(error: BaseException | None) -> str:
    kind = type(error).__name__
    return _WORDS.get(kind) or f"no answer ({kind})"


def _unreachable(field: str, server: str, url: str, why: str) -> ServerUnreachable:
    place = where(url)
    there = f" at {place}" if place else ""
    return ServerUnreachable(f"{variable_of(field)}: cannot reach {server}{there}: {why}")
