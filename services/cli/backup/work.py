"""What `tides backup` and `tides restore` do with the settings of this environment."""

import asyncio
import sys
from pathlib import Path
from time import monotonic

from libs.common.settings import InvalidSettings, Settings
from services.cli.backup.bring_back import bring_back, check, check_place
from services.cli.backup.manifest import Manifest
from services.cli.backup.take import take
from services.cli.client import Failed
from services.cli.keep import complete
from services.cli.run import database_of, parts

MIB = 1024 * 1024
SAY_EVERY_S = 5.0


async def take_backup(settings: Settings, folder: Path) -> Manifest:
    """Take one of the database that the settings name, embedded or not. Raises Failed."""
    return await take(database_of(settings), _with_keys(settings), folder, _Progress())


def _with_keys(settings: Settings) -> Settings:
    try:
        return complete(settings)
    except InvalidSettings:  # a backup needs none: it only knows them again where they are at hand
        return settings


async def restore_backup(
    settings: Settings, folder: Path, *, replace: bool = False, only_check: bool = False
) -> Manifest:
    """Every check, then all of it or nothing. Raises Failed."""
    manifest = await check(folder, settings)
    async with parts(settings) as whole:
        name = await check_place(whole.database_dsn, whole, replace=replace)
        if only_check:
            return manifest
        if replace:
            await asyncio.to_thread(_confirm, name)
        await bring_back(folder, manifest, whole.database_dsn, replace=replace, progress=_Progress())
    return manifest


def _confirm(name: str) -> None:
    print(
        f"Everything of Tides in database {name} is lost. Type its name to go on: ", end="", file=sys.stderr
    )
    sys.stderr.flush()
    if sys.stdin.readline().strip() != name:
        raise Failed("that was not its name; nothing was changed")


class _Progress:
    """A line on standard error every few seconds."""

    def __init__(self) -> None:
        self._said_at = monotonic()

    def __call__(self, name: str, size: int) -> None:
        if monotonic() - self._said_at >= SAY_EVERY_S:
            self._said_at = monotonic()
            print(f"{name}: {size / MIB:.0f} MiB", file=sys.stderr, flush=True)
