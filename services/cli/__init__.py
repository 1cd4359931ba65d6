"""`tides`: the one module that knows all services, by name only."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from libs.common.bus.base import BusUnavailable
from libs.common.embedded import EmbeddedPostgresFailed
from libs.common.log import configure
from libs.common.reaching import ServerUnreachable
from libs.common.settings import InvalidSettings
from services.cli import (
    accounts,
    backup,
    boinc,
    chaos,
    clouds,
    demo,
    floor,
    guests,
    images,
    lending,
    operate,
    people,
    projects,
    rules,
    simulated,
    sites,
    sweeps,
    vsphere,
    watching,
)
from services.cli.access import Access
from services.cli.client import Failed

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Lends the unused capacity of a private cloud to science, and gives it back at once.",
    epilog="TIDES_URL (and TIDES_URL_<SERVICE>) say where the services are, TIDES_TOKEN who asks.",
)
operate.add_to(app)
watching.add_to(app)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("demo")(demo.demo)
app.command("chaos")(chaos.chaos)
app.add_typer(clouds.resources, name="resource")
app.add_typer(sites.sites, name="site")
app.add_typer(images.templates, name="template")
app.add_typer(rules.policies, name="policy")
app.add_typer(projects.projects, name="project")
app.add_typer(lending.contributions, name="contribution")
app.add_typer(accounts.accounts, name="account")
app.command("credit")(accounts.show_credit)
app.add_typer(floor.clusters, name="cluster")
app.add_typer(floor.machines, name="machine")
app.add_typer(guests.guests, name="guest")
app.add_typer(sweeps.sweeps, name="sweep")
app.add_typer(people.users, name="user")
app.add_typer(people.tokens, name="token")
app.add_typer(vsphere.vsphere, name="vsphere")
app.add_typer(boinc.boinc, name="boinc")
app.add_typer(simulated.simulated, name="simulated")


@app.callback()
def begin(
    context: typer.Context,
    token_file: Annotated[
        Path | None,
        typer.Option(envvar="TIDES_TOKEN_FILE", help="Personal API token, instead of TIDES_TOKEN."),
    ] = None,
) -> None:
    """What stands before every command."""
    context.obj = Access(token_file)


def main() -> None:
    """Run a command; what a person can mend is one line on standard error and a non-zero exit. Logs go there, too."""
    configure("WARNING", "console")
    try:
        app()
    except InvalidSettings as error:
        _end(error, 2)
    except (Failed, EmbeddedPostgresFailed, BusUnavailable, ServerUnreachable) as error:
        _end(error, 1)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _end(error: Exception, code: int) -> None:
    print(f"tides: {error}", file=sys.stderr)
    raise SystemExit(code) from None
