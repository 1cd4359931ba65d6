"""`tides contribution`: how much of what is lent to whom, who comes first, and how many machines each may have."""

from typing import Annotated, Any

import typer

from services.cli import show
from services.cli.access import ask, read_secret
from services.cli.accounts import stored_account
from services.cli.board import refusal_words
from services.cli.client import Client, Failed, plain
from services.cli.names import PROJECT, RESOURCE, find
from services.cli.watching import AsJson

contributions = typer.Typer(no_args_is_help=True, help="What is lent to which project.")
Project = Annotated[str, typer.Argument(help="Name or id.")]
_PRIORITY = "-100 to 100: machines work for the highest that has room for them."
_NONE = "none"


Weight = Annotated[float | None, typer.Option(help="Beside the others of its priority.")]
Priority = Annotated[int | None, typer.Option(help=_PRIORITY)]
MostMachines = Annotated[
    str | None, typer.Option(metavar="N|none", help="Its quota: so many machines work for it at most.")
]
MostVcpus = Annotated[
    str | None, typer.Option(metavar="N|none", help="Its quota of vCPUs, of all its machines together.")
]


@contributions.command("add")
def add_contribution(  # noqa: PLR0913, PLR0917 - each option of a command is a parameter
    context: typer.Context,
    project: Project,
    weight: Annotated[float, typer.Option(help="Beside the others of its priority.")] = 1.0,
    priority: Priority = None,
    most_machines: MostMachines = None,
    most_vcpus: MostVcpus = None,
    resource: Annotated[list[str] | None, typer.Option(help="Only this one; again for more.")] = None,
    authenticator_stdin: Annotated[
        bool, typer.Option(help="The weak account key is on standard input.")
    ] = False,
    stored: Annotated[
        bool, typer.Option("--stored-account", help="With the account that is kept here.")
    ] = False,
) -> None:
    """Lend to a project with the weak key of an account there, or with the account that `tides account` keeps."""
    terms = _terms({"weight": weight}, priority, most_machines, most_vcpus)
    key = None if stored else read_secret("Weak account key", "--authenticator-stdin", authenticator_stdin)

    async def work(client: Client) -> Any:
        known = await find(client, PROJECT, project)
        only = [(await find(client, RESOURCE, name))["id"] for name in resource or []]
        body = {
            "project_id": known["id"],
            **terms,
            "resource_ids": only or None,
            "authenticator": key,
            "account_id": await stored_account(client, known["id"]) if stored else None,
        }
        return await client.call("POST", "/v1/contributions", body)

    added = ask(context, work)
    where = f"{len(added['resource_ids'])} resources" if added["resource_ids"] else "every resource"
    show.say(f"{where} may work for {_tell(added)}")


@contributions.command("change")
def change_contribution(  # noqa: PLR0913, PLR0917 - each option of a command is a parameter
    context: typer.Context,
    project: Project,
    weight: Weight = None,
    priority: Priority = None,
    most_machines: MostMachines = None,
    most_vcpus: MostVcpus = None,
    authenticator_stdin: Annotated[
        bool, typer.Option(help="Another weak account key is on standard input.")
    ] = False,
) -> None:
    """Change weight, priority, quota or key; what is left out stays. Only another key makes machines anew."""
    body = _terms({"weight": weight}, priority, most_machines, most_vcpus)
    if authenticator_stdin:
        body["authenticator"] = read_secret("Weak account key", "--authenticator-stdin", authenticator_stdin)
    if not body:
        raise typer.BadParameter(
            "say what to change: --weight, --priority, --most-machines, --most-vcpus or --authenticator-stdin"
        )

    async def work(client: Client) -> Any:
        known = await _find(client, project)
        return await client.call("PATCH", f"/v1/contributions/{known['id']}", body)

    show.say(_tell(ask(context, work)))


def _terms(
    more: dict[str, Any], priority: int | None, most_machines: str | None, most_vcpus: str | None
) -> dict[str, Any]:
    """What was given of them, as the service takes it. Raises BadParameter."""
    given = more | {
        "priority": priority,
        "most_machines": _bound("--most-machines", most_machines),
        "most_vcpus": _bound("--most-vcpus", most_vcpus),
    }
    return {name: None if value == _NONE else value for name, value in given.items() if value is not None}


def _bound(option: str, text: str | None) -> int | str | None:
    """A number of an option, or that there is to be no bound; None: it was not given."""
    if text is None or text == _NONE:
        return text
    if not text.isascii() or not text.isdigit():
        raise typer.BadParameter(f"{option}: give a number, or `none`")
    return int(text)


async def _find(client: Client, project: str) -> dict[str, Any]:
    """The contribution to a project, or the one of this id. Raises Failed."""
    items = await client.pages("/v1/contributions")
    found = [one for one in items if project in (one["id"], one["project_id"], one["project_name"])]
    if len(found) == 1:
        return found[0]
    if found:
        raise Failed(f"{len(found)} contributions are to {plain(project)!r}; give the id of one")
    names = ", ".join(sorted({plain(one["project_name"]) for one in items})) or "nobody yet"
    raise Failed(f"nothing is lent to {plain(project)!r}; it is lent to: {names}")


@contributions.command("list")
def list_contributions(context: typer.Context, json_: AsJson = False) -> None:
    """What is lent, to whom, who comes first, and how many machines work for it."""
    found = ask(context, lambda client: client.pages("/v1/contributions"))
    if json_:
        show.as_json(found)
        return
    rows = [
        [
            one["project_name"],
            f"{one['weight']:g}",
            one["priority"],
            _quota(one) or "no bound",
            "yes" if one["active"] else "no",
            show.counts(one["machines"]),
            len(one["resource_ids"]) if one["resource_ids"] else "all",
        ]
        for one in found
    ]
    show.table(["project", "weight ", "priority ", "quota", "active", "machines", "resources "], rows)
    for one in found:
        if one.get("refused_at"):
            show.say(f"{plain(one['project_name'])} {refusal_words(one)}")


def _quota(one: dict[str, Any]) -> str:
    bounds = ((one["most_machines"], "machines"), (one["most_vcpus"], "vCPUs"))
    return ", ".join(f"{most} {what}" for most, what in bounds if most is not None)


def _tell(one: dict[str, Any]) -> str:
    quota = f"at most {_quota(one)}" if _quota(one) else "no quota"
    return f"{one['project_name']}: weight {one['weight']:g}, priority {one['priority']}, {quota}"
