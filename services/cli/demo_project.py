"""`tides boinc project`: a stand-in BOINC project for trying things out, with real clients. Asks no service."""

import asyncio
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from libs.common.log import configure
from libs.common.loop import run_loop, when_told_to_stop
from services.cli.client import Failed

if TYPE_CHECKING:
    from libs.boinc.demo_project import DemoProject

_EVERYWHERE = ("0.0.0.0", "::")
_BOOKS = "project.json"


def run_project(
    data: Annotated[Path, typer.Option(help="Folder for all that it remembers; made where there is none.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT")] = "127.0.0.1:8090",
    url: Annotated[
        str, typer.Option(help="Its master URL, which never changes; default: /demo/ where it listens.")
    ] = "",
    cpu_s: Annotated[
        float, typer.Option("--task-seconds", min=1, max=86_400, help="Length of a task.")
    ] = 60.0,
    busy: Annotated[
        bool, typer.Option("--busy", help="Tasks spend the CPU that they count, instead of waiting.")
    ] = False,
    validate_after_s: Annotated[
        float, typer.Option("--grant-after", min=0, help="Seconds from a report to its credit.")
    ] = 0.0,
) -> None:
    """A stand-in BOINC project: accounts, tasks for clients as they really are, credit, statistics. Ctrl-C stops it."""
    from libs.boinc.demo_project import DemoProject

    host, port = _address(listen)
    address = _master_url(url, host, listen)
    with _held(data):
        try:
            project = DemoProject(
                address,
                cpu_s=cpu_s,
                checkpoint_s=min(10.0, cpu_s),
                busy=busy,
                validate_after_s=validate_after_s,
                request_delay_s=7.0,
                path=data / _BOOKS,
            )
        except ValueError as error:
            raise Failed(f"--data: {error}") from None
        configure("INFO", "json")
        run_loop(_serve(project, host, port))


async def _serve(project: "DemoProject", host: str, port: int) -> None:
    from libs.boinc.demo_project import serving

    stop = asyncio.Event()
    when_told_to_stop(stop.set)
    try:
        async with serving(project, host, port, urlsplit(project.url).path.strip("/")):
            print(f"project {project.name}: {project.url}", flush=True)
            await stop.wait()
    except OSError as error:
        raise Failed(f"--listen: {error.strerror}; name an address that is free") from None


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Failed("--listen: give HOST:PORT, such as 0.0.0.0:8090")
    return host.strip("[]"), int(port)


def _master_url(url: str, host: str, listen: str) -> str:
    """The address as clients compare it. Raises Failed."""
    from libs.boinc.account import canonical_url

    if not url and host in _EVERYWHERE:
        raise Failed(
            "--url: say under which address machines reach it, such as http://HOST.DOMAIN:8090/demo/"
        )
    try:
        found = canonical_url(url or f"http://{listen}/demo/")
    except ValueError as error:
        raise Failed(f"--url: the address {error}; give one such as http://HOST.DOMAIN:8090/demo/") from None
    parts = urlsplit(found)
    if "." not in (parts.hostname or "") or not parts.path.strip("/"):
        raise Failed(
            "--url: clients want a dot in the host's name, and a path: http://HOST.DOMAIN:8090/demo/"
        )
    return found


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder for this process alone. Raises Failed."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Failed(f"--data: {folder}: {error.strerror}; name a folder that this user can write") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Failed(f"--data: another process serves the project in {folder}") from None
    finally:
        os.close(lock)
