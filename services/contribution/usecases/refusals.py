"""Keys that projects refuse to machines: noticed from what their clients were told, asked anew once, and said."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy import select, update

from libs.common.db import Session
from services.contribution.domain import NEWS, Stage, is_key_refused
from services.contribution.models import Contribution, Guest, Machine, Project, Visit

log = structlog.get_logger(__name__)


async def note_alerts(
    session: Session, guest: Guest, machine: Machine, alerts: Mapping[str, str], now: datetime
) -> None:
    """Keep what a guest's client was told; a key that is refused, or not any more, is noted at its contribution."""
    before, guest.alerts = guest.alerts or {}, dict(alerts)
    refused = {url: text for url, text in alerts.items() if is_key_refused(text)}
    taken = [url for url, text in before.items() if is_key_refused(text) and url not in refused]
    if taken:
        await _forget(session, machine, taken)
    if refused and machine.stage == Stage.RUNNING:
        await _note(session, machine, refused, now)


async def refused_by(session: Session, account_id: UUID) -> str | None:
    """What the project says to machines that come with the account's key; None: nothing against it."""
    mine = (Contribution.account_id == account_id) & Contribution.gone.is_(False)
    query = select(Contribution.refused_why).where(mine, Contribution.refused_at.is_not(None))
    why = await session.scalar(query.limit(1))
    return None if why is None else f"The project refuses machines the key that it tells: {why}"[:300]


def forget_refusal(contribution: Contribution) -> None:
    """It has another key now."""
    contribution.refused_at, contribution.refused_why = None, None


async def _note(session: Session, machine: Machine, refused: Mapping[str, str], now: datetime) -> None:
    """Once for each contribution; a key that is news to clients is not judged by them yet.

    A stored account's key is asked for anew at once: visits are locked first, as by whoever asks projects.
    """
    lent = (
        select(Contribution.id, Contribution.account_id, Contribution.project_id, Project.name, Project.url)
        .join(Project, Project.id == Contribution.project_id)
        .where(Contribution.organisation_id == machine.organisation_id, Project.url.in_(refused))
        .where(Contribution.active.is_(True), Contribution.gone.is_(False))
        .where(Contribution.refused_at.is_(None), Contribution.updated_at < now - NEWS)
        .order_by(Contribution.id)
    )
    found = (await session.execute(lent)).all()
    asked = sorted(row.project_id for row in found if row.account_id is not None)
    for project_id in asked:
        await session.execute(update(Visit).where(Visit.project_id == project_id).values(due_at=now))
    for row in found:
        why = refused[row.url][:300]
        mine = (Contribution.id == row.id) & Contribution.refused_at.is_(None)
        noted = update(Contribution).where(mine).values(refused_at=now, refused_why=why)
        if await session.scalar(noted.returning(Contribution.id)) is not None:
            about = {"contribution": str(row.id), "project": row.name, "machine": str(machine.id)}
            log.warning("contribution.key_refused", **about, why=why)


async def _forget(session: Session, machine: Machine, urls: list[str]) -> None:
    projects = select(Project.id).where(Project.url.in_(urls))
    mine = Contribution.organisation_id == machine.organisation_id
    noted = update(Contribution).where(mine, Contribution.project_id.in_(projects))
    await session.execute(noted.values(refused_at=None, refused_why=None))
