"""`tides backup` and `tides restore`: the whole installation's data in a folder, without its keys."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from libs.common.settings import load_settings
from services.cli import show
from services.cli.keep import complete

MIB = 1024 * 1024


def backup(folder: Annotated[Path, typer.Argument(help="New folder for it.")]) -> None:
    """Write all that the services keep to a folder, from one moment; they go on meanwhile. Keys are not in it."""
    from services.cli.backup.work import take_backup

    manifest = asyncio.run(take_backup(load_settings(), folder))
    size = sum(dump.size for dump in manifest.dumps)
    show.say(f"{folder}: {size / MIB:.1f} MiB, as of {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC")
    if manifest.sealing_keys:
        show.say(f"keep apart from it: TIDES_SEALING_KEYS with {', '.join(manifest.sealing_keys)}")


def restore(
    folder: Annotated[Path, typer.Argument(help="What `tides backup` made.")],
    replace: Annotated[bool, typer.Option("--replace", help="Also where the database is not empty.")] = False,
    only_check: Annotated[bool, typer.Option("--check", help="Only say whether it would work.")] = False,
) -> None:
    """Put a backup into an empty database, whole or not at all. Every process of Tides must be stopped."""
    from services.cli.backup.work import restore_backup

    work = restore_backup(complete(load_settings()), folder, replace=replace, only_check=only_check)
    manifest = asyncio.run(work)
    if only_check:
        show.say(f"{folder}: whole, as of {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC; it can be restored here")
        return
    show.say(f"restored as of {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC; start the services")
