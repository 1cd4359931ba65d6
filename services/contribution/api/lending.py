"""HTTP of contribution: /v1/contributions."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field, SecretStr

from libs.common.auth import Principal, Role, allow
from libs.common.db import Session
from libs.common.paging import (
    Cursor,
    IfMatch,
    Limit,
    Page,
    page_of,
    read_cursor,
    require_match,
    set_etag,
)
from libs.common.repeats import HasOnce
from services.contribution.api.door import Body, Door, HasDoor
from services.contribution.domain import MOST_RESOURCES, Stage
from services.contribution.models import Contribution, Project
from services.contribution.usecases import lending as usecases
from services.contribution.usecases.lending import Changes, Terms

contributions = APIRouter(prefix="/v1/contributions", tags=["contributions"])

Viewer = Annotated[Principal, Depends(allow(Role.VIEWER))]
Operator = Annotated[Principal, Depends(allow(Role.OPERATOR))]
Weight = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Resources = Annotated[tuple[UUID, ...] | None, Field(min_length=1, max_length=MOST_RESOURCES)]
Key = Annotated[SecretStr, Field(max_length=200)]


class ContributionRequest(Body):
    """What to lend to whom. `authenticator` is the weak account key: kept sealed, never shown again."""

    project_id: UUID
    weight: Weight
    resource_ids: Resources = None
    authenticator: Key


class ContributionPatch(Body):
    """What shall be different; what is left out stays. `resource_ids: null` means every resource."""

    weight: Weight | None = None
    active: bool | None = None
    resource_ids: Resources = None
    authenticator: Key | None = None


class MachineCounts(BaseModel):
    """Machines that work for a contribution now, beside the others of its organisation."""

    requested: int
    running: int
    draining: int


class ContributionView(BaseModel):
    """A contribution, without its key."""

    id: UUID
    organisation_id: UUID
    project_id: UUID
    project_name: str
    project_url: str
    weight: float
    active: bool
    resource_ids: list[UUID] | None
    machines: MachineCounts
    revision: int
    created_at: datetime
    updated_at: datetime


@contributions.post("", status_code=201)
async def contribute(
    who: Operator, body: ContributionRequest, response: Response, door: HasDoor, once: HasOnce
) -> ContributionView:
    """Lend to a project."""
    terms = Terms(body.project_id, body.weight, body.resource_ids, body.authenticator.get_secret_value())
    async with once.transaction(door.database) as session:
        row = await usecases.contribute(session, who, door.vault, terms, door.clock.now())
        return once.answers(await _show(session, row, response))


@contributions.get("")
async def list_contributions(
    who: Viewer, door: HasDoor, cursor: Cursor = None, limit: Limit = 50
) -> Page[ContributionView]:
    """What the organisation lends, and to whom."""
    after = None if cursor is None else read_cursor(cursor, UUID)[0]
    async with door.database.transaction() as session:
        found = await usecases.contributions(session, who, after, limit + 1)
        known = await usecases.projects_of(session, found)
        counts = await usecases.count_machines(session, found)

    def shown(row: Contribution) -> ContributionView:
        return _view(row, known[row.project_id], counts[row.id])

    return page_of(found, limit, shown, lambda row: (str(row.id),))


@contributions.get("/{contribution_id}")
async def read_contribution(
    who: Viewer, contribution_id: UUID, response: Response, door: HasDoor
) -> ContributionView:
    """One contribution."""
    return await _read(who, contribution_id, response, door)


@contributions.patch("/{contribution_id}")
async def change_contribution(
    who: Operator,
    contribution_id: UUID,
    body: ContributionPatch,
    response: Response,
    door: HasDoor,
    if_match: IfMatch = None,
) -> ContributionView:
    """Change weight, activity, resources or key; If-Match is optional here."""
    key = body.authenticator.get_secret_value() if body.authenticator is not None else None
    sets_resources = "resource_ids" in body.model_fields_set
    changes = Changes(body.weight, body.active, key, body.resource_ids, sets_resources)
    async with door.database.transaction() as session:
        if if_match is not None:
            seen = await usecases.find(session, who, contribution_id, lock=True)
            require_match(if_match, seen.revision)
        await usecases.change(session, who, door.vault, contribution_id, changes, door.clock.now())
    return await _read(who, contribution_id, response, door)


@contributions.delete("/{contribution_id}", status_code=204)
async def end_contribution(who: Operator, contribution_id: UUID, door: HasDoor) -> None:
    """Stop lending to the project."""
    async with door.database.transaction() as session:
        await usecases.end(session, who, contribution_id, door.clock.now())


async def _read(who: Principal, contribution_id: UUID, response: Response, door: Door) -> ContributionView:
    async with door.database.transaction() as session:
        return await _show(session, await usecases.find(session, who, contribution_id), response)


async def _show(session: Session, row: Contribution, response: Response) -> ContributionView:
    known = await usecases.projects_of(session, [row])
    counts = await usecases.count_machines(session, [row])
    set_etag(response, row.revision)
    return _view(row, known[row.project_id], counts[row.id])


def _view(row: Contribution, project: Project, counts: dict[Stage, int]) -> ContributionView:
    return ContributionView(
        id=row.id,
        organisation_id=row.organisation_id,
        project_id=project.id,
        project_name=project.name,
        project_url=project.url,
        weight=row.weight,
        active=row.active,
        resource_ids=row.resource_ids,
        machines=MachineCounts(
            requested=counts[Stage.REQUESTED],
            running=counts[Stage.RUNNING],
            draining=counts[Stage.DRAINING],
        ),
        revision=row.revision,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
