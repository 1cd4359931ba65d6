"""Probes: how far a resource's probe machine has come, as its guest and its client tell; each step once."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import structlog
from sqlalchemy import update

from libs.boinc.manager import ReportedProject
from libs.common.contracts.probe import ORDER, ProbeReported, Step
from libs.common.db import Session
from libs.common.ids import new_id
from services.contribution.models import Guest, Machine, Project

log = structlog.get_logger(__name__)

_LONGEST = 300


async def report(session: Session, machine: Machine, step: Step, why: str, now: datetime) -> None:
    """Say that the probe has come so far, or that there is another reason why it comes no further. Of a machine that
    is no probe nothing is said."""
    if machine.probe_id is None:
        return
    rank, why = ORDER[step], why[:_LONGEST]
    is_news = (Machine.probe_step == rank) & (Machine.probe_why.is_distinct_from(why or None))
    further = (Machine.id == machine.id) & ((Machine.probe_step < rank) | is_news)
    moved = update(Machine).where(further).values(probe_step=rank, probe_why=why or None)
    if await session.scalar(moved.returning(Machine.id)) is None:
        return
    reported = ProbeReported(
        id=new_id(), at=now, probe_id=machine.probe_id, resource_id=machine.resource_id, machine_id=machine.id,
        step=step, reason=why,
    )  # fmt: skip
    session.emit(reported)
    log.info("probe.reported", machine=str(machine.id), step=step.value, why=why)


async def report_contact(
    session: Session,
    machine: Machine,
    lent: Sequence[Project],
    reported: Sequence[ReportedProject],
    now: datetime,
) -> None:
    """What a contact of its client says: it passed with the first project whose scheduler has given it a host."""
    if machine.probe_id is None:
        return
    urls = {project.url for project in lent}
    if any(each.host_id > 0 and each.url in urls for each in reported):
        await report(session, machine, Step.ATTACHED, "", now)
    else:
        guest = await session.get(Guest, machine.id)
        alerts = {} if guest is None else guest.alerts
        await report(session, machine, Step.CONTACTED, why_not_taken(lent, reported, alerts), now)


def why_not_taken(
    lent: Sequence[Project], reported: Sequence[ReportedProject], alerts: Mapping[str, str]
) -> str:
    """Why no project has taken the client, in words; in the project's own where it has said any."""
    if not lent:
        return "no project is lent to from here"
    signed = [project for project in lent if project.url_signature is not None]
    if not signed:
        names = ", ".join(project.name for project in lent)
        return f"the address of {names} is not signed, so no client takes it: `tides project sign`"
    if said := what_they_say(signed, alerts):
        return said
    failing = {each.url for each in reported if each.failed_contacts > 0}
    silent = [project.name for project in signed if project.url in failing]
    if silent:
        return f"the client cannot reach {', '.join(silent)}, or is refused there"
    return f"the client has not been taken by {', '.join(project.name for project in signed)} yet"


def what_they_say(lent: Sequence[Project], alerts: Mapping[str, str]) -> str:
    """What projects complained of, by their names; empty: of nothing."""
    return "; ".join(f"{each.name} says: {alerts[each.url]}" for each in lent if each.url in alerts)
