"""Who asks and where: `TIDES_URL`, `TIDES_URL_<SERVICE>`, and a token that is never an argument."""

import asyncio
import getpass
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import typer
from pydantic import SecretStr

from libs.common.settings import InvalidSettings, load_settings
from services.cli.client import SERVICE_OF, Client, Failed, Target, open_client
from services.cli.keep import FILE

T = TypeVar("T")
DEFAULT_URL = "http://127.0.0.1:8080"
_HERE = ("127.0.0.1", "localhost", "::1")
_LONGEST_SECRET = 65_536


@dataclass(frozen=True, slots=True)
class Access:
    """What the options before the command said."""

    token_file: Path | None = None


def ask(context: typer.Context, work: Callable[[Client], Awaitable[T]]) -> T:
    """Do the work with a client for the services that the environment names. Raises Failed, InvalidSettings."""
    access = context.find_object(Access) or Access()
    return asyncio.run(_ask(find_target(access.token_file), work))


async def _ask(target: Target, work: Callable[[Client], Awaitable[T]]) -> T:
    async with open_client(target) as client:
        return await work(client)


def find_target(token_file: Path | None) -> Target:
    """Addresses and token as the environment has them. Raises Failed."""
    url = os.environ.get("TIDES_URL") or DEFAULT_URL
    names = {service: os.environ.get(f"TIDES_URL_{service.upper()}") for service in set(SERVICE_OF.values())}
    by_service = {service: address for service, address in names.items() if address}
    for address in (url, *by_service.values()):
        if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
            raise InvalidSettings("TIDES_URL: no address; give http://host:port")
    return Target(url, _find_token(token_file, by_service.get("identity", url)), by_service)


def _find_token(token_file: Path | None, identity_url: str) -> SecretStr:
    """The token given, else that of an installation of this user's on this machine: it goes nowhere else."""
    given = os.environ.get("TIDES_TOKEN", "").strip()
    if token_file is not None:
        try:
            given = token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Failed(f"--token-file: {getattr(error, 'strerror', None) or 'not a text file'}") from None
    elif not given and urlsplit(identity_url).hostname in _HERE:
        given = _kept_token()
    if not given:
        raise Failed("no token: set TIDES_TOKEN, or name a file with --token-file or TIDES_TOKEN_FILE")
    return SecretStr(given)


def _kept_token() -> str:
    try:
        kept = json.loads((load_settings().data_dir / FILE).read_text(encoding="utf-8"))
        return str(kept["admin_token"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def read_secret(what: str, option: str, given: bool) -> str:
    """A secret from standard input; typed unseen where a person sits there. Raises typer.BadParameter."""
    if sys.stdin.isatty():
        secret = getpass.getpass(f"{what}: ")
    elif given:
        secret = sys.stdin.read(_LONGEST_SECRET).rstrip("\r\n")
    else:
        raise typer.BadParameter(
            f"a secret is never an argument: give {option} and write it to standard input"
        )
    if not secret:
        raise typer.BadParameter(f"{option}: nothing was written to standard input")
    return secret
