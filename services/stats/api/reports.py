"""`/v1/stats`: usage, core-hours, a summary."""

import math
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, Field

from libs.common.errors import invalid
from services.stats.api.door import HasDoor, Viewer
from services.stats.usecases import reporting
from services.stats.usecases.reporting import By, Figures, Span

router = APIRouter(prefix="/v1/stats", tags=["stats"])

MOST_POINTS = 2000
USUAL_POINTS = 500
LONGEST = timedelta(days=5 * 366)


Since = Annotated[AwareDatetime | None, Query(alias="from", description="Left out: a day before `to`.")]
Until = Annotated[AwareDatetime | None, Query(alias="to", description="Left out: now.")]
Step = Annotated[int | None, Query(ge=1, le=31 * 86400, description="Seconds; left out: about 500 points.")]


def window_of(door: HasDoor, since: Since = None, until: Until = None) -> Span:
    """The stretch that is asked for, in UTC. Raises 422 for one that is empty, too long or absurd."""
    for name, given in (("from", since), ("to", until)):
        if given is not None and not 2000 <= given.year <= 2200:
            raise invalid(name, "The time is far out of range.")
    end = (until or door.clock.now()).astimezone(UTC)
    begin = (since or end - timedelta(days=1)).astimezone(UTC)
    if begin >= end:
        raise invalid("from", "`from` must be before `to`.")
    if end - begin > LONGEST:
        raise invalid("from", "At most five years at once.")
    return Span(begin, end)


Window = Annotated[Span, Depends(window_of)]
HostName = Annotated[str | None, Query(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]


class Point(BaseModel):
    """Means and maxima of one step; null where nothing was measured."""

    at: datetime
    """The beginning of the step."""
    samples: int
    cpu_capacity_mhz_mean: float | None
    cpu_capacity_mhz_max: float | None
    cpu_used_mhz_mean: float | None
    cpu_used_mhz_max: float | None
    cpu_ours_mhz_mean: float | None
    cpu_ours_mhz_max: float | None
    cpu_limit_mhz_mean: float | None
    cpu_limit_mhz_max: float | None
    memory_capacity_mib_mean: float | None
    memory_capacity_mib_max: float | None
    memory_used_mib_mean: float | None
    memory_used_mib_max: float | None
    memory_ours_mib_mean: float | None
    memory_ours_mib_max: float | None
    contention_percent_mean: float | None
    contention_percent_max: float | None
    machines_mean: float | None
    machines_max: float | None
    memory_active_mib_mean: float | None
    memory_active_mib_max: float | None
    owner_balloon_mib_mean: float | None
    owner_balloon_mib_max: float | None
    owner_swapped_mib_mean: float | None
    owner_swapped_mib_max: float | None


class Stretch(BaseModel):
    """What was asked for."""

    since: Annotated[datetime, Field(serialization_alias="from")]
    until: Annotated[datetime, Field(serialization_alias="to")]


class Usage(Stretch):
    """Usage of a host, or of a whole cluster, down-sampled. Steps without samples are left out."""

    cluster_id: UUID
    host: str | None
    step_s: int
    points: list[Point]


class CoreHoursItem(BaseModel):
    """Core-hours lent by one cluster, or for one organisation (null: no machine was known at the time)."""

    cluster_id: UUID | None = None
    name: str | None = None
    contention_percent: float | None = None
    organisation_id: UUID | None = None
    core_hours: float


class CoreHours(Stretch):
    """Core-hours lent, in whole hours."""

    by: By
    items: list[CoreHoursItem]
    total: float


class SummaryView(BaseModel):
    """Everything added up."""

    samples: int
    core_hours: float
    contention_percent: float
    deploys: int
    destroys: int
    limit_changes: int
    events: int
    refused: int


@router.get("/usage")
async def read_usage(
    who: Viewer,
    door: HasDoor,
    cluster_id: UUID,
    window: Window,
    host: HostName = None,
    step: Step = None,
) -> Usage:
    """Usage of a cluster or one of its hosts."""
    step_s = _step_of(window, step)
    async with door.database.transaction() as session:
        await reporting.insist_on_cluster(session, who, cluster_id)
        points = await reporting.usage(session, cluster_id, host, window, step_s, door.clock.now())
    return Usage(
        since=window.since,
        until=window.until,
        cluster_id=cluster_id,
        host=host,
        step_s=step_s,
        points=[Point.model_validate(point) for point in points],
    )


@router.get("/core-hours", response_model_exclude_unset=True)
async def read_core_hours(who: Viewer, door: HasDoor, window: Window, by: By = By.CLUSTER) -> CoreHours:
    """Core-hours lent, by cluster or by organisation; hours that the stretch only touches count whole."""
    async with door.database.transaction() as session:
        if by is By.CLUSTER:
            found = await reporting.figures_by_cluster(session, who, window)
            items = [_cluster_item(row) for row in found]
            total = sum(row.core_h for row in found)
        else:
            shares = await reporting.core_hours_by_organisation(session, who, window)
            items = [
                CoreHoursItem(organisation_id=organisation_id, core_hours=round(core_h, 3))
                for organisation_id, core_h in shares.items()
            ]
            total = sum(shares.values())
    hours = window.in_hours()
    return CoreHours(since=hours.since, until=hours.until, by=by, items=items, total=round(total, 3))


@router.get("/summary")
async def read_summary(who: Viewer, door: HasDoor, window: Window) -> SummaryView:
    """Samples, core-hours, contention and acts. Core-hours and contention come in whole hours."""
    async with door.database.transaction() as session:
        summary = await reporting.summarise(session, who, window)
    figures = {**asdict(summary), "core_hours": round(summary.core_hours, 3)}
    return SummaryView(**{**figures, "contention_percent": round(summary.contention_percent, 3)})


def _cluster_item(row: Figures) -> CoreHoursItem:
    percent = 100 * row.contended_h / row.lent_h if row.lent_h else 0.0
    return CoreHoursItem(
        cluster_id=row.cluster_id,
        name=row.name,
        core_hours=round(row.core_h, 3),
        contention_percent=round(percent, 3),
    )


def _step_of(window: Span, step: int | None) -> int:
    length_s = (window.until - window.since).total_seconds()
    if step is None:
        return max(1, math.ceil(length_s / USUAL_POINTS))
    if length_s / step > MOST_POINTS:
        raise invalid(
            "step", f"At most {MOST_POINTS} points: a step of {math.ceil(length_s / MOST_POINTS)} s."
        )
    return step
