"""`tides contribution`: how much of what is lent to whom."""

from typing import Annotated, Any

import typer

from services.cli import show
from services.cli.access import ask, read_secret
from services.cli.accounts import stored_account
from services.cli.client import Client
from services.cli.names import PROJECT, RESOURCE, find
from services.cli.watching import AsJson

contributions = typer.Typer(no_args_is_help=True, help="What is lent to which project.")


@contributions.command("add")
def add_contribution(
    context: typer.Context,
    project: Annotated[str, typer.Argument(help="Name or id.")],
    weight: Annotated[float, typer.Option(help="Beside the other projects.")] = 1.0,
    resource: Annotated[list[str] | None, typer.Option(help="Only this one; again for more.")] = None,
    authenticator_stdin: Annotated[
        bool, typer.Option(help="The weak account key is on standard input.")
    ] = False,
    stored: Annotated[
        bool, typer.Option("--stored-account", help="With the account that is kept here.")
    ] = False,
) -> None:
    """Lend to a project with the weak key of an account there, or with the account that `tides account` keeps."""
    key = None if stored else read_secret("Weak account key", "--authenticator-stdin", authenticator_stdin)

    async def work(client: Client) -> Any:
        known = await find(client, PROJECT, project)
        only = [(await find(client, RESOURCE, name))["id"] for name in resource or []]
        body = {
            "project_id": known["id"],
            "weight": weight,
            "resource_ids": only or None,
            "authenticator": key,
            "account_id": await stored_account(client, known["id"]) if stored else None,
        }
        return await client.call("POST", "/v1/contributions", body)

    added = ask(context, work)
    where = f"{len(added['resource_ids'])} resources" if added["resource_ids"] else "every resource"
    show.say(f"{where} may work for {added['project_name']}, weight {added['weight']:g}")


@contributions.command("list")
def list_contributions(context: typer.Context, json_: AsJson = False) -> None:
    """What is lent, to whom, and how many machines work for it."""
    found = ask(context, lambda client: client.pages("/v1/contributions"))
    if json_:
        show.as_json(found)
        return
    rows = [
        [
            one["project_name"],
            f"{one['weight']:g}",
            "yes" if one["active"] else "no",
            show.counts(one["machines"]),
            len(one["resource_ids"]) if one["resource_ids"] else "all",
        ]
        for one in found
    ]
    show.table(["project", "weight ", "active", "machines", "resources "], rows)
