"""`tides boinc`: keys, kept off every server: that which signs addresses, those of accounts. Asks no service."""

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from services.cli import demo_project, show
from services.cli.access import read_secret
from services.cli.client import Failed

AGREED_DIGITS = 16

boinc = typer.Typer(
    no_args_is_help=True,
    help="Keys: of the BOINC account manager (offline), of accounts at projects; a project to try things with.",
)
boinc.command("project")(demo_project.run_project)


@boinc.command("keygen")
def generate_key(
    out: Annotated[Path, typer.Option(help="New file for the private key; keep it off every server.")],
) -> None:
    """Make a signing key and print its public text, which every client pins: it must stay the same for ever."""
    from libs.boinc.signing import SigningKey

    key = SigningKey.generate()
    try:
        _write_new(out, key.to_pem())
    except FileExistsError:
        raise Failed(f"--out: {out} exists and is never overwritten; name another file") from None
    except OSError as error:
        raise Failed(f"--out: {out}: {error.strerror}; name a file in a folder that you can write") from None
    print(key.public.text, end="")


@boinc.command("sign")
def sign_url(
    url: Annotated[str, typer.Argument(help="The project's master URL, as it calls itself.")],
    key: Annotated[Path, typer.Option(help="The private key's file.")],
) -> None:
    """Print the signature block of a project's master URL."""
    from libs.boinc.account import canonical_url
    from libs.boinc.signing import SigningKey

    try:
        canonical = canonical_url(url)
    except ValueError as error:
        raise Failed(f"URL: the address {error}; give the project's master URL") from None
    if canonical != url:
        raise Failed(f"URL: clients compare every character; give it as {canonical}")
    try:
        signer = SigningKey.from_pem(key.read_bytes())
    except OSError as error:
        raise Failed(f"--key: {key}: {error.strerror}; name the file that keygen wrote") from None
    except ValueError as error:
        raise Failed(f"--key: {key} {error}; name the file that keygen wrote") from None
    print(signer.sign(url), end="")


def _write_new(path: Path, content: bytes) -> None:
    """A file of its owner alone, whole or not there. Raises FileExistsError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


@boinc.command("weak-key")
def print_weak_key(  # noqa: PLR0913, PLR0917 - each option of a command is a parameter
    url: Annotated[str, typer.Argument(help="The project's master URL.")],
    email: Annotated[str, typer.Option(help="Of the account.")],
    create: Annotated[bool, typer.Option(help="Make the account if there is none.")] = False,
    user_name: Annotated[str, typer.Option(help="Shown in public, of a new account.")] = "",
    invite_code: Annotated[str, typer.Option()] = "",
    agree: Annotated[str, typer.Option(help="Hash of the project's terms, which you have read.")] = "",
    password_stdin: Annotated[bool, typer.Option(help="The password is on standard input.")] = False,
) -> None:
    """Print the weak account key, for `tides contribution add`; the strong key is kept nowhere. Asks the project."""
    from libs.boinc.web import ProjectRefused, ProjectUnavailable

    if create and not user_name.strip():
        raise Failed("--user-name: a new account needs a name that the project shows")
    password = read_secret("Password of the account", "--password-stdin", password_stdin)
    wish = _Wish(email, password, user_name, invite_code, agree) if create else _Wish(email, password)
    try:
        print(asyncio.run(_weak_key(url, wish)))
    except ValueError as error:
        raise Failed(f"URL: the address {error}; give the project's master URL") from None
    except (ProjectUnavailable, ProjectRefused) as error:
        raise Failed(str(error)) from None


@dataclass(frozen=True, slots=True)
class _Wish:
    """An account that is there, or with a user name one that may be made."""

    email: str
    password: str = field(repr=False)
    user_name: str = ""
    invite_code: str = field(default="", repr=False)
    agreed: str = ""


async def _weak_key(url: str, wish: _Wish) -> str:
    from libs.boinc.web import ANYWHERE, open_project, password_hash

    async with open_project(url, ANYWHERE) as asked:
        config = await asked.config()
    if config.down:
        raise Failed("the project is down for maintenance; try again later")
    secret = password_hash(wish.password, wish.email)
    async with open_project(config.rpc_url, ANYWHERE) as project:
        if not wish.user_name:
            return (await project.account(await project.lookup_account(wish.email, secret))).weak_key
        if config.terms and not (
            len(wish.agreed) >= AGREED_DIGITS and config.terms_hash.startswith(wish.agreed)
        ):
            show.say(config.terms)
            raise Failed(
                f"--agree: read the project's terms above, then give --agree {config.terms_hash[:AGREED_DIGITS]}"
            )
        strong = await project.create_account(
            wish.email, secret, wish.user_name, invite_code=wish.invite_code, consent=True
        )
        return (await project.account(strong)).weak_key
