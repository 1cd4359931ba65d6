"""The board: every cluster with owner load, budgets, our use, machines, verdict and reason; the last events."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.text import Text

from services.cli.client import Client, Failed, plain
from services.cli.credentials import alternate_words
from services.cli.modes import probe_words
from services.cli.show import counts, ghz, moment, percent

BAR = 20
_INDENT = " " * 11
_COLOURS = {"idle": "green", "normal": "cyan", "stop_new": "yellow", "busy": "red", "unknown": "magenta"}
_PRELUDES = ("action.limits_requested.v1",)
"""Of interest in the log; the board shows what came of them."""
_LONGEST = timedelta(days=4 * 365)


@dataclass(frozen=True, slots=True)
class Board:
    """What the services say at one moment."""

    clusters: Sequence[dict[str, Any]] = ()
    core_hours: Mapping[str, float] = field(default_factory=dict)
    """By cluster id; empty while stats does not answer."""
    events: Sequence[dict[str, Any]] = ()
    """Oldest first."""
    probes: Sequence[str] = ()
    """A line for each cloud that a probe decides on, or that is asked with its alternate account."""

    def name_of(self, cluster_id: str | None) -> str:
        """A cluster's name; empty where there is none."""
        return next((plain(one["name"]) for one in self.clusters if one["id"] == cluster_id), "")


async def read_board(client: Client, events: int = 0, resource_id: str | None = None) -> Board:
    """Ask the services. Core-hours may be missing: the rest must not wait for stats."""
    clusters = await client.pages("/v1/clusters", resource_id=resource_id)
    last: list[dict[str, Any]] = []
    if events:
        page = await client.call("GET", "/v1/events", params={"order": "newest", "limit": 3 * events})
        last = [event for event in page["items"] if event["key"] not in _PRELUDES][-events:]
    return Board(clusters, await _core_hours(client, clusters), last, await _probes(client))


async def _probes(client: Client) -> list[str]:
    """A line for each cloud that a probe decides on, or that is not lent since one failed,
    or that is asked as somebody else."""
    try:
        resources = await client.pages("/v1/resources")
    except Failed:
        return []
    probed = [(one, one.get("probe") or {}) for one in resources if one["mode"] == "observe"]
    told = [
        f"probe of {plain(one['name'])}: {probe_words(probe)}"
        for one, probe in probed
        if probe.get("outcome") in ("open", "failed")
    ]
    told += await _refused(client)
    replaced = [one for one in resources if (one.get("alternate") or {}).get("in_use")]
    return told + [f"{plain(one['name'])} is degraded: {alternate_words(one)}" for one in replaced]


async def _refused(client: Client) -> list[str]:
    """A line for each project that refuses machines the key that they come with."""
    try:
        lent = await client.pages("/v1/contributions")
    except Failed:
        return []
    return [f"{plain(one['project_name'])} {refusal_words(one)}" for one in lent if one.get("refused_at")]


def refusal_words(contribution: dict[str, Any]) -> str:
    """How a project refuses a contribution's key, and what to do."""
    since, why = moment(contribution["refused_at"]), plain(contribution["refused_why"] or "")
    remedy = (
        "`tides account login`"
        if contribution["account_id"]
        else "`tides contribution change --authenticator-stdin`"
    )
    return f"refuses machines its key since {since}: {why.rstrip('.')}; give another one by {remedy}"


async def _core_hours(client: Client, clusters: Sequence[dict[str, Any]]) -> dict[str, float]:
    sampled = [datetime.fromisoformat(one["sampled_at"]) for one in clusters if one["sampled_at"]]
    if not sampled:
        return {}
    params = {"from": (max(sampled).astimezone(UTC) - _LONGEST).isoformat()}
    try:
        answer = await client.call("GET", "/v1/stats/core-hours", params=params)
    except Failed:
        return {}
    return {item["cluster_id"]: item["core_hours"] for item in answer["items"]}


def draw(board: Board, width: int) -> Text:
    """Clusters, then events, at most `width` columns wide."""
    drawn = Text() if board.clusters else Text("no cluster has been seen yet\n")
    for cluster in board.clusters:
        drawn.append(draw_cluster(cluster, board.core_hours.get(cluster["id"]), width))
    for probe in board.probes:
        drawn.append(f"{probe}\n")
    if board.events:
        drawn.append("\nlast actions\n", style="bold")
    for event in board.events:
        drawn.append(f"{tell_event(event, board)}"[:width] + "\n")
    return drawn


