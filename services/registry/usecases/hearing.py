"""What registry learns from monitor and workload, and what it does by itself."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import select

from libs.common.contracts.action import ResourceReleased, SweepStopped
from libs.common.contracts.resource import (
    InventoryChanged,
    Mode,
    ResourceChanged,
    ResourceDegraded,
    ResourceRecovered,
)
from libs.common.db import Session
from services.registry.domain import Health
from services.registry.models import GoneResource, Resource
from services.registry.usecases.registering import advance, announce, forget, state_of

log = structlog.get_logger(__name__)

BATCH = 50


async def note_degraded(session: Session, event: ResourceDegraded) -> None:
    """Show the outage, unless something newer is known."""
    await _note_health(session, event, Health.DEGRADED, event.cause, event.detail)


async def note_recovered(session: Session, event: ResourceRecovered) -> None:
    """Show that it answers again, unless something newer is known."""
    await _note_health(session, event, Health.OK, None, None)


async def note_inventory(session: Session, event: InventoryChanged) -> None:
    """Take the newest inventory; who has an inventory answers."""
    resource = await _locked(session, event.resource_id)
    if resource is None or event.revision < resource.inventory_revision:
        return
    if event.revision == resource.inventory_revision and not _was_read_by_an_older(resource.inventory):
        return
    resource.inventory = event.model_dump(mode="json")["clusters"]
    resource.inventory_revision = event.revision
    if resource.health is Health.UNKNOWN:
        resource.health, resource.health_at = Health.OK, event.at


def _was_read_by_an_older(inventory: Sequence[dict[str, Any]]) -> bool:
    """Whether a process of before took it, which passed over what hosts are made of (decision 0049)."""
    return any("gpus" not in host for cluster in inventory for host in cluster["hosts"])


async def note_sweep_stopped(session: Session, event: SweepStopped) -> None:
    """Raise the alarm until a person has seen it."""
    resource = await _locked(session, event.resource_id)
    if resource is not None:
        resource.alarm = event.model_dump(mode="json", include={"at", "reason", "orphans", "machines"})


async def note_released(session: Session, event: ResourceReleased) -> None:
    """Nothing of ours is left: a resource that is being deleted ends, one that drains is noted as empty."""
    resource = await _locked(session, event.resource_id)
    if resource is None or resource.mode is not Mode.DRAINING:
        return
    if event.revision is not None and event.revision < (resource.draining_revision or 0):
        log.info("resource.old_release_ignored", resource=str(resource.id), revision=event.revision)
        return
    if resource.deleting:
        await forget(session, resource, event.at)
    else:
        resource.released_at = event.at


async def tell_resealed(session: Session, resource: Resource, now: datetime) -> None:
    """Tell everybody the secret under its new key."""
    advance(resource, now)
    announce(session, resource)


async def read_states(session: Session, after: UUID | None) -> tuple[Sequence[ResourceChanged], UUID | None]:
    """The next few resources as they were last told, the living and the gone, and where to go on."""
    living = select(Resource).order_by(Resource.id).limit(BATCH)
    gone = select(GoneResource.state).order_by(GoneResource.id).limit(BATCH)
    if after is not None:
        living, gone = living.where(Resource.id > after), gone.where(GoneResource.id > after)
    states = [state_of(resource) for resource in await session.scalars(living)]
    states += [ResourceChanged.model_validate(state) for state in await session.scalars(gone)]
    page = sorted(states, key=lambda state: state.resource_id)[:BATCH]
    return page, page[-1].resource_id if len(page) == BATCH else None


async def _note_health(
    session: Session,
    event: ResourceDegraded | ResourceRecovered,
    health: Health,
    cause: str | None,
    detail: str | None,
) -> None:
    resource = await _locked(session, event.resource_id)
    if resource is None or (resource.health_at is not None and event.at < resource.health_at):
        return
    resource.health, resource.health_at = health, event.at
    resource.health_cause, resource.health_detail = cause, detail


async def _locked(session: Session, resource_id: UUID) -> Resource | None:
    return await session.get(Resource, resource_id, with_for_update=True)
