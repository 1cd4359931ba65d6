"""`tides run`: any list of services in one process, on given or embedded parts."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from urllib.parse import quote

import psutil
from pydantic import SecretStr
from structlog.contextvars import bind_contextvars

from libs.common.clock import Clock
from libs.common.embedded import EmbeddedPostgres
from libs.common.log import configure
from libs.common.loop import when_told_to_stop
from libs.common.runner import Build, Running, running
from libs.common.serve import CannotListen
from libs.common.service import Runtime, Service
from libs.common.settings import InvalidSettings, Settings
from libs.common.telemetry import open_tracing
from libs.common.tracing import OFF, Tracing
from services.cli.client import Failed
from services.cli.keep import complete

SERVICES = ("identity", "registry", "policy", "templates", "contribution", "monitor", "workload", "stats")


Change = Callable[[Service], Service]
"""What a test does to a service before it runs: takes a beat or a handler away."""


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """Each name once; `all` is every one. Raises InvalidSettings for a name there is not."""
    wanted = SERVICES if "all" in names else tuple(dict.fromkeys(names))
    for name in wanted:
        if name not in SERVICES:
            raise InvalidSettings(f"no service named {name!r}; there are: all, {', '.join(SERVICES)}")
    return wanted


def insist_on_database(names: Sequence[str], settings: Settings) -> None:
    """Raises InvalidSettings where only some services are to run and no PostgreSQL is named that all of them share."""
    if settings.database_url is None and set(chosen(names)) != set(SERVICES):
        raise InvalidSettings(
            "TIDES_DATABASE_URL is not set: services in several processes share one PostgreSQL; give"
            " postgresql://user:password@host:5432/tides, or run every service in one process with `tides run all`"
        )


def builders(names: Sequence[str], change: Change | None = None) -> list[Build]:
    """The `build` of each service by name. Raises InvalidSettings."""
    builds: list[Build] = [import_module(f"services.{name}.main").build for name in chosen(names)]
    return builds if change is None else [_changed(build, change) for build in builds]


def _changed(build: Build, change: Change) -> Build:
    def build_changed(runtime: Runtime) -> Service:
        return change(build(runtime))

    return build_changed


@asynccontextmanager
async def parts(settings: Settings, *, durable: bool = True) -> AsyncIterator[Settings]:
    """The settings with an embedded PostgreSQL where none is named, for as long as the block lasts.

    Raises EmbeddedPostgresFailed when the server ends before the block.
    """
    async with _with_server(settings, durable) as (whole, _):
        yield whole


@asynccontextmanager
async def _with_server(
    settings: Settings, durable: bool
) -> AsyncIterator[tuple[Settings, EmbeddedPostgres | None]]:
    if settings.database_url is not None:
        yield settings, None
        return
    server = await EmbeddedPostgres.start(settings.data_dir / "postgres", durable=durable)
    try:
        yield settings.model_copy(update={"database_url": SecretStr(server.url)}), server
    except Exception as error:
        if server.has_ended:  # whatever failed, failed for this
            raise server.loss() from error
        raise
    finally:
        await server.stop()


@asynccontextmanager
async def _ending_with(server: EmbeddedPostgres | None, run: Running) -> AsyncIterator[None]:
    """Cancels the block when the server that it needs has gone. Raises EmbeddedPostgresFailed then."""
    block = asyncio.current_task()
    if server is None or block is None:
        yield
        return
    lost = False

    async def watch() -> None:
        nonlocal lost
        await server.ended()
        lost = True
        if not run.failed.done():
            run.failed.set_exception(server.loss())
        block.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if lost and block.uncancel() == 0:
            raise server.loss() from None
        raise
    finally:
        watching.cancel()
        if run.failed.done():
            run.failed.exception()  # looked at, though it is another that is raised


class NothingHere(Failed):
    """No database is named, and none was ever made here, or it does not run."""


def database_of(settings: Settings) -> str:
    """The database, also an embedded one that runs. None is started: `tides run` may just do so. Raises NothingHere."""
    if settings.database_url is not None:
        return settings.database_dsn
    folder = settings.data_dir / "postgres"
    if not (folder / "cluster").is_dir():
        place = f"nothing has ever run in {settings.data_dir}"
        raise NothingHere(f"TIDES_DATABASE_URL is not set, and {place}; `tides run all` starts it there")
    url = url_of_running(folder)
    if url is None:
        raise NothingHere(f"the embedded PostgreSQL in {folder} does not run; `tides run all` starts it")
    return url


def url_of_running(folder: Path) -> str | None:
    """By the first and the fifth line of the server's pid file: its process, and where its socket is."""
    try:
        lines = (folder / "cluster" / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        number, socket_folder = int(lines[0]), lines[4]
    except (OSError, IndexError, ValueError):
        return None
    if not psutil.pid_exists(number):  # it was killed, and nobody took its file away
        return None
    return f"postgresql://postgres@/postgres?host={quote(socket_folder)}"


@asynccontextmanager
async def started(
    names: Sequence[str],
    settings: Settings,
    *,
    clock: Clock | None = None,
    durable: bool = True,
    change: Change | None = None,
    tracing: Tracing = OFF,
) -> AsyncIterator[tuple[Running, Settings]]:
    """Run services until the block ends. Raises InvalidSettings, also for an address that is taken."""
    try:
        async with (
            _with_server(complete(settings), durable) as (whole, server),
            running(builders(names, change), whole, clock=clock, tracing=tracing) as run,
            _ending_with(server, run),
        ):
            yield run, whole
    except CannotListen as error:
        raise InvalidSettings(str(error)) from None


YOUNG_OBJECTS = 50_000
"""So many more objects than before are looked through for circles: a round of a hundred clusters makes more than that,
and by Python's own 700 it is looked through hundreds of times while it is still needed."""


async def run_process(names: Sequence[str], settings: Settings) -> None:
    """Run until told to stop, or until a loop that must not end has ended."""
    configure(settings.log_level, settings.log_format)
    called = _called(names)
    bind_contextvars(service=called.removeprefix("tides-"))  # a beat, message or request knows better
    tracing = open_tracing(os.environ, called)
    stop = asyncio.Event()
    when_told_to_stop(stop.set)
    async with started(names, settings, tracing=tracing) as (process, _):
        gc.collect()
        gc.freeze()  # what is loaded stays loaded: a full collection over it would stall the loop for 40 ms
        gc.set_threshold(YOUNG_OBJECTS, 10, 10)
        stopping = asyncio.ensure_future(_wait(stop))
        await asyncio.wait([stopping, process.failed], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if process.failed.done():
            process.failed.result()


def _called(names: Sequence[str]) -> str:
    """What a process is called among others where traces and logs are collected."""
    return "tides" if "all" in names else f"tides-{'-'.join(chosen(names))}"


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
