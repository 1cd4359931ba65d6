"""`tides simulated`: a cloud in a file, for trying Tides out without one of one's own."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from libs.providers.simulated import (
    Cloud,
    ClusterDefinition,
    OwnerProfile,
    SimulatedSettings,
    attach_cloud,
    create_cloud,
)
from services.cli import show
from services.cli.access import read_secret
from services.cli.client import Failed

simulated = typer.Typer(no_args_is_help=True, help="A cloud in a file, for trying things out.")
File = Annotated[Path, typer.Argument(help="Where the cloud is kept.")]


@simulated.command("make")
def make(
    file: File,
    password_stdin: Annotated[bool, typer.Option(help="The password is on standard input.")] = False,
    hosts: Annotated[int, typer.Option()] = 2,
    owner: Annotated[OwnerProfile, typer.Option(help="How its owner uses it.")] = OwnerProfile.IDLE,
    interval: Annotated[int, typer.Option(help="Seconds of a sample; 20 in vSphere.")] = 20,
    quick: Annotated[
        bool, typer.Option("--quick", help="Clones and boots take a second, not minutes.")
    ] = False,
) -> None:
    """Make a cloud of one cluster, and print the address to register it under."""
    password = read_secret("Password of the cloud", "--password-stdin", password_stdin)
    try:
        cluster = ClusterDefinition(name="lab", hosts=hosts, owner=owner)
        times = {"clone_s": 1.0, "boot_s": 1.0} if quick else {}
        made = SimulatedSettings(clusters=(cluster,), interval_s=interval, **times)
        show.say(create_cloud(_url(file), password, made).url)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise Failed(f"{wrong['loc'][-1]}: {wrong['msg']}") from None
    except (OSError, ValueError) as error:
        raise Failed(f"{file}: {error}") from None


@simulated.command("load")
def load(
    file: File,
    fraction: Annotated[float, typer.Argument(help="What its owner uses of each host's CPU, 0 to 1.")],
) -> None:
    """Be the cloud's owner: from now on use so much of every host."""
    try:
        cloud: Cloud = attach_cloud(_url(file))
        for one in cloud.truth().hosts:
            cloud.control.set_owner_load(one.host, fraction)
    except (LookupError, OSError, ValueError) as error:
        raise Failed(f"{file}: {error}") from None


def _url(file: Path) -> str:
    return f"sim://{file.expanduser().absolute()}"
