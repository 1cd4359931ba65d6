"""What a check finds, and how checks are run: side by side, each with a deadline, none hidden by another."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from libs.common.log import mask_text


class Grade(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, and should be looked at."""
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    grade: Grade
    what: str
    remedy: str = ""


Check = Callable[[], Awaitable[Sequence[Finding]]]


def ok(check: str, what: str) -> Finding:
    """All is well."""
    return Finding(check, Grade.OK, what)


def warn(check: str, what: str, remedy: str) -> Finding:
    """It works, and should be looked at."""
    return Finding(check, Grade.WARN, what, remedy)


def fail(check: str, what: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check, Grade.FAIL, what, remedy)


async def examine(checks: Mapping[str, Check], within_s: float) -> list[Finding]:
    """Run every check at once and give their findings in order; what hangs or breaks is a finding of its own."""
    tasks = {name: asyncio.create_task(_run(name, check)) for name, check in checks.items()}
    if tasks:
        await asyncio.wait(tasks.values(), timeout=within_s)
    found: list[Finding] = []
    for name, task in tasks.items():
        if task.done():
            found += task.result()
        else:
            task.cancel()
            remedy = "It hangs: look whether it is overloaded, or something on the way drops packets."
            found.append(fail(name, f"no answer within {within_s:g} s", remedy))
    return [_masked(finding) for finding in found]


async def _run(name: str, check: Check) -> Sequence[Finding]:
    try:
        return await check()
    except Exception as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        return [fail(name, f"it cannot be looked at: {told}", "Mend what the message names, then ask again.")]


def _masked(finding: Finding) -> Finding:
    return Finding(finding.check, finding.grade, mask_text(finding.what), mask_text(finding.remedy))
