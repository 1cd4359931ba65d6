"""HTTP of policy: /v1/policies."""

import asyncio
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.auth import Principal, Role, allow
from libs.common.clock import Clock
from libs.common.contracts.supply import Scope
from libs.common.contracts.usage import Sample
from libs.common.db import Database
from libs.common.errors import Problem, invalid
from libs.common.paging import Cursor, IfMatch, Limit, Page, page_of, read_cursor, set_etag
from libs.common.repeats import HasOnce
from libs.harvest.document import PRESETS
from libs.harvest.reading import LARGEST_DOCUMENT_BYTES, Unreadable, read_document
from libs.harvest.types import MachineFact
from services.policy import usecases
from services.policy.domain.rehearsal import MOST_SAMPLES, Given, rehearse
from services.policy.domain.sized import fill, size_of
from services.policy.models import Assignment, Policy
from services.policy.usecases.sizing import find_numbers

router = APIRouter(prefix="/v1/policies", tags=["policies"])

Viewer = Annotated[Principal, Depends(allow(Role.VIEWER))]
Operator = Annotated[Principal, Depends(allow(Role.OPERATOR))]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/yaml": {"schema": {"type": "object"}},
        },
    }
}


def database_of(request: Request) -> Database:
    """The service's database, put on the app at composition."""
    database: Database = request.app.state.database
    return database


def clock_of(request: Request) -> Clock:
    """The process's clock, put on the app at composition."""
    clock: Clock = request.app.state.clock
    return clock


Db = Annotated[Database, Depends(database_of)]
Time = Annotated[Clock, Depends(clock_of)]


class PolicyView(BaseModel):
    """A policy at its newest revision."""

    id: UUID
    organisation_id: UUID
    name: str
    revision: int
    document: dict[str, Any]
    assignments: int
    created_at: datetime
    updated_at: datetime


class RevisionView(BaseModel):
    """What a policy said at one time."""

    model_config = ConfigDict(from_attributes=True)

    revision: int
    document: dict[str, Any]
    created_at: datetime
    created_by: str


class AssignmentView(BaseModel):
    """Where a policy is in force."""

    model_config = ConfigDict(from_attributes=True)

    scope: Scope
    scope_id: UUID
    policy_id: UUID
    assigned_at: datetime


class AssignmentRequest(BaseModel):
    """A resource or a cluster, by id."""

    model_config = ConfigDict(extra="forbid")

    scope: Scope
    scope_id: UUID


class FactsRequest(BaseModel):
    """What holds during the whole dry run."""

    model_config = ConfigDict(extra="forbid")

    machines: tuple[MachineFact, ...] | None = Field(default=None, max_length=1000)
    """Machines that stay as they are; None: machines come and go as decided, at once."""
    granted_machines: int | None = Field(default=None, ge=0, le=100_000)
    paused: str | None = Field(default=None, max_length=200)
    draining: bool = False


class RehearsalRequest(BaseModel):
    """A series of samples, of one cluster or several, and what else is to be known."""

    model_config = ConfigDict(extra="forbid")

    samples: tuple[Sample, ...] = Field(min_length=1, max_length=MOST_SAMPLES)
    facts: FactsRequest | None = None


class DecisionView(BaseModel):
    """One decision, its reason in words."""

    model_config = ConfigDict(from_attributes=True)

    cluster: str
    at: datetime
    verdict: str
    rung: str
    wanted: int
    running: int
    cap_mhz: float
    budgets_mhz: dict[str, float]
    code: str
    reason: str


class Rehearsal(BaseModel):
    """The decisions in order of the samples' times."""

    decisions: list[DecisionView]


class Checked(BaseModel):
    """A document that the engine can read."""

    ok: bool = True
    name: str


@router.get("/presets")
async def list_presets(_who: Viewer) -> dict[str, Any]:
    """Policies to begin with, by name."""
    return {"items": [{"name": name, "document": document} for name, document in PRESETS.items()]}


@router.post("/validate", openapi_extra=_BODY)
async def validate_document(_who: Viewer, request: Request) -> Checked:
    """Whether a document is a policy; 422 names the field."""
    rules, _ = usecases.read(await _document(request))
    return Checked(name=rules.name)


@router.post("", status_code=201, openapi_extra=_BODY)
async def create_policy(
    who: Operator, request: Request, response: Response, database: Db, clock: Time, once: HasOnce
) -> PolicyView:
    """Keep a policy document (JSON or YAML) under its name."""
    document = await _document(request)
    async with once.transaction(database) as session:
        policy = await usecases.create(session, who, document, clock.now())
        kept = await usecases.document_of(session, policy)
        response.headers["Location"] = f"/v1/policies/{policy.id}"
        return once.answers(_shown(policy, kept, 0, response))


@router.get("")
async def list_policies(
    who: Viewer, database: Db, cursor: Cursor = None, limit: Limit = 50
) -> Page[PolicyView]:
    """Policies in the order they were made."""
    after = None if cursor is None else read_cursor(cursor, UUID)[0]
    async with database.transaction() as session:
        found = await usecases.page(session, who, after, limit + 1)
        documents = await usecases.documents_of(session, found)
        counts = await usecases.count_assignments(session, found)

    def shown(policy: Policy) -> PolicyView:
        return _view(policy, documents[policy.id], counts.get(policy.id, 0))

    return page_of(found, limit, shown, lambda policy: (str(policy.id),))


