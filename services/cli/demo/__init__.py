"""`tides demo`: the whole of Tides on a simulated cloud, set up and watched over REST like any other.

Services are imported where they are needed: other commands need not wait for them.
"""

import asyncio
import json
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from libs.common.loop import run_loop, when_told_to_stop
from services.cli.client import Failed

INTERRUPTED = 130
FASTEST = 360.0
"""Ten real seconds are an hour then: the longest that a policy waits for a sample. What is faster is always late."""


def demo(
    speed: Annotated[
        float,
        typer.Option(min=1, max=FASTEST, help="How much faster than real time; --days is faster still."),
    ] = 1.0,
    days: Annotated[
        float | None, typer.Option(min=0.001, max=366, help="Run so many days as fast as possible, then end.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="With --days: the summary as JSON alone.")] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="With --days: give everything back at the end.")
    ] = False,
    sites: Annotated[
        bool, typer.Option("--sites", help="Observe the five sites of the BalticLSC network as well.")
    ] = False,
    folder: Annotated[Path, typer.Option("--dir", help="Where the demo keeps its data.")] = Path(
        ".tides-demo"
    ),
) -> None:
    """Every service in one process on an embedded PostgreSQL and a simulated cloud; Ctrl-C stops it."""
    if days is None:
        if json_ or stop:
            raise typer.BadParameter("--json and --stop belong to --days")
        _run_open(folder, speed, sites)
        return
    if sites:
        raise typer.BadParameter("--sites does not go with --days")
    from services.cli.demo.accelerated import run_days

    summary = _finish(run_days(days, drain=stop, progress=sys.stderr.isatty()))
    if summary is None:
        print("tides: interrupted, no summary", file=sys.stderr)
        raise SystemExit(INTERRUPTED)
    print(json.dumps(summary) if json_ else "\n".join(_lines(summary)))
    if stop and summary["machines_left"]:
        raise Failed(f"{summary['machines_left']} machines are left on the cloud")


def _lines(summary: dict[str, Any]) -> Iterator[str]:
    """For people: a project is a line of its own."""
    for name, value in summary.items():
        if name != "projects":
            yield f"{name:<20} {value}"
    for name, of in summary["projects"].items():
        yield f"for {name:<16} {of['core_hours']} core-hours computed, {of['credit']} credit granted"


def _run_open(folder: Path, speed: float, sites: bool) -> None:
    from services.cli.demo.open import run_demo
    from services.cli.demo.place import Place

    _finish(run_demo(Place(folder), speed, sites=sites))
    print("stopped; ./dev demo again continues")


def _finish(work: Coroutine[Any, Any, Any]) -> Any:
    """What the work returns; None once it was told to stop and everything has ended in order."""
    return run_loop(_until_signalled(work))


async def _until_signalled(work: Coroutine[Any, Any, Any]) -> Any:
    task = asyncio.ensure_future(work)
    when_told_to_stop(task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return None
