"""HTTP of workload: clusters and the red button, workloads, machines, decisions, events."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from libs.common.auth import Principal, Role, allow
from libs.common.db import Database, Session
from libs.common.errors import not_found
from libs.common.names import ONE_LINE
from libs.common.paging import Cursor, Limit, Page, page_of, read_cursor
from services.workload.api.shapes import (
    ClusterOut,
    DecisionOut,
    EventOut,
    MachineOut,
    WorkloadOut,
    cluster_out,
)
from services.workload.api.streaming import BATCH, follow, make_position, read_position
from services.workload.models import Cluster, DecisionRecord, Machine, Workload
from services.workload.usecases import operating, reading
from services.workload.usecases.following import Means
from services.workload.usecases.operating import Person
from services.workload.usecases.reading import Slice, Whose

router = APIRouter(prefix="/v1")

Viewer = Annotated[Principal, Depends(allow(Role.VIEWER, Role.SERVICE))]
Operator = Annotated[Principal, Depends(allow(Role.OPERATOR))]


NO_REASON = "no reason given"
Reason = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$"), ONE_LINE]


class Why(BaseModel):
    """Why a person intervenes; it stands in the event and in `tides why`."""

    model_config = ConfigDict(extra="forbid")
    reason: Reason = "by hand"


class Scale(Why):
    """How many machines at most, and why; null takes the bound away."""

    reason: Reason = NO_REASON
    most_machines: int | None = Field(ge=0, le=10_000)


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


def _means(request: Request) -> Means:
    means: Means = request.app.state.means
    return means


Db = Annotated[Database, Depends(_database)]
With = Annotated[Means, Depends(_means)]


def scope_of(who: Principal) -> UUID | None:
    """Whose rows a person sees: an administrator all, others their organisation's."""
    return None if who.role is Role.ADMIN else who.organisation_id


def person_of(who: Principal, reason: str) -> Person:
    """Who asks, and why."""
    return Person(who.name, reason, scope_of(who))


@router.get("/clusters")
async def list_clusters(
    who: Viewer, database: Db, means: With, resource_id: UUID | None = None
) -> Page[ClusterOut]:
    """Every cluster: owner load, budgets, machines by state, verdict and the reason in words."""
    async with database.transaction() as session:
        rows = await reading.clusters(session, scope_of(who), resource_id)
    return Page[ClusterOut](items=[cluster_out(row, means.clock.now()) for row in rows])


@router.get("/clusters/{cluster_id}")
async def read_cluster(who: Viewer, database: Db, means: With, cluster_id: UUID) -> ClusterOut:
    """One cluster."""
    async with database.transaction() as session:
        return await _shown(session, who, cluster_id, means.clock.now())


@router.post("/clusters/{cluster_id}/pause")
async def pause_cluster(who: Operator, database: Db, means: With, cluster_id: UUID, why: Why) -> ClusterOut:
    """The red button: budgets to the floor now, nothing new until resumed; holds across restarts."""
    async with database.transaction() as session:
        await operating.pause_cluster(means, session, cluster_id, person_of(who, why.reason))
        return await _shown(session, who, cluster_id, means.clock.now())


@router.post("/clusters/{cluster_id}/resume")
async def resume_cluster(who: Operator, database: Db, means: With, cluster_id: UUID, why: Why) -> ClusterOut:
    """Release the red button, and a drain by hand."""
    async with database.transaction() as session:
        await operating.resume_cluster(means, session, cluster_id, person_of(who, why.reason))
        return await _shown(session, who, cluster_id, means.clock.now())


@router.post("/clusters/{cluster_id}/drain", status_code=202)
async def drain_cluster(
    who: Operator, database: Db, means: With, cluster_id: UUID, why: Why | None = None
) -> ClusterOut:
    """Give everything on the cluster back, with grace, until resumed."""
    person = person_of(who, why.reason if why else NO_REASON)
    async with database.transaction() as session:
        await operating.drain_cluster(means, session, cluster_id, person)
        return await _shown(session, who, cluster_id, means.clock.now())


