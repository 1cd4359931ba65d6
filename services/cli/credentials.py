"""The alternate credential of a cloud: as whom else it is asked while it refuses the first one."""

from typing import Annotated, Any

import typer

from services.cli import show
from services.cli.access import read_secret
from services.cli.client import plain

User = Annotated[
    str | None,
    typer.Option(
        "--alternate-user", help="Another account of the same cloud, used while the first is refused."
    ),
]
PasswordStdin = Annotated[
    bool, typer.Option("--alternate-password-stdin", help="The alternate's password is on standard input.")
]
No = Annotated[bool, typer.Option("--no-alternate", help="Take the alternate account away.")]


def to_alternate(user: str | None, password_stdin: bool, takes_away: bool) -> dict[str, Any]:
    """What a change says of the alternate; empty where nothing was given. Raises typer.BadParameter."""
    if takes_away and (user is not None or password_stdin):
        raise typer.BadParameter("give --alternate-user or --no-alternate")
    if takes_away:
        return {"alternate": None}
    if user is None:
        if password_stdin:
            raise typer.BadParameter("--alternate-password-stdin needs --alternate-user")
        return {}
    password = read_secret(f"Password of {user}", "--alternate-password-stdin", password_stdin)
    return {"alternate": {"username": user, "password": password}}


def tell_alternate(resource: dict[str, Any]) -> None:
    """Which account is in use, and why."""
    alternate = resource.get("alternate")
    if alternate is None:
        return
    if not alternate["in_use"]:
        show.say(f"alternate account: {alternate['username']}, not in use")
        return
    show.say(alternate_words(resource))
    again = show.moment(alternate["first_try_at"])
    show.say(
        f"{resource['username']} is tried again at {again}, and at once by"
        f" `tides resource validate {resource['name']}` or with another password"
    )


def alternate_words(resource: dict[str, Any]) -> str:
    """That the alternate account is in use, since when and why."""
    alternate = resource["alternate"]
    since, why = show.moment(alternate["since"]), plain(alternate["why"] or "")
    return f"asked as {plain(alternate['username'])} since {since}: {plain(resource['username'])} is refused ({why})"
