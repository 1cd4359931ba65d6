"""HTTP of contribution: /v1/projects, and /v1/listed-projects: the catalogue."""

import asyncio
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from libs.boinc.catalogue import is_plain_linux, read_catalogue
from libs.boinc.web import ProjectConfig, ProjectRefused, ProjectUnavailable, open_project
from libs.common.auth import Principal, Role, allow
from libs.common.errors import invalid, unavailable
from libs.common.names import ONE_LINE
from libs.common.paging import Cursor, Limit, Page, page_of, read_cursor
from libs.common.repeats import HasOnce
from services.contribution.api.door import Body, Door, HasDoor
from services.contribution.models import ListedProject
from services.contribution.usecases import projects as usecases
from services.contribution.usecases.projects import Known

projects = APIRouter(prefix="/v1/projects", tags=["projects"])
catalogue = APIRouter(prefix="/v1/listed-projects", tags=["projects"])

Viewer = Annotated[Principal, Depends(allow(Role.VIEWER))]
Operator = Annotated[Principal, Depends(allow(Role.OPERATOR))]
Admin = Annotated[Principal, Depends(allow(Role.ADMIN))]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$"), ONE_LINE]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_FILE = {"requestBody": {"required": True, "content": {"application/xml": {"schema": {"type": "string"}}}}}


class ProjectRequest(Body):
    """A project by its master URL."""

    name: Name
    url: Annotated[str, Field(max_length=300)]
    verify: bool = False
    """Ask the project first, and keep it under the address that it gives for itself; 503 where it does not answer."""


class ProjectPatch(Body):
    """The signature of the project's URL, as `tides boinc sign` printed it; null takes it away."""

    url_signature: Annotated[str, Field(max_length=600)] | None


class ConsentRequest(Body):
    """The terms that somebody has read, by their hash as the check told it."""

    terms_sha256: Sha256


class ProjectSeen(BaseModel):
    """What a project said of itself when it was last heard."""

    model_config = ConfigDict(from_attributes=True)

    seen_at: datetime
    master_url: str
    down: bool
    terms_sha256: str
    terms_since: datetime
    """When these terms were first seen."""
    failures: int
    """Times in a row that it could not be asked since."""
    failing_since: datetime | None
    trouble: str | None
    due_at: datetime
    """When it is asked again."""


class ConsentView(BaseModel):
    """Who agreed to the project's terms for the caller's organisation, and to which."""

    model_config = ConfigDict(from_attributes=True)

    terms_sha256: str
    user_id: UUID
    user_name: str
    at: datetime


class AgreedTerms(ConsentView):
    """A consent with the text of what was agreed to."""

    terms: str | None
    """Null: it was before texts were kept, and the project had other terms by then."""


class ProjectView(BaseModel):
    """A project."""

    id: UUID
    name: str
    url: str
    url_signature: str | None
    created_at: datetime
    seen: ProjectSeen | None
    """None: it was never heard."""
    consent: ConsentView | None
    terms_changed: bool
    """Whether the terms are others now than those that were agreed to: read them and agree anew, or end lending."""


class ProjectCheck(BaseModel):
    """What the project says of itself just now."""

    name: str
    master_url: str
    is_canonical: bool
    """Whether that is the address under which it is kept here; clients compare every character."""
    is_down: bool
    runs_here: bool
    """Whether it has programs for a plain 64-bit Linux machine."""
    hindrances: list[str]
    """To new accounts, in BOINC's words."""
    terms: str
    terms_sha256: str
    """Of exactly these terms: what somebody agrees to."""


