"""Which of a resource's credentials is in use: the first, or while its cloud refuses that one the alternate.

Only a refused login moves a resource to its alternate: who does not answer would not answer to another name either. The
first is tried again seldom, by one replica, for each try brings an account nearer to being locked out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import select

from libs.common.contracts.resource import LoginFact
from libs.common.db import Session
from services.registry.domain import Endpoint, Health
from services.registry.models import Resource
from services.registry.usecases.credentials import endpoint_of, forget_refusal
from services.registry.usecases.registering import advance, announce

log = structlog.get_logger(__name__)

TRY_EVERY = timedelta(minutes=15)
BATCH = 10


async def note_refused(session: Session, event: LoginFact) -> None:
    """Go over to the alternate credential, unless what was refused is no longer the one that is in use."""
    resource = await session.get(Resource, event.resource_id, with_for_update=True)
    if resource is None or event.resource_revision < resource.credential_revision:
        return
    if resource.alternate_since is not None:
        log.warning("resource.both_refused", resource=resource.name, why=event.detail)
        return
    if resource.alternate_username is None:
        return
    resource.alternate_since, resource.alternate_why = event.at, event.detail
    resource.first_try_at = event.at + TRY_EVERY
    _use_another(session, resource, event.at)
    log.warning(
        "resource.failed_over", resource=resource.name, to=resource.alternate_username, why=event.detail
    )


@dataclass(frozen=True, slots=True)
class Try:
    """A first credential that is due to be tried."""

    resource_id: UUID
    credential_revision: int
    endpoint: Endpoint
    known: Mapping[str, Any] | None
    """What it could do and see when it was validated last, less the clusters that are gone since.

    None: not known, or less would do, because the alternate is of no use either.
    """


async def claim_tries(session: Session, now: datetime) -> Sequence[Try]:
    """First credentials whose time has come; nobody else tries them before the next one. Those in hand are left out."""
    is_due = (Resource.alternate_since.is_not(None), Resource.first_try_at <= now)
    rows = select(Resource).where(*is_due).order_by(Resource.id).limit(BATCH)
    found = (await session.scalars(rows.with_for_update(skip_locked=True))).all()
    for resource in found:
        resource.first_try_at = now + TRY_EVERY
    return [Try(row.id, row.credential_revision, endpoint_of(row), _known_of(row)) for row in found]


def _known_of(resource: Resource) -> Mapping[str, Any] | None:
    known, there = resource.validation, {each["cluster"] for each in resource.inventory}
    if known is None or not known["ok"] or resource.health is Health.DEGRADED:
        return None
    return known | {"clusters": [each for each in known["clusters"] if each["cluster"] in there]}


async def note_accepted(session: Session, tried: Try, now: datetime) -> None:
    """The cloud takes the first credential again, unless another one was given meanwhile."""
    resource = await session.get(Resource, tried.resource_id, with_for_update=True)
    if resource is not None and resource.credential_revision == tried.credential_revision:
        back_to_first(session, resource, now)


def back_to_first(session: Session, resource: Resource, now: datetime) -> None:
    """Use the first credential of the locked resource again, and tell others; a no-op where it is in use."""
    if resource.alternate_since is None:
        return
    log.info("resource.failed_back", resource=resource.name, to=resource.username)
    forget_refusal(resource)
    _use_another(session, resource, now)


async def note_still_refused(session: Session, tried: Try, why: str) -> None:
    """The first credential was tried in vain, refused or without its rights: the newest reason is shown."""
    resource = await session.get(Resource, tried.resource_id, with_for_update=True)
    if resource is None or resource.alternate_since is None:
        return
    if resource.credential_revision == tried.credential_revision:
        resource.alternate_why = why


def _use_another(session: Session, resource: Resource, now: datetime) -> None:
    advance(resource, now)
    resource.credential_revision = resource.revision
    announce(session, resource)
