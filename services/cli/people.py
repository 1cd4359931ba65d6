"""`tides user`, `tides token`: who may do what."""

from typing import Annotated, Any

import typer

from services.cli import show
from services.cli.access import ask, read_secret
from services.cli.client import Client
from services.cli.names import USER, find
from services.cli.watching import AsJson

users = typer.Typer(no_args_is_help=True, help="Users and their roles.")
tokens = typer.Typer(no_args_is_help=True, help="Personal API tokens.")


@users.command("add")
def add_user(
    context: typer.Context,
    name: str,
    role: Annotated[str, typer.Option(help="admin, operator, viewer or service.")],
    password_stdin: Annotated[bool, typer.Option(help="The password is on standard input.")] = False,
) -> None:
    """Let somebody in: with a password, or without one by `tides token create --user`."""
    body = {"name": name, "role": role}
    if password_stdin:
        body["password"] = read_secret(f"Password of {name}", "--password-stdin", password_stdin)
    added = ask(context, lambda client: client.call("POST", "/v1/users", body))
    show.say(f"{added['name']} is {added['role']}")


@users.command("list")
def list_users(context: typer.Context, json_: AsJson = False) -> None:
    """Every user."""
    found = ask(context, lambda client: client.pages(USER.path))
    if json_:
        show.as_json(found)
        return
    rows = [[one["name"], one["role"], "disabled" if one["disabled"] else ""] for one in found]
    show.table(["name", "role", ""], rows)


def _change(context: typer.Context, name: str, **changes: Any) -> None:
    async def work(client: Client) -> Any:
        known = await find(client, USER, name)
        seen = {"If-Match": f'"{known["revision"]}"'}
        return await client.call("PATCH", f"/v1/users/{known['id']}", changes, headers=seen)

    changed = ask(context, work)
    state = "disabled" if changed["disabled"] else "enabled"
    show.say(f"{changed['name']} is {changed['role']}, {state}")


Name = Annotated[str, typer.Argument(help="Name or id.")]


@users.command("disable")
def disable_user(context: typer.Context, name: Name) -> None:
    """Let somebody in no more; their tokens and logins are void within seconds."""
    _change(context, name, disabled=True)


@users.command("enable")
def enable_user(context: typer.Context, name: Name) -> None:
    """Let somebody in again; their tokens stay void."""
    _change(context, name, disabled=False)


@users.command("role")
def set_role(
    context: typer.Context,
    name: Name,
    role: Annotated[str, typer.Argument(help="admin, operator, viewer or service.")],
) -> None:
    """Give somebody another role; their tokens and logins are void."""
    _change(context, name, role=role)


@users.command("password")
def set_password(
    context: typer.Context,
    name: Name,
    password_stdin: Annotated[bool, typer.Option(help="The password is on standard input.")] = False,
) -> None:
    """Give somebody a password; their logins end."""
    secret = read_secret(f"Password of {name}", "--password-stdin", password_stdin)

    async def work(client: Client) -> Any:
        known = await find(client, USER, name)
        await client.call("PUT", f"/v1/users/{known['id']}/password", {"password": secret})
        return known

    show.say(f"{ask(context, work)['name']} has another password")


@tokens.command("create")
def create_token(
    context: typer.Context,
    label: str,
    days: Annotated[int | None, typer.Option(min=1)] = None,
    user: Annotated[str | None, typer.Option(help="For somebody else; administrators only.")] = None,
) -> None:
    """Make a token and print it; it can never be shown again."""

    async def work(client: Client) -> Any:
        body: dict[str, Any] = {"label": label}
        if days is not None:
            body["days"] = days
        if user is not None:
            body["user_id"] = (await find(client, USER, user))["id"]
        return await client.call("POST", "/v1/tokens", body)

    print(ask(context, work)["token"])


@tokens.command("list")
def list_tokens(context: typer.Context, json_: AsJson = False) -> None:
    """One's own tokens, newest first."""
    found = ask(context, lambda client: client.pages("/v1/tokens"))
    if json_:
        show.as_json(found)
        return
    rows = [
        [one["id"], one["label"], show.moment(one["expires_at"]), "revoked" if one["revoked_at"] else ""]
        for one in found
    ]
    show.table(["id", "label", "expires", ""], rows)


@tokens.command("revoke")
def revoke_token(context: typer.Context, token_id: Annotated[str, typer.Argument(help="Id.")]) -> None:
    """Void a token everywhere, within seconds."""
    ask(context, lambda client: client.call("DELETE", f"/v1/tokens/{token_id}"))
    show.say(f"{token_id} is void")
