"""`tides vsphere`: what a vCenter's administrator needs before a resource is registered. Asks no service."""

from enum import StrEnum
from typing import Annotated

import typer

from services.cli import show
from services.cli.client import Failed
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
