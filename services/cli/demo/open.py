"""The demo that runs until Ctrl-C: starts, furnishes, shows."""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from libs.common.clock import Clock
from libs.common.log import configure
from libs.common.runner import Running
from libs.providers.simulated import SimulatedSettings, create_cloud
from services.cli import show
from services.cli.access import DEFAULT_URL
from services.cli.board import Board, draw, read_board, tell_event, tell_line
from services.cli.client import Client, Failed, Target, open_client
from services.cli.demo.furnish import Cloud, await_identity, furnish
from services.cli.demo.place import Place
from services.cli.demo.sites import furnish_sites
from services.cli.run import started

EVERY_S = 1.0
INTERVAL_S, FAST_INTERVAL_S, FAST = 20, 60, 10
_FEWEST_EVENTS, _ROWS_ABOVE, _LINES_OF_EVENTS = 4, 21, 40

Show = Callable[[Board], None]


async def run_demo(place: Place, speed: float, *, sites: bool = False) -> None:
    """Until cancelled. Raises Failed when the services cannot go on."""
    settings, clock = place.settings(speed), place.clock(speed)
    async with AsyncExitStack() as stack:
        log = stack.enter_context((place.folder / "tides.log").open("a", encoding="utf-8"))
        os.chmod(place.folder / "tides.log", 0o600)
        configure(settings.log_level, settings.log_format, log)
        print(f"starting the services; their log is {_near(place.folder / 'tides.log')}", flush=True)
        stack.callback(lambda: place.keep_time(clock.now(), speed, is_last=True))
        place.keep_time(clock.now(), speed)
        process, _ = await stack.enter_async_context(started(["all"], settings, clock=clock))
        cloud = cloud_of(place, speed)
        if place.is_new:
            create_cloud(cloud.url, cloud.password, SimulatedSettings(**cloud.settings), clock)
        _introduce(place, process)
        target = Target(process.url, SecretStr(place.kept.admin_token))
        client = await stack.enter_async_context(open_client(target))
        await await_identity(client)
        await furnish(client, cloud)
        if sites:
            await furnish_sites(client, cloud.password, cloud.interval_s)
        await _watch(client, process, stack, _Pace(place, clock, speed))


def cloud_of(place: Place, speed: float) -> Cloud:
    """Sampled as a vCenter is; where a second is short, less often, and what is late is late in real seconds."""
    if speed <= FAST:
        return Cloud(place.cloud_url, place.cloud_password(), INTERVAL_S)
    return Cloud(place.cloud_url, place.cloud_password(), FAST_INTERVAL_S, stale_after_s=10.0 * speed)


class _Pace:
    """How late it is in the demo, and where that is written down."""

    def __init__(self, place: Place, clock: Clock, speed: float) -> None:
        self._place = place
        self.clock = clock
        self.speed = speed

    def keep(self) -> None:
        """Write the time down."""
        self._place.keep_time(self.clock.now(), self.speed)


def _introduce(place: Place, process: Running) -> None:
    """Where to ask, and as whom; the token was made for this folder alone."""
    print(f"API          {process.url}")
    print(f"admin token  {place.kept.admin_token}")
    print("in another terminal:")
    if process.url != DEFAULT_URL:
        print(f"  export TIDES_URL={process.url}")
    print(f"  export TIDES_TOKEN_FILE={_near(place.token_file)}")
    print("  .venv/bin/tides status | why prod-a | events --follow | cluster pause prod-a\n", flush=True)


async def _watch(client: Client, process: Running, stack: AsyncExitStack, pace: _Pace) -> None:
    console = Console(markup=False, highlight=False, emoji=False)
    if console.is_terminal:
        live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        stack.enter_context(live)

        def update(board: Board) -> None:
            live.update(_frame(board, process.url, pace, console.width), refresh=True)

        await _repeat(client, process, pace, update, max(_FEWEST_EVENTS, console.height - _ROWS_ABOVE))
    else:
        await _repeat(client, process, pace, _Lines().show, _LINES_OF_EVENTS)


async def _repeat(client: Client, process: Running, pace: _Pace, update: Show, events: int) -> None:
    while not process.failed.done():
        update(await read_board(client, events))
        pace.keep()
        await asyncio.wait([process.failed], timeout=EVERY_S)
    raise Failed(f"a part of Tides has ended: {process.failed.exception()}")


def _frame(board: Board, url: str, pace: _Pace, width: int) -> Group:
    head = Text("Tides", style="bold")
    head.append(f"  {url}  simulated time {pace.clock.now():%Y-%m-%d %H:%M:%S} UTC", style="not bold")
    head.append(f"  speed {pace.speed:g}  Ctrl-C stops", style="not bold dim")
    legend = Text("█ owner  ▒ ours  · free", style="dim")
    return Group(head, legend, draw(board, width))


class _Lines:
    """For pipes: a line for whatever is new."""

    def __init__(self) -> None:
        self._told: dict[str, object] = {}
        self._seen: set[str] = set()

    def show(self, board: Board) -> None:
        """Print clusters that were judged anew and events that were not there before."""
        for cluster in board.clusters:
            news = (cluster["decided_at"], cluster["machines"])
            if cluster["decided_at"] and self._told.get(cluster["id"]) != news:
                self._told[cluster["id"]] = news
                show.say(tell_line(cluster, board.core_hours.get(cluster["id"])))
        fresh = [event for event in board.events if event["id"] not in self._seen]
        for event in fresh if self._seen else fresh[-_FEWEST_EVENTS:]:
            show.say(f"  {tell_event(event, board)}")
        self._seen = {event["id"] for event in board.events}
        sys.stdout.flush()


def _near(path: Path) -> Path:
    """As seen from here, where that is shorter."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
