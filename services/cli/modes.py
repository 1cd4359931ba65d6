"""`tides resource lend`, `observe`, `pause`, `drain`: how far Tides may go on a cloud, and the probe before that."""

from typing import Annotated, Any

import typer

from services.cli import show
from services.cli.access import ask
from services.cli.client import Client, plain
from services.cli.names import RESOURCE, find

Name = Annotated[str, typer.Argument(help="Name or id.")]


def add_to(resources: typer.Typer) -> None:
    """Put the commands on `tides resource`."""
    for command in (lend, observe, pause, drain):
        resources.command()(command)


def tell_probe(resource: dict[str, Any]) -> None:
    """How the resource's probe does, or how the last one went."""
    probe = resource.get("probe")
    if probe is None:
        if resource.get("requires_probe") and not resource["activated_at"]:
            show.say("a machine must reach a project before it is lent")
        return
    show.say(f"probe {probe_words(probe)}")
    if probe["outcome"] != "open":
        return
    show.say("it is lent as soon as that machine works for a project; tides resource show says how far it is")


def probe_words(probe: dict[str, Any]) -> str:
    """How far a probe is, since when and until when, and why no further; or how it ended, and why."""
    if probe["outcome"] != "open":
        return f"{plain(probe['outcome'])} ({show.moment(probe['ended_at'])}): {plain(probe['why'])}"
    reason = f": {plain(probe['reason'])}" if probe["reason"] else ""
    since, until = show.moment(probe["asked_at"]), show.moment(probe["until"])
    return f"{plain(probe['step'])}, since {since}, until {until}{reason}"


def _set_mode(context: typer.Context, name: str, mode: str, **more: Any) -> None:
    body = {"mode": mode, "force": False, **more}

    async def work(client: Client) -> Any:
        known = await find(client, RESOURCE, name)
        return await client.call("POST", f"/v1/resources/{known['id']}/mode", body)

    changed = ask(context, work)
    show.say(f"{changed['name']}: mode {changed['mode']}")
    tell_probe(changed)


def lend(
    context: typer.Context,
    name: Name,
    probe: Annotated[
        bool | None,
        typer.Option(help="Whether one machine must reach a project first; left out: as it requires."),
    ] = None,
    within: Annotated[
        int | None, typer.Option(min=1, max=1440, help="Minutes after which a probe has failed; else 60.")
    ] = None,
) -> None:
    """Let Tides run machines on it; with a probe, as soon as one machine of it has reached a project."""
    asked = {"probe": probe, "probe_for_s": None if within is None else 60.0 * within}
    _set_mode(context, name, "lend", **{word: value for word, value in asked.items() if value is not None})


def observe(context: typer.Context, name: Name) -> None:
    """Only look and decide; what runs drains."""
    _set_mode(context, name, "observe")


def pause(context: typer.Context, name: Name) -> None:
    """Budgets to the floor, nothing new; machines stay."""
    _set_mode(context, name, "paused")


def drain(
    context: typer.Context,
    name: Name,
    force: Annotated[bool, typer.Option(help="Destroy machines without waiting for their work.")] = False,
) -> None:
    """Give everything on it back."""
    _set_mode(context, name, "draining", force=force)
