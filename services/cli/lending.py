"""`tides project`, `tides contribution`: to whom is lent, and how much of it."""

from typing import Annotated, Any

import typer

from services.cli import show
from services.cli.access import ask, read_secret
from services.cli.client import Client
from services.cli.names import PROJECT, RESOURCE, find
from services.cli.watching import AsJson

MOST_OF_A_BLOCK = 600

projects = typer.Typer(no_args_is_help=True, help="BOINC projects.")
contributions = typer.Typer(no_args_is_help=True, help="What is lent to which project.")


@projects.command("add")
def add_project(
    context: typer.Context, name: str, url: Annotated[str, typer.Argument(help="Master URL.")]
) -> None:
    """Add a project that can be lent to."""
    added = ask(context, lambda client: client.call("POST", "/v1/projects", {"name": name, "url": url}))
    show.say(f"{added['name']} at {added['url']}")


@projects.command("list")
def list_projects(context: typer.Context, json_: AsJson = False) -> None:
    """Every project."""
    found = ask(context, lambda client: client.pages(PROJECT.path))
    if json_:
        show.as_json(found)
        return
    show.table(["name", "url"], [[one["name"], one["url"]] for one in found])


@projects.command("check")
def check_project(
    context: typer.Context, project: Annotated[str, typer.Argument(help="Name or id.")], json_: AsJson = False
) -> None:
    """Ask the project itself: its address, whether it takes new accounts, its terms."""

    async def work(client: Client) -> Any:
        known = await find(client, PROJECT, project)
        return await client.call("POST", f"/v1/projects/{known['id']}/check")

    found = ask(context, work)
    if json_:
        show.as_json(found)
        return
    same = "" if found["is_canonical"] else " (kept here under another address: add it anew)"
    rows = [
        ["name", found["name"]],
        ["address", found["master_url"] + same],
        ["state", "down" if found["is_down"] else "up"],
        ["plain Linux", "yes" if found["runs_here"] else "no"],
        ["hindrances", ", ".join(found["hindrances"]) or "none"],
        ["terms", found["terms_sha256"][:16]],
    ]
    show.table(["what", "it says"], rows)
    if found["terms"]:
        show.say(found["terms"])


@projects.command("sign")
def sign_project(
    context: typer.Context,
    project: Annotated[str, typer.Argument(help="Name or id.")],
    signature: Annotated[
        typer.FileText, typer.Option(help="What `tides boinc sign` printed; - for standard input.")
    ],
) -> None:
    """Keep the signature of a project's URL, without which no client attaches by its account manager."""
    block = signature.read(MOST_OF_A_BLOCK)

    async def work(client: Client) -> Any:
        known = await find(client, PROJECT, project)
        return await client.call("PATCH", f"/v1/projects/{known['id']}", {"url_signature": block})

    signed = ask(context, work)
    show.say(f"{signed['name']} at {signed['url']} is signed")


@contributions.command("add")
def add_contribution(
    context: typer.Context,
    project: Annotated[str, typer.Argument(help="Name or id.")],
    weight: Annotated[float, typer.Option(help="Beside the other projects.")] = 1.0,
    resource: Annotated[list[str] | None, typer.Option(help="Only this one; again for more.")] = None,
    authenticator_stdin: Annotated[
        bool, typer.Option(help="The weak account key is on standard input.")
    ] = False,
) -> None:
    """Lend to a project with the weak key of an account there."""
    key = read_secret("Weak account key", "--authenticator-stdin", authenticator_stdin)

    async def work(client: Client) -> Any:
        known = await find(client, PROJECT, project)
        only = [(await find(client, RESOURCE, name))["id"] for name in resource or []]
        body = {
            "project_id": known["id"],
            "weight": weight,
            "resource_ids": only or None,
            "authenticator": key,
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
