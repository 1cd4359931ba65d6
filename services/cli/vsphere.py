"""`tides vsphere`: what a vCenter's administrator needs: the rights, and a trial of every call."""

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from services.cli import show
from services.cli.access import ask
from services.cli.client import Client, Failed, plain
from services.cli.names import RESOURCE, find
from services.cli.watching import AsJson

vsphere = typer.Typer(no_args_is_help=True, help="For a vCenter's administrator: rights and checks.")


class Tool(StrEnum):
    """Who shall run the lines."""

    GOVC = "govc"
    POWERCLI = "powercli"


Names = Annotated[list[str], typer.Option(help="Name; again for more.")]


@vsphere.command("role")
def print_role(  # noqa: PLR0913, PLR0917 - each option of a command is a parameter
    principal: Annotated[str, typer.Option(help="The account of Tides: DOMAIN\\user or user@domain.")],
    datacenter: Annotated[str, typer.Option()],
    cluster: Names,
    datastore: Names,
    network: Annotated[list[str], typer.Option(help="A port group of its own; again for more.")],
    template: Annotated[list[str], typer.Option(help="Path below the VM folder; again for more.")],
    folder: Annotated[str, typer.Option(help="Where the machines will lie.")] = "tides",
    role: Annotated[str, typer.Option(help="How the roles' names begin.")] = "Tides",
    tool: Annotated[Tool, typer.Option(help="govc or powercli.")] = Tool.GOVC,
) -> None:
    """Print the commands that give an account the least that Tides needs; nothing is run."""
    from libs.providers.vsphere.role import Scope, govc_lines, powercli_lines

    given = [principal, datacenter, *cluster, *datastore, *network, *template, folder, role]
    if any(not one.strip() or not one.isprintable() for one in given):
        raise Failed(
            "a name is empty or holds a character that cannot be printed; give it as the vCenter shows it"
        )
    if role.startswith("-"):
        raise Failed("--role: a role's name cannot begin with a dash; choose another")
    scope = Scope(principal, datacenter, cluster, datastore, network, template, folder, role)
    print("\n".join(govc_lines(scope) if tool is Tool.GOVC else powercli_lines(scope)))


@vsphere.command("privileges")
def list_privileges(json_: AsJson = False) -> None:
    """Every privilege that is used, on what, and what is impossible without it."""
    from libs.providers.vsphere import role

    rows = role.list_privileges()
    if json_:
        show.as_json([{"on": on, "privilege": name, "disables": why} for on, name, why in rows])
        return
    show.table(["on", "privilege", "without it there is no"], rows)


@vsphere.command("check")
def check(
    context: typer.Context,
    resource: Annotated[str, typer.Option(help="A registered resource, in mode observe.")],
    template: Annotated[
        str | None, typer.Option(help="A template's name in the cloud; without one nothing is made.")
    ] = None,
    cluster: Annotated[str | None, typer.Option(help="Name; else the first with a connected host.")] = None,
    json_: AsJson = False,
) -> None:
    """Try every call that Tides makes, on one machine in its own folder and pool, and take all of it away again."""
    steps = ask(context, lambda client: _check(client, resource, template, cluster, quiet=json_))
    if json_:
        show.as_json(steps)
    failed = [step["call"] for step in steps if not step["ok"]]
    if failed:
        raise Failed(f"{len(failed)} of {len(steps)} calls failed: {', '.join(failed)}")


async def _check(
    client: Client, resource: str, template: str | None, cluster: str | None, *, quiet: bool
) -> list[dict[str, Any]]:
    """The steps; drawn while they come."""
    known = await find(client, RESOURCE, resource)
    asked = {key: text for key, text in (("template", template), ("cluster", cluster)) if text is not None}
    steps: list[dict[str, Any]] = []
    lines = client.lines(f"/v1/resources/{known['id']}/check", asked)
    with Live(_draw(steps), console=show.console(), auto_refresh=False, transient=quiet) as live:
        async for step in lines:
            steps.append(step)
            live.update(_draw(steps if not quiet else []), refresh=True)
    return steps


def _draw(steps: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("call", "", "ms", "note"):
        table.add_column(name, justify="right" if name == "ms" else "left")
    for step in steps:
        sign = Text("ok", style="green") if step["ok"] else Text("failed", style="red")
        table.add_row(plain(step["call"]), sign, f"{step['ms']:,.0f}", Text(plain(step["note"])))
    return table