class ListedView(BaseModel):
    """A project of the catalogue."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    url: str
    web_url: str
    area: str
    specific_area: str
    home: str
    description: str
    runs_here: bool
    """Whether it has work for a plain 64-bit Linux machine: no graphics card, no machine or container in it."""
    keywords: list[int]


class CatalogueKept(BaseModel):
    """What was read of a catalogue."""

    projects: int
    run_here: int


@projects.post("", status_code=201)
async def add_project(who: Operator, body: ProjectRequest, door: HasDoor, once: HasOnce) -> ProjectView:
    """Add a project that can be lent to."""
    url, config = body.url, None
    if body.verify:
        async with door.database.transaction() as session:
            await once.look(session)
        config = await _ask(door, usecases.checked_url(url))
        if config.account_manager:
            raise invalid("url", "This is an account manager, no project.", "Give the project's master URL.")
        url = config.master_url
    async with once.transaction(door.database) as session:
        now = door.clock.now()
        project = await usecases.add_project(session, body.name, url, now)
        if config is not None:
            await usecases.note_seen(session, project.id, config, now)
        return once.answers(_view((await usecases.know(session, who, [project]))[0]))


@projects.get("")
async def list_projects(
    who: Viewer, door: HasDoor, cursor: Cursor = None, limit: Limit = 50
) -> Page[ProjectView]:
    """Projects in the order they were added."""
    after = None if cursor is None else read_cursor(cursor, UUID)[0]
    async with door.database.transaction() as session:
        found = await usecases.projects(session, after, limit + 1)
        known = await usecases.know(session, who, found)
    return page_of(known, limit, _view, lambda row: (str(row.project.id),))


@projects.get("/{project_id}")
async def read_project(who: Viewer, project_id: UUID, door: HasDoor) -> ProjectView:
    """One project."""
    async with door.database.transaction() as session:
        project = await usecases.find_project(session, project_id)
        return _view((await usecases.know(session, who, [project]))[0])


@projects.patch("/{project_id}")
async def sign_project(who: Operator, project_id: UUID, body: ProjectPatch, door: HasDoor) -> ProjectView:
    """Keep the signature without which no client attaches to the project by its account manager."""
    async with door.database.transaction() as session:
        project = await usecases.sign_project(
            session, who, door.manager, project_id, body.url_signature, door.clock.now()
        )
        return _view((await usecases.know(session, who, [project]))[0])


@projects.post("/{project_id}/check")
async def check_project(_who: Operator, project_id: UUID, door: HasDoor) -> ProjectCheck:
    """Ask the project itself, now: who it is, whether it takes us, and its terms. 503 where it does not answer."""
    async with door.database.transaction() as session:
        url = (await usecases.find_project(session, project_id)).url
    config = await _ask(door, url)
    async with door.database.transaction() as session:
        await usecases.find_project(session, project_id)
        await usecases.note_seen(session, project_id, config, door.clock.now())
    return ProjectCheck(
        name=config.name,
        master_url=config.master_url,
        is_canonical=config.master_url == url,
        is_down=config.down,
        runs_here=any(is_plain_linux(platform) for platform in config.platforms),
        hindrances=sorted(config.accounts_by),
        terms=config.terms,
        terms_sha256=config.terms_hash,
    )


@projects.put("/{project_id}/consent")
async def agree(who: Operator, project_id: UUID, body: ConsentRequest, door: HasDoor) -> ProjectView:
    """Agree, for the caller's organisation, to the terms that the project has now: who, when and which is kept."""
    async with door.database.transaction() as session:
        return _view(await usecases.agree(session, who, project_id, body.terms_sha256, door.clock.now()))


@projects.get("/{project_id}/consents")
async def list_consents(
    who: Viewer, project_id: UUID, door: HasDoor, cursor: Cursor = None, limit: Limit = 50
) -> Page[ConsentView]:
    """Who agreed to which of the project's terms for the caller's organisation, the oldest first."""
    after = None if cursor is None else read_cursor(cursor, UUID)[0]
    async with door.database.transaction() as session:
        found = await usecases.consents(session, who, project_id, after, limit + 1)
    return page_of(found, limit, ConsentView.model_validate, lambda row: (str(row.id),))


@projects.get("/{project_id}/consents/{terms_sha256}")
async def read_consent(who: Viewer, project_id: UUID, terms_sha256: Sha256, door: HasDoor) -> AgreedTerms:
    """What somebody of the caller's organisation agreed to, word for word, whatever the project says by now."""
    async with door.database.transaction() as session:
        found = await usecases.agreed_terms(session, who, project_id, terms_sha256)
    return AgreedTerms(**ConsentView.model_validate(found.consent).model_dump(), terms=found.terms)


@projects.delete("/{project_id}", status_code=204)
async def delete_project(who: Operator, project_id: UUID, door: HasDoor) -> None:
    """Forget a project that nobody ever lent to."""
    async with door.database.transaction() as session:
        await usecases.remove_project(session, who, project_id)


@catalogue.get("")
async def list_catalogue(
    _who: Viewer, door: HasDoor, cursor: Cursor = None, limit: Limit = 50, runs_here: bool = False
) -> Page[ListedView]:
    """Projects of the catalogue that was last given, by address; with `runs_here` those for plain Linux machines."""
    after = None if cursor is None else read_cursor(cursor, str)[0]
    async with door.database.transaction() as session:
        found = await usecases.listed(session, after, limit + 1, only_runnable=runs_here)

    def shown(row: ListedProject) -> ListedView:
        return ListedView.model_validate(row)

    return page_of(found, limit, shown, lambda row: (row.url,))


@catalogue.put("", openapi_extra=_FILE)
async def replace_catalogue(_who: Admin, request: Request, door: HasDoor) -> CatalogueKept:
    """Take BOINC's `all_projects_list.xml`, the body as it is, as the catalogue of all organisations."""
    body = await request.body()
    try:
        listed = await asyncio.to_thread(read_catalogue, body)
    except ValueError as error:
        raise invalid("body", str(error), "Send the all_projects_list.xml of a BOINC client.") from None
    async with door.database.transaction() as session:
        await usecases.replace_catalogue(session, listed)
    return CatalogueKept(projects=len(listed), run_here=sum(each.runs_here for each in listed))


async def _ask(door: Door, url: str) -> ProjectConfig:
    try:
        async with open_project(url, door.reach) as project:
            return await project.config()
    except (ProjectUnavailable, ProjectRefused) as error:
        raise unavailable(str(error)) from None


def _view(known: Known) -> ProjectView:
    project, visit, consent = known.project, known.visit, known.consent
    return ProjectView(
        id=project.id,
        name=project.name,
        url=project.url,
        url_signature=project.url_signature,
        created_at=project.created_at,
        seen=None if visit is None else ProjectSeen.model_validate(visit),
        consent=None if consent is None else ConsentView.model_validate(consent),
        terms_changed=known.has_other_terms,
    )
