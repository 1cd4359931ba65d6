"""`/v1/claims`: hours and credit that BOINC clients claim; `/v1/grants`: credit that projects granted."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from libs.common.auth import Principal, Role, allow
from libs.common.errors import invalid
from libs.common.paging import MAX_PAGE, Cursor, Limit, make_cursor, read_cursor
from services.contribution.api.door import HasDoor
from services.contribution.usecases import claims as usecases
from services.contribution.usecases import credit
from services.contribution.usecases.claims import Asked, By, Claim
from services.contribution.usecases.credit import Grant

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
    begin = since or end - min(USUAL, end - date.min)
    if not timedelta(0) < end - begin <= LONGEST:
        raise invalid(
            "since", "The days must begin before they end, ten years at most.", "Give an earlier day."
        )
    return begin, end


def asked_for(
    days: Annotated[tuple[date, date], Depends(days_of)],
    by: By = By.PROJECT,
    project_id: UUID | None = None,
    cursor: Cursor = None,
    limit: Limit = MAX_PAGE,
) -> Asked:
    """Which sums are asked for. Raises 422 at `since` and `cursor`."""
    asked = Asked(*days, by, project_id, None, limit)
    if cursor is None:
        return asked
    if by is not By.DAY:
        return replace(asked, after=read_cursor(cursor, UUID)[0])
    try:
        return replace(asked, after=date.fromisoformat(read_cursor(cursor, str)[0]))
    except ValueError:
        raise invalid("cursor", "This is no cursor of this list.", "Begin again without a cursor.") from None


AskedFor = Annotated[Asked, Depends(asked_for)]
Row = TypeVar("Row", Claim, Grant)


def _page(asked: Asked, found: Sequence[Row]) -> tuple[Sequence[Row], str | None]:
    """What was found without the row too many, and where to go on."""
    shown = found[: asked.limit]
    return shown, make_cursor(str(shown[-1].of)) if len(found) > asked.limit else None


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
    next_cursor: str | None
    core_hours: float
    """Of all pages."""
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
    next_cursor: str | None
    credit: float
    """Of all pages."""
    others: float
    """Granted to hosts of the same accounts that are no machines of ours, in none of the figures above."""


@claimed.get("")
async def read_claims(who: Viewer, door: HasDoor, asked: AskedFor) -> Claims:
    """By the clients' own counters, bounded by what their machines could do; what a project granted is not here."""
    async with door.database.transaction() as session:
        found, every = await usecases.claims(session, who, asked)
    shown, cursor = _page(asked, found)
    return Claims(
        since=asked.since,
        until=asked.until,
        by=asked.by,
        items=[
            ClaimItem(of=row.of, core_hours=round(row.cpu_s / 3600, 3), credit=round(row.credit, 3))
            for row in shown
        ],
        next_cursor=cursor,
        core_hours=round(every.cpu_s / 3600, 3),
        credit=round(every.credit, 3),
    )


@granted.get("")
async def read_grants(who: Viewer, door: HasDoor, asked: AskedFor) -> Grants:
    """Credit that projects granted to our machines, by the day on which that was seen: days after the work."""
    async with door.database.transaction() as session:
        found, ours, others = await credit.grants(session, who, asked)
    shown, cursor = _page(asked, found)
    return Grants(
        since=asked.since,
        until=asked.until,
        by=asked.by,
        items=[GrantItem(of=row.of, credit=round(row.credit, 3)) for row in shown],
        next_cursor=cursor,
        credit=round(ours, 3),
        others=round(others, 3),
    )