@router.post("/clusters/{cluster_id}/scale")
async def scale_cluster(
    who: Operator, database: Db, means: With, cluster_id: UUID, scale: Scale
) -> ClusterOut:
    """Never more machines than this, whatever the policy would allow."""
    async with database.transaction() as session:
        await operating.scale_cluster(
            means, session, cluster_id, person_of(who, scale.reason), scale.most_machines
        )
        return await _shown(session, who, cluster_id, means.clock.now())


async def _shown(session: Session, who: Principal, cluster_id: UUID, now: datetime) -> ClusterOut:
    await session.flush()
    for row in await reading.clusters(session, scope_of(who)):
        if row.cluster.id == cluster_id:
            return cluster_out(row, now)
    raise not_found("cluster", "List them at /v1/clusters.")


@router.get("/workloads")
async def list_workloads(
    who: Viewer, database: Db, cursor: Cursor = None, limit: Limit = 50
) -> Page[WorkloadOut]:
    """What runs where for whom."""
    after = read_cursor(cursor, UUID)[0] if cursor else None
    async with database.transaction() as session:
        rows = await reading.workloads(session, Slice(scope_of(who), limit, after))
    return page_of(rows, limit, WorkloadOut.model_validate, _by_id)


@router.get("/machines")
async def list_machines(
    who: Viewer,
    database: Db,
    cluster_id: UUID | None = None,
    live: bool = True,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[MachineOut]:
    """Machines, oldest first; `live=false` shows destroyed ones too."""
    after = read_cursor(cursor, UUID)[0] if cursor else None
    async with database.transaction() as session:
        rows = await reading.machines(session, Slice(scope_of(who), limit, after, cluster_id), live=live)
    return page_of(rows, limit, MachineOut.model_validate, _by_id)


@router.post("/machines/{machine_id}/drain", status_code=202)
async def drain_machine(who: Operator, database: Db, machine_id: UUID, why: Why) -> MachineOut:
    """Give one machine back, with grace."""
    async with database.transaction() as session:
        machine = await operating.drain_machine(session, machine_id, person_of(who, why.reason))
        return MachineOut.model_validate(machine)


@router.get("/decisions")
async def list_decisions(
    who: Viewer, database: Db, cluster_id: UUID | None = None, cursor: Cursor = None, limit: Limit = 20
) -> Page[DecisionOut]:
    """Decisions that changed something, newest first, with their inputs and the reason in words."""
    before = read_cursor(cursor, UUID)[0] if cursor else None
    async with database.transaction() as session:
        rows = await reading.decisions(session, Slice(scope_of(who), limit, before, cluster_id))
    return page_of(rows, limit, DecisionOut.model_validate, _by_id)


def _by_id(row: Workload | Machine | DecisionRecord | Cluster) -> tuple[str]:
    return (str(row.id),)


class Wish(BaseModel):
    """Which action events to show."""

    model_config = ConfigDict(extra="forbid")
    follow: bool = False
    """As server-sent events, from the cursor or Last-Event-ID on, without end."""
    cluster_id: UUID | None = None
    order: Literal["oldest", "newest"] = "oldest"
    cursor: str | None = Field(None, max_length=500)
    limit: int = Field(50, ge=1, le=BATCH)


@router.get("/events", response_model=Page[EventOut])
async def list_events(
    request: Request,
    who: Viewer,
    database: Db,
    wish: Annotated[Wish, Query()],
    last_event_id: Annotated[str | None, Header(max_length=500)] = None,
) -> Any:
    """Action events; with `follow=true` as server-sent events, resumable by Last-Event-ID."""
    resume = last_event_id if wish.follow and last_event_id else wish.cursor
    after = read_position(resume) if resume else None
    whose = Whose(scope_of(who), wish.cluster_id)
    if wish.follow:
        stream = follow(request, database, after, whose)
        return StreamingResponse(
            stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )
    async with database.transaction() as session:
        newest = wish.order == "newest"
        rows = await reading.events(session, after, whose, wish.limit, newest=newest)
    items = [EventOut.model_validate(row) for row in rows]
    more = rows and wish.order == "oldest"
    return Page[EventOut](items=items, next_cursor=make_position(rows[-1]) if more else None)
