"""How a probe of a resource went: what is kept of it and shown."""

from datetime import datetime
from enum import StrEnum
from typing import Any

import structlog

from libs.common.contracts.probe import Step
from services.registry.models import Resource

log = structlog.get_logger(__name__)


class Outcome(StrEnum):
    """What became of a probe."""

    OPEN = "open"
    PASSED = "passed"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"
    OVERRIDDEN = "overridden"
    """An administrator lent the resource without it."""


def close(resource: Resource, outcome: Outcome, why: str, now: datetime) -> None:
    """The probe is over, or was never wanted; who calls tells others."""
    ended = {"outcome": outcome.value, "ended_at": now.isoformat(), "why": why}
    resource.probe = {**(resource.probe if resource.probe_id and resource.probe else blank(now)), **ended}
    resource.probe_id = resource.probe_until = None
    log.info("probe.closed", resource=resource.name, outcome=outcome.value, why=why)


def withdraw(resource: Resource, why: str, now: datetime) -> None:
    """Nobody waits for the probe any more, if there is one."""
    if resource.probe_id is not None:
        close(resource, Outcome.WITHDRAWN, why, now)


def told(resource: Resource) -> str:
    """How the last probe went, in words; empty: there was none, or it goes on."""
    known = resource.probe
    return "" if known is None or resource.probe_id is not None else f"{known['outcome']}: {known['why']}"


def blank(now: datetime) -> dict[str, Any]:
    """A probe of which nothing is known yet."""
    return {
        "outcome": Outcome.OPEN.value, "asked_at": None, "asked_by": None, "until": None, "step": Step.WAITING.value,
        "reason": "", "at": now.isoformat(), "machine_id": None, "ended_at": None, "why": "",
    }  # fmt: skip