def draw_cluster(cluster: dict[str, Any], core_hours: float | None, width: int) -> Text:
    """Three lines or more: figures, machines, verdict and reason."""
    capacity, owner, ours = cluster["capacity_mhz"], cluster["owner_mhz"], cluster["ours_mhz"]
    lent = "" if core_hours is None else f"   lent {core_hours:.1f} core-h"
    drawn = Text(f"{plain(cluster['name'])[:10]:<10} ", style="bold")
    drawn.append(bar(owner, ours, capacity))
    figures = f" owner {percent(owner, capacity):>5}  ours {percent(ours, capacity):>5}"
    drawn.append(f"{figures}  budget {ghz(cluster['budget_mhz']):>9}{lent}\n", style="not bold")
    guests = f"; guests: {counts(cluster['guests'])}" if cluster.get("guests") else ""
    machines = f"{_INDENT}machines: {counts(cluster['machines'])}; {cluster['wanted']} wanted{guests}\n"
    drawn.append(machines, style="not bold")
    verdict = plain(cluster["verdict"])
    standing = f"{verdict}/{cluster['rung']}" if cluster["rung"] else verdict
    lines = textwrap.wrap(
        f"{standing} · {_mode(cluster)}{plain(cluster['reason']) or 'not judged yet'}",
        max(40, width - len(_INDENT)),
    )
    first, rest = lines[0], lines[1:]
    drawn.append(_INDENT)
    drawn.append(first[: len(standing)], style=f"not bold {_COLOURS.get(verdict, 'white')}")
    drawn.append(first[len(standing) :] + "\n", style="not bold")
    for line in rest:
        drawn.append(f"{_INDENT}{line}\n", style="not bold")
    return drawn


def bar(owner: float, ours: float, capacity: float) -> Text:
    """The owner's use, ours behind it, and what is free."""
    theirs = round(BAR * min(1.0, owner / capacity)) if capacity else 0
    own = min(BAR - theirs, round(BAR * ours / capacity)) if capacity else 0
    drawn = Text()
    drawn.append("█" * theirs, style="not bold blue")
    drawn.append("▒" * own, style="not bold green")
    drawn.append("·" * (BAR - theirs - own), style="not bold dim")
    return drawn


def _mode(cluster: dict[str, Any]) -> str:
    if cluster["sweep_stopped"]:
        return f"the sweeper waits for a person: {plain(cluster['sweep_stopped'])}; "
    return "only observed: " if cluster["mode"] == "observe" else ""


def tell_line(cluster: dict[str, Any], core_hours: float | None = None) -> str:
    """A cluster in one line, for pipes and logs."""
    capacity = cluster["capacity_mhz"]
    lent = "" if core_hours is None else f", lent {core_hours:.1f} core-h"
    if cluster.get("guests"):
        lent = f", guests {counts(cluster['guests'])}{lent}"
    return (
        f"{moment(cluster['sampled_at'])} {plain(cluster['name'])}: {cluster['verdict']}/{cluster['rung']}, "
        f"owner {percent(cluster['owner_mhz'], capacity)}, ours {percent(cluster['ours_mhz'], capacity)}, "
        f"budget {ghz(cluster['budget_mhz'])}, machines {counts(cluster['machines'])}{lent}: "
        f"{plain(cluster['reason'])}"
    )


def tell_event(event: dict[str, Any], board: Board) -> str:
    """An action event in one line; a machine by the end of its name, which is its own."""
    body = event["body"]
    what = event["key"].removeprefix("action.").rpartition(".")[0].replace("_", " ")
    if body.get("name"):
        what += f" …{body['name'][-6:]}"
    if body.get("host"):
        what += f" on {body['host']}"
    if "changes" in body:
        what += f" ({body['changes']} changes)"
    if "most_machines" in body:
        what += f" to {_bound(body['most_machines'])} (it was {_bound(body['most_before'])})"
    if isinstance(body.get("machines"), list):
        what += f" ({len(body['machines'])} machines)"
    if body.get("actor"):
        what += f" by {body['actor']}"
    reason = body.get("reason") or body.get("detail")
    why = f": {reason}" if reason else ""
    return plain(f"{moment(event['at'], '%H:%M:%S')}  {board.name_of(event['cluster_id']):<10} {what}{why}")


def _bound(most: int | None) -> str:
    return "no bound" if most is None else f"at most {most}"
