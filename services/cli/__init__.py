"""`tides`: the one module that knows all services, by name only."""

import asyncio
import sys
from typing import Annotated

import typer

from libs.common.serve import CannotListen
from libs.common.settings import InvalidSettings, load_settings
from services.cli.run import run_process

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def tides() -> None:
    """Lend a private cloud's idle capacity to research, and give it back within seconds."""


@app.command("run")
def run_some(services: Annotated[list[str], typer.Argument(help="Service names, or `all`.")]) -> None:
    """Run services in this process until Ctrl-C."""
    asyncio.run(run_process(services, load_settings()))


def main() -> None:
    """Run a command; what a person can mend is one line on standard error and a non-zero exit."""
    try:
        app()
    except (InvalidSettings, CannotListen) as error:
        print(f"tides: {error}", file=sys.stderr)
        raise SystemExit(2) from None
