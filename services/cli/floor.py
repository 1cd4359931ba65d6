"""`tides cluster`, `tides machine`: a person's hand on what runs."""

from typing import Annotated, Any

import typer

from services.cli import show
from services.cli.access import ask
from services.cli.client import Client
from services.cli.names import CLUSTER, MACHINE, find
from services.cli.watching import AsJson

clusters = typer.Typer(no_args_is_help=True, help="The red button, and how much at most.")
machines = typer.Typer(no_args_is_help=True, help="Machines that run on clouds.")
Name = Annotated[str, typer.Argument(help="Name, RESOURCE/NAME or id.")]
Reason = Annotated[str, typer.Option(help="Why; it stands in the event.")]


@clusters.command("list")
def list_clusters(context: typer.Context, json_: AsJson = False) -> None:
    """Every cluster."""
    found = ask(context, lambda client: client.pages(CLUSTER.path))
    if json_:
        show.as_json(found)
        return
    rows = [
        [one["name"], one["resource"], one["mode"], one["verdict"], one["rung"], show.counts(one["machines"])]
        for one in found
    ]
    show.table(["name", "resource", "mode", "verdict", "rung", "machines"], rows)


@clusters.command("show")
def show_cluster(context: typer.Context, name: Name, json_: AsJson = False) -> None:
    """One cluster, host by host."""
    found = ask(context, lambda client: find(client, CLUSTER, name))
    if json_:
        show.as_json(found)
        return
    show.say(f"{found['resource']}/{found['name']}: {found['verdict']}/{found['rung']}: {found['reason']}")
    if found["paused_by"]:
        show.say(f"paused by {found['paused_by']}: {found['paused_reason']}")
    show.table(
        ["host", "state", "owner ", "ours ", "budget ", "limit ", "machines "], map(_host, found["hosts"])
    )


def _host(host: dict[str, Any]) -> list[object]:
    capacity, owner = host["capacity_mhz"], host["owner_mhz"]
    return [
        host["name"],
        host["state"],
        "?" if owner is None else show.percent(owner, capacity),
        show.percent(host["ours_mhz"], capacity),
        show.ghz(host["budget_mhz"]),
        show.ghz(host["limit_mhz"]),
        host["machines"],
    ]


def _act(context: typer.Context, name: str, verb: str, body: Any = None) -> dict[str, Any]:
    async def work(client: Client) -> Any:
        known = await find(client, CLUSTER, name)
        return await client.call("POST", f"/v1/clusters/{known['id']}/{verb}", body)

    changed: dict[str, Any] = ask(context, work)
    return changed


@clusters.command("pause")
def pause(context: typer.Context, name: Name, reason: Reason = "by hand") -> None:
    """Budgets to the floor now, nothing new until `resume`; holds across restarts."""
    show.say(f"{_act(context, name, 'pause', {'reason': reason})['name']} is paused")


@clusters.command("resume")
def resume(context: typer.Context, name: Name, reason: Reason = "by hand") -> None:
    """Take back `pause` and `drain`."""
    show.say(f"{_act(context, name, 'resume', {'reason': reason})['name']} lends again")


@clusters.command("drain")
def drain(context: typer.Context, name: Name, reason: Reason = "by hand") -> None:
    """Give everything on the cluster back, with grace, until `resume`."""
    drained = _act(context, name, "drain", {"reason": reason})
    show.say(f"{drained['name']} drains: {show.counts(drained['machines'])}")


@clusters.command("scale")
def scale(
    context: typer.Context,
    name: Name,
    most: Annotated[str, typer.Argument(help="A number, or `none` to take the bound away.")],
    reason: Reason = "by hand",
) -> None:
    """Never more machines than this, whatever the policy would allow."""
    if most != "none" and not most.isdigit():
        raise typer.BadParameter("give a number, or `none`")
    bound = None if most == "none" else int(most)
    scaled = _act(context, name, "scale", {"most_machines": bound, "reason": reason})
    show.say(f"{scaled['name']}: " + ("no bound" if bound is None else f"at most {bound} machines"))


@machines.command("list")
def list_machines(
    context: typer.Context,
    cluster: Annotated[str | None, typer.Option()] = None,
    all_: Annotated[bool, typer.Option("--all", help="Destroyed ones too.")] = False,
    json_: AsJson = False,
) -> None:
    """Machines, oldest first."""

    async def work(client: Client) -> list[dict[str, Any]]:
        cluster_id = (await find(client, CLUSTER, cluster))["id"] if cluster else None
        return await client.pages("/v1/machines", live=not all_, cluster_id=cluster_id)

    found = ask(context, work)
    if json_:
        show.as_json(found)
        return
    rows = [
        [
            one["name"],
            one["state"] + (" (overdue)" if one["overdue"] else ""),
            one["wanted"],
            one["host"],
            "" if one["limit_mhz"] is None else show.ghz(one["limit_mhz"]),
            show.moment(one["state_since"]),
        ]
        for one in found
    ]
    show.table(["name", "state", "wanted", "host", "limit ", "since"], rows)


@machines.command("drain")
def drain_machine(context: typer.Context, name: Name, reason: Reason = "by hand") -> None:
    """Give one machine back, with grace."""

    async def work(client: Client) -> Any:
        known = await find(client, MACHINE, name)
        return await client.call("POST", f"/v1/machines/{known['id']}/drain", {"reason": reason})

    drained = ask(context, work)
    show.say(f"{drained['name']}: {drained['state']}, wanted {drained['wanted']}")
