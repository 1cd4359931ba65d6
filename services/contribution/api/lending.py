"""HTTP of contribution: /v1/contributions."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field, SecretStr

from libs.common.auth import Principal, Role, allow
from libs.common.db import Session
from libs.common.errors import invalid
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
from services.contribution.usecases.accounts import weak_key_of
from services.contribution.usecases.allotting import count_machines
from services.contribution.usecases.lending import Changes, Terms

contributions = APIRouter(prefix="/v1/contributions", tags=["contributions"])

Viewer = Annotated[Principal, Depends(allow(Role.VIEWER))]
Operator = Annotated[Principal, Depends(allow(Role.OPERATOR))]
Weight = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Resources = Annotated[tuple[UUID, ...] | None, Field(min_length=1, max_length=MOST_RESOURCES)]
Key = Annotated[SecretStr, Field(max_length=200)]
Priority = Annotated[int, Field(ge=-100, le=100)]
MostMachines = Annotated[int | None, Field(ge=0, le=100_000)]
MostVcpus = Annotated[int | None, Field(ge=0, le=10_000_000)]


class ContributionRequest(Body):
    """What to lend to whom, by a stored account or by `authenticator`, a weak account key: kept sealed, never shown.

    Machines work for the highest `priority` that has room for them, by `weight`; `most_machines` and `most_vcpus`
    are the project's quota.
    """

    project_id: UUID
    weight: Weight
    resource_ids: Resources = None
    authenticator: Key | None = None
    account_id: UUID | None = None
    priority: Priority = 0
    most_machines: MostMachines = None
    most_vcpus: MostVcpus = None


class ContributionPatch(Body):
    """What shall be different; what is left out stays. `resource_ids: null` means every resource, and a quota that is
    null none."""

    weight: Weight | None = None
    active: bool | None = None
    resource_ids: Resources = None
    authenticator: Key | None = None
    account_id: UUID | None = None
    """From now on by this stored account's key."""
    priority: Priority = 0
    most_machines: MostMachines = None
    most_vcpus: MostVcpus = None


class MachineCounts(BaseModel):
    """Machines that work for a contribution now; those for which it stands by do not count."""

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
    account_id: UUID | None
    """The stored account by whose key it is lent; None: by one that was given."""
    priority: int
    most_machines: int | None
    most_vcpus: int | None
    refused_at: datetime | None
    """Since when the project refuses its key to a machine; None: it does not, as far as is known."""
    refused_why: str | None
    """In the project's own words."""
    machines: MachineCounts
    revision: int
    created_at: datetime
    updated_at: datetime


@contributions.post("", status_code=201)
async def contribute(
    who: Operator, body: ContributionRequest, response: Response, door: HasDoor, once: HasOnce
) -> ContributionView:
    """Lend to a project."""
    _insist_on_one_key(body.authenticator, body.account_id, or_none=False)
    async with once.transaction(door.database) as session:
        parties = (who.organisation_id, body.project_id)
        key = await _key_of(session, parties, door, body.authenticator, body.account_id)
        bounds = {name: getattr(body, name) for name in _BOUNDS}
        terms = Terms(body.project_id, body.weight, body.resource_ids, key or "", body.account_id, **bounds)
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
        counts = await count_machines(session, found)

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
    _insist_on_one_key(body.authenticator, body.account_id, or_none=True)
    sets_resources = "resource_ids" in body.model_fields_set
    bounds = {name: getattr(body, name) for name in _BOUNDS if name in body.model_fields_set}
    async with door.database.transaction() as session:
        parties = await usecases.parties_of(session, who, contribution_id)
        key = await _key_of(session, parties, door, body.authenticator, body.account_id)
        if if_match is not None:
            seen = await usecases.find(session, who, contribution_id, lock=True)
            require_match(if_match, seen.revision)
        changes = Changes(
            body.weight, body.active, key, body.account_id, body.resource_ids, sets_resources, bounds
        )
        await usecases.change(session, who, door.vault, contribution_id, changes, door.clock.now())
    return await _read(who, contribution_id, response, door)


@contributions.delete("/{contribution_id}", status_code=204)
async def end_contribution(who: Operator, contribution_id: UUID, door: HasDoor) -> None:
    """Stop lending to the project."""
    async with door.database.transaction() as session:
        await usecases.end(session, who, contribution_id, door.clock.now())


_BOUNDS = ("priority", "most_machines", "most_vcpus")


def _insist_on_one_key(key: SecretStr | None, account_id: UUID | None, *, or_none: bool) -> None:
    if (key is None) == (account_id is None) and not (or_none and key is None):
        raise invalid(
            "authenticator",
            "It takes one key to lend: a stored account's, or one that is given.",
            "Give account_id or authenticator.",
        )


async def _key_of(
    session: Session,
    parties: tuple[UUID, UUID],
    door: Door,
    given: SecretStr | None,
    account_id: UUID | None,
) -> str | None:
    """The weak key: of the stored account of who lends, at the project; else that which was given."""
    if account_id is not None:
        return await weak_key_of(session, parties[0], door.vault, account_id, parties[1])
    return None if given is None else given.get_secret_value()


async def _read(who: Principal, contribution_id: UUID, response: Response, door: Door) -> ContributionView:
    async with door.database.transaction() as session:
        return await _show(session, await usecases.find(session, who, contribution_id), response)


async def _show(session: Session, row: Contribution, response: Response) -> ContributionView:
    known = await usecases.projects_of(session, [row])
    counts = await count_machines(session, [row])
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
        account_id=row.account_id,
        priority=row.priority,
        most_machines=row.most_machines,
        most_vcpus=row.most_vcpus,
        refused_at=row.refused_at,
        refused_why=row.refused_why,
        machines=MachineCounts(
            requested=counts[Stage.REQUESTED],
            running=counts[Stage.RUNNING],
            draining=counts[Stage.DRAINING],
        ),
        revision=row.revision,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