@router.get("/{policy_id}")
async def read_policy(who: Viewer, policy_id: UUID, response: Response, database: Db) -> PolicyView:
    """One policy; its ETag is what a revision needs."""
    async with database.transaction() as session:
        policy = await usecases.find(session, who, policy_id)
        document = await usecases.document_of(session, policy)
        counts = await usecases.count_assignments(session, [policy])
    return _shown(policy, document, counts.get(policy.id, 0), response)


@router.put("/{policy_id}", openapi_extra=_BODY)
async def revise_policy(
    who: Operator, policy_id: UUID, request: Request, response: Response, if_match: IfMatch = None
) -> PolicyView:
    """Add a revision; it is in force at once wherever the policy is assigned."""
    document = await _document(request)
    database, now = database_of(request), clock_of(request).now()
    async with database.transaction() as session:
        policy = await usecases.revise(session, who, policy_id, if_match, document, now)
        kept = await usecases.document_of(session, policy)
        counts = await usecases.count_assignments(session, [policy])
    return _shown(policy, kept, counts.get(policy.id, 0), response)


@router.delete("/{policy_id}", status_code=204)
async def delete_policy(who: Operator, policy_id: UUID, database: Db) -> None:
    """Forget a policy that is not assigned."""
    async with database.transaction() as session:
        await usecases.remove(session, who, policy_id)


@router.get("/{policy_id}/revisions")
async def list_revisions(
    who: Viewer, policy_id: UUID, database: Db, limit: Limit = 50
) -> dict[str, list[RevisionView]]:
    """The newest revisions, newest first."""
    async with database.transaction() as session:
        found = await usecases.revisions(session, who, policy_id, limit)
    return {"items": [RevisionView.model_validate(revision) for revision in found]}


@router.post("/{policy_id}/assignments", status_code=201)
async def assign_policy(
    who: Operator, policy_id: UUID, asked: AssignmentRequest, database: Db, clock: Time, once: HasOnce
) -> AssignmentView:
    """Put the policy in force for a resource or cluster, instead of what was; the nearest wins."""
    async with once.transaction(database) as session:
        found = await usecases.assign(session, who, policy_id, asked.scope, asked.scope_id, clock.now())
        return once.answers(AssignmentView.model_validate(found))


@router.get("/{policy_id}/assignments")
async def list_assignments(who: Viewer, policy_id: UUID, database: Db) -> dict[str, list[AssignmentView]]:
    """Where the policy is in force."""
    async with database.transaction() as session:
        found: list[Assignment] = list(await usecases.assignments(session, who, policy_id))
    return {"items": [AssignmentView.model_validate(assignment) for assignment in found]}


@router.delete("/{policy_id}/assignments/{scope}/{scope_id}", status_code=204)
async def unassign_policy(
    who: Operator, policy_id: UUID, scope: Scope, scope_id: UUID, database: Db, clock: Time
) -> None:
    """End an assignment."""
    async with database.transaction() as session:
        await usecases.unassign(session, who, policy_id, scope, scope_id, clock.now())


@router.post("/{policy_id}/dry-runs")
async def rehearse_policy(who: Viewer, policy_id: UUID, asked: RehearsalRequest, database: Db) -> Rehearsal:
    """What the policy would have decided on these samples; nothing is stored."""
    async with database.transaction() as session:
        policy = await usecases.find(session, who, policy_id)
        document = await usecases.document_of(session, policy)
        numbers = await find_numbers(session, policy)
    if size_of(document) is not None and numbers is None:
        raise invalid("machine.size", "What this size is depends on where the policy is.", "Assign it first.")
    rules, _ = usecases.read(fill(document, numbers))
    machines = None if asked.facts is None else asked.facts.machines
    facts = asked.facts or FactsRequest()
    given = Given(machines, facts.granted_machines, facts.paused, facts.draining)
    steps = await asyncio.to_thread(rehearse, rules, asked.samples, given)
    return Rehearsal(decisions=[DecisionView.model_validate(step) for step in steps])


async def _document(request: Request) -> dict[str, Any]:
    body = await request.body()
    if len(body) > LARGEST_DOCUMENT_BYTES:
        raise Problem(413, f"A policy document holds at most {LARGEST_DOCUMENT_BYTES // 1024} KiB.")
    try:
        return await asyncio.to_thread(read_document, body, request.headers.get("content-type", ""))
    except Unreadable as error:
        raise Problem(422, str(error), field="body") from None


def _shown(policy: Policy, document: dict[str, Any], assigned: int, response: Response) -> PolicyView:
    set_etag(response, policy.revision)
    return _view(policy, document, assigned)


def _view(policy: Policy, document: dict[str, Any], assigned: int) -> PolicyView:
    return PolicyView(
        id=policy.id,
        organisation_id=policy.organisation_id,
        name=policy.name,
        revision=policy.revision,
        document=document,
        assignments=assigned,
        created_at=policy.created_at,
        updated_at=policy.updated_at,
    )
