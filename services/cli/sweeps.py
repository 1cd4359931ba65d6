"""`tides sweep`: machines with our mark that nobody knows, shown and answered for."""

import sys
from typing import Annotated, Any

import typer

from services.cli import show
from services.cli.access import ask
from services.cli.client import Client, Failed, plain
from services.cli.names import RESOURCE, find
from services.cli.watching import AsJson

sweeps = typer.Typer(no_args_is_help=True, help="Machines with our mark that nobody knows.")


@sweeps.command("show")
def show_sweep(
    context: typer.Context,
    resource: Annotated[str | None, typer.Argument(help="Name or id; left out: all.")] = None,
    json_: AsJson = False,
) -> None:
    """What was found, since when, and why the sweeper waits for a person."""

    async def work(client: Client) -> list[dict[str, Any]]:
        if resource is not None:
            return [await _read(client, (await find(client, RESOURCE, resource))["id"])]
        return [await _read(client, one["resource_id"]) for one in await client.pages("/v1/sweeps")]

    found = ask(context, work)
    if json_:
        show.as_json(found)
        return
    for sweep in found:
        _tell(sweep)
    if not found:
        show.say("no stranger on any cloud")


@sweeps.command("allow")
def allow(
    context: typer.Context,
    resource: Annotated[str, typer.Argument(help="Name or id.")],
    names: Annotated[list[str] | None, typer.Argument(help="The machines that may be destroyed.")] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="All that are shown; asks for the resource's name.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --all: do not ask.")] = False,
    reason: Annotated[str, typer.Option(help="Why; it stands in the event.")] = "by hand",
) -> None:
    """Let strangers be destroyed, each by its name. What else is there stays."""
    if bool(names) == all_:
        raise typer.BadParameter("name the machines, as `tides sweep show` lists them, or give --all")

    async def look(client: Client) -> dict[str, Any]:
        return await _read(client, (await find(client, RESOURCE, resource))["id"])

    sweep = ask(context, look)
    wanted = list(names or _all_of(sweep, is_sure=yes))
    if not wanted:
        return

    async def answer(client: Client) -> list[str]:
        body = {"names": wanted, "reason": reason}
        allowed: list[str] = (await client.call("POST", f"/v1/sweeps/{sweep['resource_id']}/allow", body))[
            "names"
        ]
        return allowed

    for name in ask(context, answer):
        show.say(f"{name} is destroyed")
    ask(context, lambda client: _clear_alarm(client, sweep["resource_id"]))


async def _clear_alarm(client: Client, resource_id: str) -> None:
    """A person has seen the alarm, and answered. Raises Failed."""
    try:
        if (await _read(client, resource_id))["stopped"] is None:
            await client.call("DELETE", f"/v1/resources/{resource_id}/alarm")
    except Failed as error:
        raise Failed(f"the alarm stays: {error}") from None


def _all_of(sweep: dict[str, Any], *, is_sure: bool) -> list[str]:
    """Every stranger, once a person has seen them and means it."""
    names = [machine["name"] for machine in sweep["machines"]]
    _tell(sweep)
    if names and not is_sure:
        insist(sweep["resource"], f"Type {plain(sweep['resource'])} to destroy all {len(names)}")
    return names


def insist(name: str, question: str) -> None:
    """Raises Failed unless the person types the name."""
    print(f"{question}: ", end="", flush=True)
    typed = sys.stdin.readline().strip()
    if not typed:
        raise Failed("nothing was typed, so nothing was done; --yes goes without the question")
    if typed != name:
        raise Failed(f"that is not {plain(name)!r}: nothing was done")


async def _read(client: Client, resource_id: str) -> dict[str, Any]:
    found: dict[str, Any] = await client.call("GET", f"/v1/sweeps/{resource_id}")
    return found


def _tell(sweep: dict[str, Any]) -> None:
    since = f" since {show.moment(sweep['since'])}" if sweep["since"] else ""
    show.say(f"{sweep['resource']}: {sweep['strangers']} strangers{since}, {sweep['known']} machines known")
    if sweep["stopped"]:
        show.say(f"the sweeper waits for a person: {sweep['stopped']}")
    if sweep["machines"]:
        show.table(
            ["stranger", "cluster", "host", "power", "seen since", "what becomes of it"],
            map(_row, sweep["machines"]),
        )


def _row(machine: dict[str, Any]) -> list[object]:
    if machine["allowed_by"]:
        becomes = f"goes, allowed by {machine['allowed_by']}"
    else:
        becomes = f"goes at {show.moment(machine['goes_at'])}" if machine["goes_at"] else "waits for a person"
    if machine["was"]:
        becomes += f"; {machine['was']}"
    seen = show.moment(machine["seen_at"])
    return [machine["name"], machine["cluster"], machine["host"], machine["power"], seen, becomes]
