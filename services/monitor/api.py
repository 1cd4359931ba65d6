"""`/v1/monitors`: how every resource is being watched."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from libs.common.auth import Principal, Role, allow
from libs.common.clock import Clock
from libs.common.db import Database
from libs.common.paging import Cursor, Limit, Page, page_of, read_cursor
from libs.providers.health import Health, health
from services.monitor.models import Resource
from services.monitor.usecases import list_watched

Viewer = Annotated[Principal, Depends(allow(Role.VIEWER))]


class Watched(BaseModel):
    """A resource as its monitor sees it."""

    resource_id: UUID
    organisation_id: UUID
    name: str
    mode: str
    interval_s: float
    holder: str | None
    """The replica that watches it; null while nobody does."""
    lease_until: datetime | None
    sampled_at: datetime | None
    """End of the newest published interval, on the cloud's clock."""
    received_at: datetime | None
    lag_s: float | None
    """Seconds since that end, the difference of the clocks taken out."""
    clock_offset_s: float
    due_at: datetime | None
    failures: int
    degraded_at: datetime | None
    cause: str | None
    detail: str | None
    cloud: Health
    """How well the cloud answers questions for samples."""


def router(database: Database, clock: Clock) -> APIRouter:
    """Everything of monitor."""
    routes = APIRouter(prefix="/v1/monitors", tags=["monitors"])

    @routes.get("", summary="List watched resources")
    async def list_monitors(who: Viewer, limit: Limit = 50, cursor: Cursor = None) -> Page[Watched]:
        after: UUID | None = read_cursor(cursor, UUID)[0] if cursor else None
        async with database.transaction() as session:
            rows = await list_watched(session, who, after, limit)
        now = clock.now()
        return page_of(rows, limit, lambda row: _show(row[0], row[1], now), lambda row: (str(row[0].id),))

    return routes


def _show(resource: Resource, holder: str | None, now: datetime) -> Watched:
    lag_s = None
    if resource.sampled_at is not None:
        lag_s = (now - resource.sampled_at).total_seconds() + resource.clock_offset_s
    return Watched(
        resource_id=resource.id,
        organisation_id=resource.organisation_id,
        name=resource.name,
        mode=resource.mode,
        interval_s=resource.interval_s,
        holder=holder,
        lease_until=resource.lease_until if holder else None,
        sampled_at=resource.sampled_at,
        received_at=resource.received_at,
        lag_s=lag_s,
        clock_offset_s=resource.clock_offset_s,
        due_at=resource.due_at,
        failures=resource.failures,
        degraded_at=resource.degraded_at,
        cause=resource.cause,
        detail=resource.detail,
        cloud=health(
            failures=resource.failures,
            retry_at=resource.retry_at,
            since=resource.failing_since,
            cause=resource.cause,
            detail=resource.detail,
            now=now,
        ),
    )
