"""`/v1/claims`: hours and credit that BOINC clients claim; `/v1/grants`: credit that projects granted."""

from datetime import date, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from libs.common.auth import Principal, Role, allow
from libs.common.errors import invalid
from services.contribution.api.door import HasDoor
from services.contribution.usecases import claims as usecases
from services.contribution.usecases import credit
from services.contribution.usecases.claims import By

claimed = APIRouter(prefix="/v1/claims", tags=["credit"])
granted = APIRouter(prefix="/v1/grants", tags=["credit"])

Since = Annotated[date | None, Query(description="First day (UTC); else 30 days before `until`.")]
Until = Annotated[date | None, Query(description="Day after the last (UTC); else tomorrow.")]
Viewer = Annotated[Principal, Depends(allow(Role.VIEWER))]
USUAL = timedelta(days=30)
LONGEST = timedelta(days=3660)


def days_of(door: HasDoor, since: Since = None, until: Until = None) -> tuple[date, date]:
    """The days that are asked for. Raises 422 at `since`."""
    end = until or door.clock.now().date() + timedelta(days=1)
    begin = since or end - USUAL
    if not timedelta(0) < end - begin <= LONGEST:
        raise invalid(
            "since", "The days must begin before they end, ten years at most.", "Give an earlier day."
        )
    return begin, end


Days = Annotated[tuple[date, date], Depends(days_of)]


class ClaimItem(BaseModel):
    """One day, project, machine or organisation."""

    of: date | UUID
    core_hours: float
    credit: float
    """In cobblestones: 200 for a day of a processor of 1 GFLOPS, by the client's own benchmark."""


class Claims(BaseModel):
    """What was claimed from `since` up to, without, `until`."""

    since: date
    until: date
    by: By
    items: list[ClaimItem]
    core_hours: float
    credit: float


class GrantItem(BaseModel):
    """One day, project, machine or organisation."""

    of: date | UUID
    credit: float


class Grants(BaseModel):
    """What was granted from `since` up to, without, `until`."""

    since: date
    until: date
    by: By
    items: list[GrantItem]
    credit: float
    others: float
    """Granted to hosts of the same accounts that are no machines of ours, in none of the figures above."""


@claimed.get("")
async def read_claims(
    who: Viewer,
    door: HasDoor,
    days: Days,
    by: By = By.PROJECT,
    project_id: UUID | None = None,
) -> Claims:
    """By the clients' own counters, bounded by what their machines could do; what a project granted is not here."""
    begin, end = days
    async with door.database.transaction() as session:
        found = await usecases.claims(session, who, begin, end, by, project_id)
    items = [
        ClaimItem(of=row.of, core_hours=round(row.cpu_s / 3600, 3), credit=round(row.credit, 3))
        for row in found
    ]
    return Claims(
        since=begin,
        until=end,
        by=by,
        items=items,
        core_hours=round(sum(row.cpu_s for row in found) / 3600, 3),
        credit=round(sum(row.credit for row in found), 3),
    )


@granted.get("")
async def read_grants(
    who: Viewer,
    door: HasDoor,
    days: Days,
    by: By = By.PROJECT,
    project_id: UUID | None = None,
) -> Grants:
    """Credit that projects granted to our machines, by the day on which that was seen: days after the work."""
    begin, end = days
    async with door.database.transaction() as session:
        found, others = await credit.grants(session, who, begin, end, by, project_id)
    return Grants(
        since=begin,
        until=end,
        by=by,
        items=[GrantItem(of=row.of, credit=round(row.credit, 3)) for row in found],
        credit=round(sum(row.credit for row in found), 3),
        others=round(others, 3),
    )
