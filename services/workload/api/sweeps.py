"""`/v1/sweeps`: machines with our mark that no row stands for, and a person's word on them."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from libs.common.auth import Principal, Role, allow
from libs.common.paging import Cursor, Limit, Page, page_of, read_cursor
from services.workload.api.routes import NO_REASON, Db, Reason, Viewer, With, person_of, scope_of
from services.workload.models import Orphan
from services.workload.usecases import strangers
from services.workload.usecases.strangers import Sweep
from services.workload.usecases.sweeping import ORPHAN_GRACE

router = APIRouter(prefix="/v1/sweeps")
MOST_NAMES = 1000


class MarkOut(BaseModel):
    """Whose machine it says to be."""

    installation_id: UUID | None
    machine_id: UUID | None


class StrangerOut(BaseModel):
    """A machine with our mark that no row stands for."""

    name: str
    cluster: str | None
    host: str | None
    power: str | None
    mark: MarkOut
    seen_at: datetime
    """When it was first seen."""
    was: str | None
    """What is known of it from before: why it was written off."""
    allowed_by: str | None
    goes_at: datetime | None
    """When it is destroyed without being asked for; null: it waits for a person, or goes now."""


class SweepOut(BaseModel):
    """What the sweeper found on a resource; `stopped` is why it waits for a person."""

    resource_id: UUID
    resource: str
    stopped: str | None
    known: int
    """Machines on the resource that rows stand for."""
    strangers: int
    since: datetime | None


class SweepDetail(SweepOut):
    """The same with every stranger, by name."""

    machines: list[StrangerOut]


class AllowIn(BaseModel):
    """The machines that may be destroyed, each by its name."""

    model_config = ConfigDict(extra="forbid")
    names: list[Annotated[str, Field(max_length=100)]] = Field(min_length=1, max_length=MOST_NAMES)
    reason: Reason = NO_REASON


class AllowedOut(BaseModel):
    """What is destroyed now."""

    allowed: int
    names: list[str]


@router.get("")
async def list_sweeps(who: Viewer, database: Db, cursor: Cursor = None, limit: Limit = 50) -> Page[SweepOut]:
    """Resources on which there are strangers, or whose sweeper waits for a person."""
    after = read_cursor(cursor, UUID)[0] if cursor else None
    async with database.transaction() as session:
        found = await strangers.list_sweeps(session, scope_of(who), after, limit)
    return page_of(found, limit, _shown, lambda sweep: (str(sweep.resource.id),))


@router.get("/{resource_id}")
async def read_sweep(who: Viewer, database: Db, resource_id: UUID) -> SweepDetail:
    """Every stranger on a resource: what `allow` would destroy."""
    async with database.transaction() as session:
        sweep = await strangers.read_sweep(session, scope_of(who), resource_id)
    is_waiting = sweep.resource.sweep_stopped is not None
    machines = [_stranger(orphan, was, is_waiting=is_waiting) for orphan, was in sweep.strangers]
    return SweepDetail(**_shown(sweep).model_dump(), machines=machines)


@router.post("/{resource_id}/allow")
async def allow_sweep(
    who: Annotated[Principal, Depends(allow(Role.ADMIN))],
    database: Db,
    means: With,
    resource_id: UUID,
    body: AllowIn,
) -> AllowedOut:
    """A person looked at the strangers on a resource: those named here are destroyed, and no others."""
    person = person_of(who, body.reason)
    async with database.transaction() as session:
        names = await strangers.allow_strangers(means, session, resource_id, person, body.names)
    return AllowedOut(allowed=len(names), names=names)


def _shown(sweep: Sweep) -> SweepOut:
    return SweepOut(
        resource_id=sweep.resource.id,
        resource=sweep.resource.name,
        stopped=sweep.resource.sweep_stopped,
        known=sweep.known,
        strangers=len(sweep.strangers),
        since=sweep.since,
    )


def _stranger(orphan: Orphan, was: str | None, *, is_waiting: bool) -> StrangerOut:
    return StrangerOut(
        name=orphan.name,
        cluster=orphan.cluster,
        host=orphan.host,
        power=orphan.power,
        mark=MarkOut(installation_id=orphan.installation_id, machine_id=orphan.machine_id),
        seen_at=orphan.seen_at,
        was=was,
        allowed_by=orphan.allowed_by,
        goes_at=None if is_waiting or orphan.allowed else orphan.seen_at + ORPHAN_GRACE,
    )
