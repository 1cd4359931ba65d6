"""Keeping house: whose database this is, and how long decisions and events are kept."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from libs.common.db import Session
from services.workload.models import ActionRecord, DecisionRecord, Installation
from services.workload.usecases.leasing import SHARING

KEEP_DECISIONS = timedelta(days=30)
KEEP_EVENTS = timedelta(days=90)


async def belongs_to(session: Session, installation_id: UUID, now: datetime) -> bool:
    """Whether this database is that of the installation; a new database becomes so at the first question.

    Machines carry the installation in their mark: with another one's database every machine would be a stranger.
    """
    known = (await session.execute(select(Installation.id))).scalar_one_or_none()
    if known is None:
        row = insert(Installation).values(id=installation_id, created_at=now).on_conflict_do_nothing()
        await session.execute(row)
        return True
    return known == installation_id


async def forget_old(session: Session, now: datetime) -> None:
    """Drop decisions and events that are past their time, stats keeps the figures; and replicas that ended long ago."""
    await session.execute(delete(DecisionRecord).where(DecisionRecord.at < now - KEEP_DECISIONS))
    await session.execute(delete(ActionRecord).where(ActionRecord.at < now - KEEP_EVENTS))
    await SHARING.forget(session)
