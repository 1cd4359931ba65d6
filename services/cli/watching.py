"""`tides status`, `tides events`, `tides why`: what is going on, and the reasons."""

import asyncio
import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from libs.common.clock import WallClock
from services.cli import show
from services.cli.access import ask
from services.cli.board import Board, draw, read_board, tell_event
from services.cli.client import Client, Unreachable, plain
from services.cli.names import CLUSTER, find

EVERY_S = 2.0
EVENTS = 8
AGAIN_FIRST_S = 0.5
AGAIN_AT_MOST_S = 10.0

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


def add_to(app: typer.Typer) -> None:
    """Put the commands on the app."""
    for command in (status, events, why):
        app.command()(command)


def status(
    context: typer.Context,
    watch: Annotated[bool, typer.Option(help="Again and again until Ctrl-C.")] = False,
    json_: AsJson = False,
) -> None:
    """Per cluster: owner load, budgets, our use, machines, verdict with its reason, core-hours lent."""
    if watch and not json_:
        ask(context, _watch)
        return
    board = ask(context, read_board)
    if json_:
        core_hours = board.core_hours
        show.as_json([{**one, "core_hours": core_hours.get(one["id"])} for one in board.clusters])
    else:
        show.console().print(draw(board, show.console().width), end="")


async def _watch(client: Client) -> None:
    console, clock = show.console(), WallClock()
    with Live(Text("asking ..."), console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            board = await read_board(client, EVENTS)
            head = Text(f"{clock.now():%Y-%m-%d %H:%M:%S} UTC   Ctrl-C ends this, not Tides\n", style="dim")
            live.update(Group(head, draw(board, console.width)), refresh=True)
            await asyncio.sleep(EVERY_S)


def events(
    context: typer.Context,
    follow: Annotated[bool, typer.Option(help="Every new one as it comes, until Ctrl-C.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many of the last ones.")] = 20,
    cluster: Annotated[str | None, typer.Option(help="Of one cluster only.")] = None,
    json_: AsJson = False,
) -> None:
    """What was done to clouds, and why. Following goes on after a broken connection where it was."""

    async def work(client: Client) -> None:
        cluster_id = (await find(client, CLUSTER, cluster))["id"] if cluster else None
        board = Board(await client.pages("/v1/clusters"))
        if follow:
            await _follow(client, board, cluster_id, json_)
            return
        asked = {"order": "newest", "limit": limit, "cluster_id": cluster_id}
        page = await client.call("GET", "/v1/events", params=asked)
        for event in page["items"]:
            _print_event(event, board, json_)

    ask(context, work)


async def _follow(client: Client, board: Board, cluster_id: str | None, is_json: bool) -> None:
    last_id: str | None = None
    was_open, pause_s = False, AGAIN_FIRST_S
    while True:
        try:
            async for told in client.stream("/v1/events", last_id, follow=True, cluster_id=cluster_id):
                was_open, last_id, pause_s = True, told.id or last_id, AGAIN_FIRST_S
                if told.data is None:
                    continue
                if told.data["cluster_id"] and not board.name_of(told.data["cluster_id"]):
                    board = Board(await client.pages("/v1/clusters"))
                _print_event(told.data, board, is_json)
        except Unreachable as error:
            if not was_open:
                raise
            print(f"tides: {error}; trying again", file=sys.stderr)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, AGAIN_AT_MOST_S)


def _print_event(event: dict[str, Any], board: Board, is_json: bool) -> None:
    print(json.dumps(event) if is_json else tell_event(event, board), flush=True)


def why(
    context: typer.Context,
    cluster: Annotated[str, typer.Argument(help="Name or id.")],
    limit: Annotated[int, typer.Option(min=1, max=50)] = 5,
    json_: AsJson = False,
) -> None:
    """The last decisions about a cluster: when, what was seen, what was decided, and the reason in words."""

    async def work(client: Client) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        known = await find(client, CLUSTER, cluster)
        asked = {"cluster_id": known["id"], "limit": limit}
        page = await client.call("GET", "/v1/decisions", params=asked)
        return known, page["items"]

    known, decisions = ask(context, work)
    if json_:
        show.as_json(decisions)
        return
    if not decisions:
        show.say(
            f"nothing has been decided about {known['name']} yet: {known['reason'] or 'no sample was judged'}"
        )
    elif known["reason"] not in decisions[0]["reason"]:
        show.say(f"now: {known['reason']}\n")  # what keeps a cluster as it is makes no decision
    for decision in decisions:
        _tell_decision(decision)


def _tell_decision(record: dict[str, Any]) -> None:
    decision, seen = record["decision"], record["observation"]
    show.say(f"{show.moment(record['at'])}  {record['reason']}")
    machines = f"{decision['wanted']} machines wanted, {decision['running']} running"
    policy = f"policy {record['policy_id']} revision {record['policy_revision']}"
    show.say(f"  verdict {decision['verdict']}, cap {show.ghz(decision['cap_mhz'])}, {machines}; {policy}")
    if decision.get("steering"):
        show.say(f"  {_tell_steering(decision['steering'])}")
    paused = record["facts"].get("paused")
    if paused:
        show.say(f"  paused: {paused}")
    for told in record["facts"].get("coming", ()):
        show.say(f"  {_tell_announced(told, seen)}")
    show.table(
        ["  host", "owner ", "ours ", "limit seen ", "budget ", "contention "],
        [_host_row(budget, seen) for budget in decision["budgets"]],
    )
    print()


def _tell_announced(told: dict[str, Any], seen: dict[str, Any]) -> str:
    """What the cloud announced when the decision was made."""
    names = dict(zip(seen.get("hosts", ()), seen.get("host_names", ()), strict=False))
    host = told.get("host")
    where = "every host" if host is None else plain(names.get(host, host))
    share = "" if told.get("share") is None else f", {100 * float(told['share']):.0f} % of it"
    kind = plain(str(told["kind"]).replace("_", " "))
    return f"announced: {kind} on {where} from {show.moment(told['begins_at'])}{share}"


def _tell_steering(steering: dict[str, Any]) -> str:
    """How far the engine goes there, and whether its own bound or the plain shadow leads."""
    leads, rests = ("plain", "own") if steering["plain_leads"] else ("own", "plain")
    return f"leads: {_tell_track(leads, steering)}; in its shadow: {_tell_track(rests, steering)}"


def _tell_track(name: str, steering: dict[str, Any]) -> str:
    track = {field: float(value) for field, value in steering[name].items()}
    gain = max(track["soft_gain"], track["hard_gain"])
    above, hard = 100 * track["contended"], 100 * track["hard"]
    return (
        f"{name} bound x {gain:.2f} (above the target {above:.3f} %, above the host {hard:.3f} % of the time)"
    )


def _host_row(budget: dict[str, Any], seen: dict[str, Any]) -> list[object]:
    capacity = budget["capacity_mhz"]
    row: list[object] = [
        show.percent(budget["owner_mhz"], capacity),
        "-",
        "-",
        show.ghz(budget["budget_mhz"]),
        "-",
    ]
    hosts = seen.get("hosts", [])
    if budget["host"] not in hosts:
        return [f"  {plain(budget['host'])}", *row]
    at = hosts.index(budget["host"])
    row[1] = show.percent(float(seen["cpu_ours_mhz"][at]), capacity)
    row[2] = show.ghz(float(seen["cpu_limit_mhz"][at]))
    contention = seen["contention_percent"][at]
    row[4] = "-" if contention is None else f"{float(contention):.1f} %"
    return [f"  {plain(seen['host_names'][at])}", *row]
