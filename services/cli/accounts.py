"""`tides account`: the organisation's accounts at projects. `tides credit`: what was claimed, and what was granted."""

import asyncio
from time import monotonic
from typing import Annotated, Any

import typer

from services.cli import show
from services.cli.access import ask, read_secret
from services.cli.client import Client, Failed, plain
from services.cli.names import PROJECT, find
from services.cli.watching import AsJson

WAIT_S = 60.0
LOOK_EVERY_S = 1.0

accounts = typer.Typer(no_args_is_help=True, help="Accounts of your organisation at projects.")
Project = Annotated[str, typer.Argument(help="Name or id.")]
Email = Annotated[str, typer.Option(help="Of the account.")]
FromStdin = Annotated[bool, typer.Option(help="The password is on standard input.")]


@accounts.command("add")
def add_account(  # noqa: PLR0913, PLR0917 - each option of a command is a parameter
    context: typer.Context,
    project: Project,
    email: Email,
    create: Annotated[bool, typer.Option(help="Make the account if there is none.")] = False,
    user_name: Annotated[str, typer.Option(help="Shown in public, of a new account.")] = "",
    invite_code: Annotated[str, typer.Option()] = "",
    password_stdin: FromStdin = False,
) -> None:
    """Look an account up at its project, or make it, and keep its keys here, sealed. The password is used once."""
    body: dict[str, Any] = {
        "email": email,
        "password": read_secret("Password of the account", "--password-stdin", password_stdin),
        "create": create,
        "user_name": user_name,
        "invite_code": invite_code or None,
    }

    async def work(client: Client) -> str:
        known = await find(client, PROJECT, project)
        asked = await client.call("POST", "/v1/accounts", body | {"project_id": known["id"]})
        return await _become(client, asked["id"], known["id"])

    show.say(ask(context, work))


@accounts.command("login")
def log_in(context: typer.Context, project: Project, email: Email, password_stdin: FromStdin = False) -> None:
    """Log in anew, as after a changed password."""
    password = read_secret("Password of the account", "--password-stdin", password_stdin)

    async def work(client: Client) -> str:
        account = await _at(client, project)
        path = f"/v1/accounts/{account['id']}/login"
        await client.call("PUT", path, {"email": email, "password": password})
        return await _become(client, account["id"], account["project_id"])

    show.say(ask(context, work))


@accounts.command("list")
def list_accounts(context: typer.Context, json_: AsJson = False) -> None:
    """Every account, and how it does."""

    async def work(client: Client) -> tuple[list[dict[str, Any]], dict[str, str]]:
        return await client.pages("/v1/accounts"), await _names(client)

    found, names = ask(context, work)
    if json_:
        show.as_json(found)
        return
    rows = [
        [
            names.get(one["project_id"], one["project_id"]),
            one["email"],
            one["user_id"] or "",
            one["state"],
            show.moment(one["credit_at"]),
            one["trouble"],
        ]
        for one in found
    ]
    show.table(["project", "e-mail", "user ", "state", "credit read", "trouble"], rows)


@accounts.command("remove")
def remove_account(context: typer.Context, project: Project) -> None:
    """Forget an account and its keys here; at the project it stays."""

    async def work(client: Client) -> None:
        account = await _at(client, project)
        await client.call("DELETE", f"/v1/accounts/{account['id']}")

    ask(context, work)
    show.say("forgotten here; the account itself stays at its project")


def show_credit(
    context: typer.Context,
    by: Annotated[str, typer.Option(help="project, day, machine or organisation.")] = "project",
    since: Annotated[str | None, typer.Option(help="First day (UTC); else 30 days ago.")] = None,
    until: Annotated[str | None, typer.Option(help="Day after the last (UTC).")] = None,
    json_: AsJson = False,
) -> None:
    """Core-hours and credit that machines claim, beside the credit that projects granted, which comes days later."""

    async def work(client: Client) -> tuple[Any, Any, dict[str, str]]:
        asked = {"by": by, "since": since, "until": until}
        claims, grants = await _all(client, "/v1/claims", asked), await _all(client, "/v1/grants", asked)
        return claims, grants, await _names(client) if by == "project" else {}

    claims, grants, names = ask(context, work)
    if json_:
        show.as_json({"claims": claims, "grants": grants})
        return
    claimed = {item["of"]: item for item in claims["items"]}
    granted = {item["of"]: item["credit"] for item in grants["items"]}
    rows = [
        [
            names.get(of, of),
            _figure(claimed, of, "core_hours"),
            _figure(claimed, of, "credit"),
            _number(granted.get(of)),
        ]
        for of in sorted({*claimed, *granted})
    ]
    rows.append(["all", _number(claims["core_hours"]), _number(claims["credit"]), _number(grants["credit"])])
    show.table([by, "core-hours claimed ", "credit claimed ", "credit granted "], rows)
    if grants["others"]:
        show.say(
            f"Granted to hosts of the same accounts that are no machines of ours: {grants['others']:.1f}"
        )


async def _all(client: Client, path: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The sums with the items of every page."""
    whole: dict[str, Any] = await client.call("GET", path, params=asked)
    cursor = whole.pop("next_cursor", None)
    while cursor:
        page = await client.call("GET", path, params={**asked, "cursor": cursor})
        whole["items"] += page["items"]
        cursor = page["next_cursor"]
    return whole


async def _become(client: Client, account_id: str, project_id: str) -> str:
    """What became of a login, once that is known or a minute is over. Raises Failed with the trouble."""
    until = monotonic() + WAIT_S
    while True:
        account = await client.call("GET", f"/v1/accounts/{account_id}")
        if account["state"] == "ready":
            return f"{plain(account['email'])} is user {account['user_id']}; lend with --stored-account"
        if account["state"] == "refused":
            raise Failed(plain(account["trouble"]))
        project = await client.call("GET", f"/v1/projects/{project_id}")
        trouble = (project["seen"] or {}).get("trouble")
        if trouble or monotonic() > until:
            why = f": {plain(trouble)}" if trouble else ""
            return f"asked for{why}. The project is asked again for a day; see tides account list"
        await asyncio.sleep(LOOK_EVERY_S)


async def _at(client: Client, project: str) -> dict[str, Any]:
    known = await find(client, PROJECT, project)
    found = [one for one in await client.pages("/v1/accounts") if one["project_id"] == known["id"]]
    if len(found) != 1:
        raise Failed(
            f"there {'are several accounts' if found else 'is no account'} at {plain(known['name'])}"
        )
    return found[0]


async def stored_account(client: Client, project_id: str) -> str:
    """The id of the organisation's account at the project. Raises Failed."""
    return str((await _at(client, project_id))["id"])


async def _names(client: Client) -> dict[str, str]:
    return {one["id"]: one["name"] for one in await client.pages(PROJECT.path)}


def _figure(items: dict[str, Any], of: str, name: str) -> str:
    return _number(items[of][name] if of in items else None)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
