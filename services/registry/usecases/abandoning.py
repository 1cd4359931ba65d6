"""Abandoning: a cloud that is gone for good is forgotten without being asked. What may run there still is kept."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import select, update

from libs.common.auth import Principal, Role
from libs.common.contracts.action import ResourceAbandoned
from libs.common.db import Session
from libs.common.errors import Problem, conflict, not_found
from services.registry.domain import Health
from services.registry.models import Abandonment, Resource
from services.registry.usecases.registering import forget, lock

log = structlog.get_logger(__name__)

SILENT_FOR = timedelta(minutes=10)
"""How long a resource must be degraded before it may be abandoned."""
FORCED_FOR = timedelta(hours=1)
"""How long draining by force must have led to no end, where the cloud seems to answer."""
_MOMENT = "%Y-%m-%d %H:%M UTC"


async def abandon(
    session: Session, who: Principal, resource_id: UUID, find: str, now: datetime
) -> Abandonment:
    """Forget the resource now; workload writes its machines off. A repeat is a no-op. `find` says how to find them.

    Raises 404, and 409 where the cloud answers, or has not been silent for long enough.
    """
    try:
        resource = await lock(session, who, resource_id)
    except Problem:
        return await read(session, who, resource_id)
    why = f"abandoned by {who.name}: the cloud was not asked, {_silence_of(resource, now)}"
    abandonment = Abandonment(
        resource_id=resource.id, organisation_id=resource.organisation_id, name=resource.name,
        provider=resource.provider, url=resource.url, at=now, by=who.name, reason=why, find=find, machines=None,
    )  # fmt: skip
    session.add(abandonment)
    await forget(session, resource, now, abandoned=why)
    log.warning("resource.abandoned", resource=resource.name, by=who.name, url=resource.url, reason=why)
    return abandonment


async def read(session: Session, who: Principal, resource_id: UUID) -> Abandonment:
    """One abandonment of the caller's organisation; an admin sees all. Raises 404 as for a resource."""
    found = await session.get(Abandonment, resource_id)
    if found is None or (who.role is not Role.ADMIN and who.organisation_id != found.organisation_id):
        raise not_found("resource")
    return found


async def list_page(
    session: Session, who: Principal, after: UUID | None, limit: int
) -> Sequence[Abandonment]:
    """Up to `limit + 1` abandonments in the order in which their resources were registered."""
    query = select(Abandonment).order_by(Abandonment.resource_id).limit(limit + 1)
    if after is not None:
        query = query.where(Abandonment.resource_id > after)
    if who.role is not Role.ADMIN:
        query = query.where(Abandonment.organisation_id == who.organisation_id)
    return (await session.scalars(query)).all()


async def note_abandoned(session: Session, event: ResourceAbandoned) -> None:
    """Keep what workload wrote off. The first word counts: a workload that lost its database knows of nothing."""
    machines = event.model_dump(mode="json")["machines"]
    told = update(Abandonment).where(Abandonment.resource_id == event.resource_id)
    await session.execute(told.where(Abandonment.machines.is_(None)).values(machines=machines))


def _silence_of(resource: Resource, now: datetime) -> str:
    """Since when the cloud gives no answer, in words. Raises 409 where it may, or not for long enough."""
    if resource.released_at is not None:
        raise conflict(
            "Nothing of ours is left on the resource: nothing needs to be abandoned.",
            "Remove it without `abandon`.",
        )
    forced_at = resource.forced_at
    if forced_at is not None and now >= forced_at + FORCED_FOR:
        return f"draining by force has come to no end since {forced_at:{_MOMENT}}"
    if resource.health is Health.DEGRADED and resource.health_at is not None:
        since, until = f"{resource.health_at:{_MOMENT}}", resource.health_at + SILENT_FOR
        if now >= until:
            return f"it is degraded since {since} ({resource.health_cause})"
        raise conflict(
            f"The resource is degraded ({resource.health_cause}) since {since} only: it may come back.",
            f"If it gives no answer until {until:{_MOMENT}}, abandon it then.",
        )
    if forced_at is not None:
        raise conflict(
            f"The resource is drained by force since {forced_at:{_MOMENT}} only, and nothing says that its cloud"
            " does not answer.",
            f"If it is not gone by {forced_at + FORCED_FOR:{_MOMENT}}, abandon it then.",
        )
    raise conflict(
        "Nothing says that the cloud does not answer: what runs there can be taken away.",
        "Remove it with `force=true` instead. It may be abandoned when it has been degraded for 10 minutes, or"
        " has not come to its end an hour after that.",
    )
