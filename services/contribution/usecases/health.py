"""How guests do, and what others are told of it: what has held for long enough, once."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import and_, func, or_, select

from libs.common.contracts.supply import GuestHealthChanged
from libs.common.db import Session
from libs.common.ids import new_id
from services.contribution.domain import (
    ABSENT_AFTER,
    DWELL,
    REPEAT_S,
    SILENT_AFTER,
    UNSAID,
    Health,
    Stage,
    Vitals,
    health_of,
)
from services.contribution.models import Contact, Counter, Guest, Machine, Project
from services.contribution.usecases.allotting import lent_to
from services.contribution.usecases.probing import what_they_say

log = structlog.get_logger(__name__)

BATCH = 200
SETTLED = [Health.SILENT.value, Health.ABSENT.value, Health.STOPPED.value]
"""What further silence adds nothing to."""
_AT_ONCE = timedelta(0)
_CLIENT_SILENT_AFTER = timedelta(seconds=3 * REPEAT_S)


def vitals_of(guest: Guest, machine: Machine, *, expects_agent: bool) -> Vitals:
    """What is known of a guest, as its health goes by it."""
    return Vitals(
        enrolled_at=guest.enrolled_at,
        beat_at=guest.beat_at,
        drained=guest.drained_at is not None,
        held=guest.held,
        boinc_error=guest.boinc_error is not None,
        tasks=max(guest.tasks, guest.running),
        expected_since=machine.at if expects_agent and machine.stage == Stage.RUNNING else None,
    )


async def observe(
    session: Session, guest: Guest, machine: Machine, now: datetime, *, expects_agent: bool = True
) -> None:
    """Look at a guest whose row is locked; tell others where its health has been another one for long enough."""
    health = health_of(vitals_of(guest, machine, expects_agent=expects_agent), now)
    if guest.observed != health or guest.observed_at is None:
        guest.observed, guest.observed_at = health, now
    is_news = health not in UNSAID and guest.said != health and machine.stage == Stage.RUNNING
    if not is_news or now - guest.observed_at < DWELL.get(health, _AT_ONCE):
        return
    why = await _why(session, guest, machine, health, now)
    changed = GuestHealthChanged(
        id=new_id(), at=now, machine_id=machine.id, organisation_id=machine.organisation_id,
        resource_id=machine.resource_id, health=health, before=guest.said, why=why, since=guest.observed_at,
    )  # fmt: skip
    session.emit(changed)
    log.info("guest.health_changed", machine=str(machine.id), before=guest.said, health=health.value, why=why)
    guest.said, guest.said_at, guest.said_why = health, now, why or None


async def watch_silent(session: Session, now: datetime, *, expects_agent: bool) -> int:
    """Look at guests that do not tell anything themselves; how many. A guest that is just being heard is left out."""
    heard_at = func.coalesce(Guest.beat_at, Guest.enrolled_at)
    waits = and_(Guest.observed == Health.SILENT, Guest.observed_at > now - DWELL[Health.SILENT])
    never = and_(heard_at.is_(None), Machine.at < now - ABSENT_AFTER)
    silent = heard_at < now - SILENT_AFTER
    query = (
        select(Guest, Machine)
        .join(Machine, Machine.id == Guest.machine_id)
        .where(Machine.stage == Stage.RUNNING)
        .where(or_(never, silent) if expects_agent else silent)
        .where(or_(Guest.said.is_(None), Guest.said.not_in(SETTLED)))
        .where(or_(Guest.observed.is_(None), ~waits))
        .order_by(Guest.machine_id)
        .limit(BATCH)
        .with_for_update(of=Guest, skip_locked=True)
    )
    found = (await session.execute(query)).all()
    for guest, machine in found:
        await observe(session, guest, machine, now, expects_agent=expects_agent)
    return len(found)


async def _why(session: Session, guest: Guest, machine: Machine, health: Health, now: datetime) -> str:
    match health:
        case Health.BROKEN:
            return guest.boinc_error or ""
        case Health.STARVED:
            return (await _why_starved(session, guest, machine, now))[:300]
        case Health.SILENT:
            heard_at = guest.beat_at or guest.enrolled_at or now
            return f"its agent was last heard of {_minutes(now - heard_at)} ago"
        case Health.ABSENT:
            return f"it has run for {_minutes(now - machine.at)} and its agent has not enrolled"
        case _:
            return ""


async def _why_starved(session: Session, guest: Guest, machine: Machine, now: datetime) -> str:
    mine = await lent_to(session, machine)
    if said := what_they_say([project for _, project, _ in mine], guest.alerts or {}):
        return said
    contact = await session.get(Contact, machine.id)
    if contact is None:
        return "its BOINC client has never come to its account manager"
    if now - contact.at > _CLIENT_SILENT_AFTER:
        return f"its BOINC client last came to its account manager {_minutes(now - contact.at)} ago"
    if not mine:
        return "nothing is lent to any project, or their quotas are used up"
    return await _why_no_work(session, machine, [project for _, project, _ in mine])


async def _why_no_work(session: Session, machine: Machine, lent: Sequence[Project]) -> str:
    if all(project.url_signature is None for project in lent):
        return "no project that it is lent to has a signature (`tides project sign`)"
    told = select(Project.name, Counter.starved).join(Project, Project.id == Counter.project_id)
    counters = (await session.execute(told.where(Counter.machine_id == machine.id))).all()
    if not counters:
        return "its BOINC client is attached to no project yet"
    without = sorted(row.name for row in counters if row.starved)
    return f"no work from {', '.join(without)}" if without else "its projects gave it no work"


def _minutes(passed: timedelta) -> str:
    return f"{max(1, round(passed.total_seconds() / 60))} min"
