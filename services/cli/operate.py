"""`tides run`, `migrate`, `settings`, `keys`, `dead`, `doctor`, `version`: what an operator does on the machine itself.

Services are imported where they are needed: a command that only asks need not wait for them.
"""

import asyncio
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from libs.common.loop import run_loop
from libs.common.settings import load_settings
from services.cli import show
from services.cli.keep import fresh
from services.cli.watching import AsJson

dead = typer.Typer(no_args_is_help=True, help="Messages that could not be handled.")
Seconds = Annotated[float, typer.Option(min=1, max=300, help="How long each check may take.")]
Services = Annotated[list[str], typer.Argument(help="Service names, or `all`.")]


def add_to(app: typer.Typer) -> None:
    """Put the commands on the app."""
    app.command("run")(run_services)
    app.command("migrate")(migrate_schemas)
    app.command("settings")(show_settings)
    app.command("keys")(make_keys)
    app.command("doctor")(see_doctor)
    app.command("version")(tell_version)
    app.add_typer(dead, name="dead")


def run_services(services: Services) -> None:
    """Run services in this process until Ctrl-C."""
    from services.cli.run import insist_on_database, run_process

    settings = load_settings()
    insist_on_database(services, settings)
    run_loop(run_process(services, settings))


def migrate_schemas(services: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Bring the schemas of services to the newest version; `tides run` does so by itself."""
    from services.cli.run import chosen
    from services.cli.upkeep import migrate_all

    names = chosen(services or ["all"])
    asyncio.run(migrate_all(names, load_settings()))
    show.say(f"up to date: {', '.join(names)}")


def show_settings() -> None:
    """Every setting of this environment; secrets are masked."""
    rows = [[setting.name, setting.value, setting.source] for setting in load_settings().describe()]
    show.table(["variable", "value", ""], rows)


def make_keys() -> None:
    """Print fresh keys as environment variables, for an installation of several processes."""
    kept = fresh()
    print(f"TIDES_INSTALLATION_ID={kept.installation_id}")
    print(f"TIDES_SEALING_KEYS={kept.sealing_keys}")
    print(f"TIDES_SIGNING_KEY='{kept.signing_key}'")
    print(f"TIDES_VERIFY_KEYS='{kept.verify_keys}'")
    print(f"TIDES_BOOTSTRAP_ADMIN_TOKEN={kept.admin_token}")


def see_doctor(context: typer.Context, json_: AsJson = False, within: Seconds = 15.0) -> None:
    """Look at everything that Tides depends on, and say what to do; exit code 1 if anything fails. Changes nothing."""
    from services.cli.doctor import doctor

    doctor(context, as_json=json_, within_s=within)


def tell_version() -> None:
    """The version."""
    print(f"tides {installed_version('tides')}")


@dead.command("list")
def list_dead() -> None:
    """Messages that were given up, oldest first."""
    from services.cli.upkeep import dead_messages

    found = asyncio.run(dead_messages(load_settings()))
    rows = [[one.number, one.queue, one.message.headers.get("ce-time", ""), one.reason] for one in found]
    show.table(["number ", "queue", "said at", "reason"], rows)


@dead.command("retry")
def retry_dead(number: Annotated[int | None, typer.Argument(help="Left out: all.")] = None) -> None:
    """Put messages back into their queues."""
    from services.cli.upkeep import retry_messages

    count = asyncio.run(retry_messages(load_settings(), number))
    show.say(f"{count} messages are back in their queues")
