"""The inbox: a message that has been handled is a no-op when it comes again."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from libs.common.db import Database, Session
from libs.common.tables import inbox, revoked_token

KEEP = timedelta(days=7)
"""Longer than any message can wait on the bus before it is dead."""


async def first_time(session: Session, message_id: UUID, handler: str) -> bool:
    """Remember the message in this transaction; False if this handler has already committed it."""
    row = insert(inbox).values(message_id=message_id, handler=handler).on_conflict_do_nothing()
    return (await session.execute(row.returning(inbox.c.message_id))).first() is not None


async def prune(database: Database) -> None:
    """Forget messages that can no longer come again."""
    async with database.transaction() as session:
        await session.execute(delete(inbox).where(inbox.c.handled_at < func.now() - KEEP))


async def remember_revoked(session: Session, token_id: UUID) -> None:
    """Void a personal token in this service."""
    await session.execute(insert(revoked_token).values(token_id=token_id).on_conflict_do_nothing())


async def revoked_tokens(database: Database) -> set[UUID]:
    """Every voided personal token that this service has heard of."""
    async with database.transaction() as session:
        return set((await session.execute(select(revoked_token.c.token_id))).scalars())
