"""`tides doctor`: looks at everything that Tides depends on, and says what to do. It changes nothing."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version as installed_version
from platform import python_version

import typer
from rich.text import Text

from libs.common.settings import InvalidSettings, Settings, load_settings
from services.cli import show
from services.cli.access import Access, find_target
from services.cli.client import Failed, plain
from services.cli.doctor import doors, stores, wires
from services.cli.doctor.findings import Check, Finding, Grade, examine, fail, ok
from services.cli.doctor.installation import found
from services.cli.run import NothingHere

_COLOURS = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "bold red"}


def doctor(context: typer.Context, *, as_json: bool, within_s: float) -> None:
    """Show every finding, as a table or as JSON; ends the program with 1 if anything fails."""
    access = context.find_object(Access) or Access()
    findings = asyncio.run(examine_all(access, within_s))
    if as_json:
        show.as_json({"ok": not _fails(findings), "checks": [asdict(finding) for finding in findings]})
    else:
        rows = [[_grade(one), one.check, one.what, one.remedy] for one in findings]
        show.table(["", "check", "found", "what to do"], rows)
    if _fails(findings):
        sys.exit(1)


def _fails(findings: Sequence[Finding]) -> bool:
    return any(finding.grade is Grade.FAIL for finding in findings)


def _grade(finding: Finding) -> Text:
    return Text(plain(finding.grade.value), style=_COLOURS[finding.grade])


async def examine_all(access: Access, within_s: float) -> list[Finding]:
    """What is over REST and what is on this machine, side by side."""
    about = ok("program", f"tides {installed_version('tides')} on Python {python_version()}")
    outside, inside = await asyncio.gather(examine(_outer(access), within_s), _examine_inside(within_s))
    return [about, *inside, *outside]


def _outer(access: Access) -> dict[str, Check]:
    try:
        return doors.checks(find_target(access.token_file))
    except (Failed, InvalidSettings) as error:
        told = fail("services", str(error), "Set what the message names, then ask again.")

        async def say() -> list[Finding]:
            return [told]

        return {"services": say}


async def _examine_inside(within_s: float) -> list[Finding]:
    remedy = "Ask where the services run, with their environment (TIDES_DATABASE_URL, TIDES_BUS_URL)."
    try:
        return await _examine_installation(load_settings(), within_s)
    except (NothingHere, InvalidSettings) as error:
        return [fail("settings", line, remedy) for line in str(error).splitlines()]


async def _examine_installation(settings: Settings, within_s: float) -> list[Finding]:
    async with found(settings) as place:
        return await examine({**stores.checks(place), **wires.checks(place)}, within_s)
