"""Rotation of sealing keys: what a service has sealed follows the newest key, and is counted by key id."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, func, select
from sqlalchemy import inspect as mapping_of

from libs.common.clock import Clock
from libs.common.db import Database, Session
from libs.common.metrics import Metrics
from libs.common.secrets import Unsealable, Vault
from libs.common.service import Sealed, Service

log = structlog.get_logger(__name__)

RESEAL_EVERY_S = 600.0
BATCH = 50


def resealing(
    service: Service, vault: Vault, clock: Clock, metrics: Metrics
) -> Callable[[], Awaitable[None]]:
    """A beat's work: seal with the newest key what an older one sealed, tell it, then count.

    A secret under a key that this process does not have is left alone and said aloud: the process may be the one
    that has yet to be given the new key.
    """
    database = service.database

    async def reseal() -> None:
        for sealed in service.seals:
            if sealed.context is not None:
                await _reseal(database, vault, clock, sealed)
            counts = await count_by_key(database, sealed)
            metrics.sealed_secrets(service.name, name_of(sealed), counts)
            for key_id in counts.keys() - set(vault.key_ids):
                log.error(
                    "secret.key_unknown",
                    service=service.name,
                    secret=name_of(sealed),
                    key_id=key_id,
                    secrets=counts[key_id],
                )

    return reseal


def name_of(sealed: Sealed) -> str:
    """Which secrets these are, as `table.column`."""
    return f"{sealed.column.class_.__tablename__}.{sealed.column.key}"


async def _reseal(database: Database, vault: Vault, clock: Clock, sealed: Sealed) -> None:
    after: UUID | None = None
    while True:
        async with database.transaction() as session:
            after = await _reseal_batch(session, vault, clock, sealed, after)
        if after is None:
            return


async def _reseal_batch(
    session: Session, vault: Vault, clock: Clock, sealed: Sealed, after: UUID | None
) -> UUID | None:
    """The next few secrets of older keys; returns where to go on, None at the end."""
    model, name = sealed.column.class_, sealed.column.key
    (identity,) = mapping_of(model).primary_key
    older = _key_id(sealed).in_(set(vault.key_ids) - {vault.current_key_id})
    query = select(model).where(older).order_by(identity).limit(BATCH).with_for_update(skip_locked=True)
    rows = (await session.scalars(query if after is None else query.where(identity > after))).all()
    for row in rows:
        try:
            setattr(row, name, vault.reseal(getattr(row, name), _context(sealed, row)))
        except Unsealable as error:
            log.error("secret.lost", secret=name_of(sealed), id=str(_id(row)), reason=str(error))
            continue
        if sealed.tell is not None:
            await sealed.tell(session, row, clock.now())
    if rows:
        log.info("secrets.resealed", secret=name_of(sealed), rows=len(rows), key_id=vault.current_key_id)
    return _id(rows[-1]) if len(rows) == BATCH else None


async def count_by_key(database: Database, sealed: Sealed) -> dict[str, int]:
    """How many secrets each key has sealed."""
    key_id = _key_id(sealed)
    query = select(key_id, func.count()).where(sealed.column != "").group_by(key_id)
    async with database.transaction() as session:
        return {str(found): count for found, count in (await session.execute(query)).all()}


def _key_id(sealed: Sealed) -> ColumnElement[str]:
    return func.split_part(sealed.column, ".", 1)


def _context(sealed: Sealed, row: Any) -> bytes:
    assert sealed.context is not None
    return sealed.context(row)


def _id(row: Any) -> UUID:
    identity: UUID = mapping_of(row).identity[0]
    return identity
