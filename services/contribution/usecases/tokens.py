"""Whose tokens are known, all at once: so that nobody of ours is held back for what strangers do."""

from collections.abc import Sequence

from sqlalchemy import select, union_all

from libs.common.db import Session
from services.contribution.domain import Stage, Standing
from services.contribution.models import Guest, GuestToken, Machine


async def known_hashes(session: Session, most: int) -> Sequence[str]:
    """Hashes of tokens and secrets of machines that are not gone, those of the newest machines first."""
    clients = select(GuestToken.machine_id, GuestToken.sha256).where(GuestToken.standing != Standing.SPENT)
    agents = select(Guest.machine_id, Guest.secret_sha256).where(Guest.secret_sha256.is_not(None))
    enrolling = select(Guest.machine_id, Guest.token_sha256)
    every = union_all(clients, agents, enrolling).subquery()
    living = select(every.c.sha256).join(Machine, Machine.id == every.c.machine_id)
    living = living.where(Machine.stage < Stage.DESTROYED).order_by(Machine.id.desc())
    return (await session.scalars(living.limit(most))).all()
