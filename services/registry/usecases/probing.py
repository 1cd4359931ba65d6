"""Activation: before a resource is lent, one machine of it may have to reach a project. Automatic, with a deadline and
a reason in words; an administrator may lend all the same.

Registry only waits: workload makes the machine and contribution hears of it. Whatever comes first, late, twice or
never ends in one of: passed, failed, withdrawn, overridden.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select

from libs.common.auth import Principal, Role
from libs.common.contracts.probe import ORDER, ProbeFact, Step
from libs.common.contracts.resource import Mode
from libs.common.db import Session
from libs.common.errors import conflict, forbidden
from libs.common.ids import new_id
from services.registry.models import Resource
from services.registry.usecases.outcomes import Outcome, blank, close
from services.registry.usecases.registering import advance, announce, enter

log = structlog.get_logger(__name__)

BATCH = 50
_SILENT = {
    Step.WAITING: "no machine could be made for it",
    Step.REQUESTED: "the cloud has not brought its machine up",
    Step.RUNNING: (
        "its machine runs, but its guest was never heard of: it may have no network, no name service, no agent, or"
        " no way to TIDES_BOINC_URL"
    ),
    Step.ENROLLED: "its guest enrolled, but its BOINC client never asked its account manager",
    Step.CONTACTED: "its BOINC client asked its account manager, but no project took it",
}
"""Why a probe did not pass, by how far it came."""


@dataclass(frozen=True, slots=True)
class Lending:
    """Somebody wants the resource lent. `probe`: first probe it, or not; None: as the resource says."""

    probe: bool | None
    lasts: timedelta


async def lend(
    session: Session, who: Principal, resource: Resource, wish: Lending, now: datetime
) -> Resource:
    """Lend the locked resource, or open a probe whose success lends it; one that goes on is left alone.

    Raises 403 where the resource must be probed and somebody else than an administrator says no, 409 where something
    stands against lending, or it does not only observe.
    """
    must = resource.requires_probe and resource.activated_at is None
    probes = must if wish.probe is None else wish.probe
    if must and not probes and who.role is not Role.ADMIN:
        raise forbidden(
            "This resource must be probed before it is lent.", "Leave `probe` out, or ask an administrator."
        )
    refuse_blocked(resource)
    if not probes:
        if resource.probe_id is not None or must:
            close(resource, Outcome.OVERRIDDEN, f"{who.name} lent the resource without it", now)
        _lend(session, resource, now)
    elif resource.probe_id is None:
        _open(session, who, resource, wish.lasts, now)
    return resource


async def note(session: Session, event: ProbeFact) -> None:
    """How far the probe is, by workload or contribution; one that passes lends the resource at once."""
    resource = await session.get(Resource, event.resource_id, with_for_update=True)
    if resource is None or resource.probe_id != event.probe_id or resource.probe is None:
        return
    known = resource.probe
    if event.step == Step.ENDED:
        _fail(
            session,
            resource,
            f"its machine is gone: {event.reason}" if event.machine_id else event.reason,
            event.at,
        )
        return
    rank, before = ORDER.get(event.step, -1), ORDER.get(known["step"], -1)
    is_news = rank == before and event.at >= datetime.fromisoformat(known["at"])
    if rank > before or is_news:
        machine_id = str(event.machine_id) if event.machine_id else known["machine_id"]
        told = {
            "step": event.step,
            "reason": event.reason,
            "machine_id": machine_id,
            "at": event.at.isoformat(),
        }
        resource.probe = {**known, **told}
    if event.step == Step.ATTACHED:
        _pass(session, resource, event.at)


async def end_late(session: Session, now: datetime) -> int:
    """Probes whose time is over have failed; how many. Those that somebody else has in hand are left out."""
    late = select(Resource).where(Resource.probe_id.is_not(None), Resource.probe_until <= now)
    rows = late.order_by(Resource.id).limit(BATCH).with_for_update(skip_locked=True)
    found = (await session.scalars(rows)).all()
    for resource in found:
        known = resource.probe or {}
        why = _SILENT.get(known.get("step", Step.WAITING), "it did not pass")
        reason = f"{why}: {known['reason']}" if known.get("reason") else why
        _fail(session, resource, f"its time is over: {reason}", now)
    return len(found)


def _open(session: Session, who: Principal, resource: Resource, lasts: timedelta, now: datetime) -> None:
    if resource.mode is not Mode.OBSERVE:
        raise conflict(
            f"The resource is in mode {resource.mode.value}: only one that observes is probed.",
            "Set it to `observe`, then lend it.",
        )
    resource.probe_id, resource.probe_until = new_id(), now + lasts
    asked = {"asked_at": now.isoformat(), "asked_by": who.name, "until": resource.probe_until.isoformat()}
    resource.probe = {**blank(now), **asked}
    advance(resource, now)
    announce(session, resource)
    log.info("probe.opened", resource=resource.name, by=who.name, until=asked["until"])


def _pass(session: Session, resource: Resource, now: datetime) -> None:
    if blockers := _blockers_of(resource):
        why = " ".join(each["detail"] for each in blockers)
        _fail(
            session, resource, f"its machine reached a project, but the resource cannot be lent: {why}", now
        )
        return
    close(resource, Outcome.PASSED, "its machine works for a project", now)
    _lend(session, resource, now)


def _fail(session: Session, resource: Resource, why: str, now: datetime) -> None:
    close(resource, Outcome.FAILED, why, now)
    advance(resource, now)
    announce(session, resource)


def refuse_blocked(resource: Resource) -> None:
    """Raise 409 while the newest validation names something that stands against lending."""
    if blockers := _blockers_of(resource):
        remedies = dict.fromkeys(each["remedy"] for each in blockers)
        raise conflict(
            " ".join(each["detail"] for each in blockers),
            " ".join([*remedies, "Then validate the resource again."]),
        )


def _blockers_of(resource: Resource) -> list[dict[str, str]]:
    found: list[dict[str, str]] = (resource.validation or {}).get("blockers") or []
    return found


def _lend(session: Session, resource: Resource, now: datetime) -> None:
    resource.activated_at = resource.activated_at or now
    enter(session, resource, Mode.LEND, now)
