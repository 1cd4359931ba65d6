"""HTTP of templates: /v1/templates."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from libs.boinc.image import Component
from libs.common.auth import Principal, Role, allow
from libs.common.contracts.supply import TemplateState
from libs.common.db import Database
from libs.common.errors import invalid, unavailable
from libs.common.names import ONE_LINE
from libs.common.paging import Cursor, Limit, Page, page_of, read_cursor
from libs.common.repeats import HasOnce
from libs.providers.base import Cause, ProviderError, Rejected, TemplateSeen
from libs.providers.registry import UnknownDriver
from services.templates import usecases
from services.templates.domain import Verb
from services.templates.models import Template, Version
from services.templates.usecases import Image, Origin, Target

FIT = "Give a template of Linux with cloud-init; docs/vsphere-templates.md says what it needs."

router = APIRouter(prefix="/v1/templates", tags=["templates"])

Viewer = Annotated[Principal, Depends(allow(Role.VIEWER))]
Operator = Annotated[Principal, Depends(allow(Role.OPERATOR))]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$"), ONE_LINE]
Disk = Annotated[float, Field(gt=0, le=65536, allow_inf_nan=False)]


def database_of(request: Request) -> Database:
    """The service's database, put on the app at composition."""
    database: Database = request.app.state.database
    return database


Db = Annotated[Database, Depends(database_of)]


class VersionRequest(BaseModel):
    """An image in the resource of the template, by the name or reference its cloud knows."""

    model_config = ConfigDict(extra="forbid")

    reference: Text
    disk_gib: Disk | None = None
    """None: as large as the template's own disks."""
    derived_from: UUID | None = None
    """The version of the same resource that a person made this image from."""
    components: Annotated[list[Component], Field(max_length=len(Component))] = []
    """What the image holds already: its machines do not install it."""


class TemplateRequest(VersionRequest):
    """A template that exists in a resource, and the name that policies shall know it by."""

    name: Text
    resource_id: UUID


class OriginView(BaseModel):
    """The version that another was derived from, as it is now."""

    model_config = ConfigDict(from_attributes=True)

    version_id: UUID
    name: str
    version: int
    state: TemplateState
    """Revoked: think about those that were derived from it, too."""


class VersionView(BaseModel):
    """One image of a template."""

    id: UUID
    version: int
    reference: str
    disk_gib: float
    guest_os: str
    state: TemplateState
    missing: bool
    """The cloud did not have it at `checked_at`."""
    checked_at: datetime
    created_at: datetime
    derived_from: OriginView | None
    components: list[str]
    """What its machines need not install."""


class TemplateView(BaseModel):
    """A template and its versions, oldest first."""

    id: UUID
    organisation_id: UUID
    resource_id: UUID
    name: str
    created_at: datetime
    versions: list[VersionView]


@router.post("", status_code=201)
async def register_template(
    who: Operator, asked: TemplateRequest, request: Request, database: Db, once: HasOnce
) -> TemplateView:
    """Register a template as version 1, a draft, after a look into its resource."""
    async with database.transaction() as session:
        await once.look(session)
        target = await usecases.target_of(session, who, asked.resource_id, request.app.state.installation_id)
    seen = await _look_up(request, target, asked.reference)
    image = _image(seen, asked)
    async with once.transaction(database) as session:
        now = request.app.state.clock.now()
        template, version = await usecases.register(session, asked.resource_id, asked.name, image, now)
        return once.answers(_view(template, [version], await usecases.origins_of(session, [version])))


@router.get("")
async def list_templates(
    who: Viewer,
    database: Db,
    resource_id: UUID | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[TemplateView]:
    """Templates in the order they were registered."""
    after = None if cursor is None else read_cursor(cursor, UUID)[0]
    async with database.transaction() as session:
        found = await usecases.page(session, who, resource_id, after, limit + 1)
        versions = await usecases.versions_of(session, found)
        origins = await usecases.origins_of(session, versions)
    return page_of(found, limit, lambda row: _view(row, versions, origins), lambda row: (str(row.id),))


@router.get("/{template_id}")
async def read_template(who: Viewer, template_id: UUID, database: Db) -> TemplateView:
    """One template with its versions."""
    async with database.transaction() as session:
        template = await usecases.find(session, who, template_id)
        versions = await usecases.versions_of(session, [template])
        origins = await usecases.origins_of(session, versions)
    return _view(template, versions, origins)


@router.post("/{template_id}/versions", status_code=201)
async def add_version(
    who: Operator, template_id: UUID, asked: VersionRequest, request: Request, database: Db, once: HasOnce
) -> VersionView:
    """Register another image of the template as its next version, a draft."""
    async with database.transaction() as session:
        await once.look(session)
        template = await usecases.find(session, who, template_id)
        target = await usecases.target_of(
            session, who, template.resource_id, request.app.state.installation_id
        )
    seen = await _look_up(request, target, asked.reference)
    image = _image(seen, asked)
    async with once.transaction(database) as session:
        now = request.app.state.clock.now()
        _, version = await usecases.add_version(session, who, template_id, image, now)
        return once.answers(_version(version, await usecases.origins_of(session, [version])))


@router.post("/{template_id}/versions/{number}/approve")
async def approve_version(who: Operator, template_id: UUID, number: Number, request: Request) -> VersionView:
    """Let a draft be deployed."""
    return await _change(who, template_id, number, Verb.APPROVE, request)


@router.post("/{template_id}/versions/{number}/revoke")
async def revoke_version(who: Operator, template_id: UUID, number: Number, request: Request) -> VersionView:
    """Withdraw a version for good; its machines drain."""
    return await _change(who, template_id, number, Verb.REVOKE, request)


async def _change(
    who: Principal, template_id: UUID, number: int, verb: Verb, request: Request
) -> VersionView:
    async with database_of(request).transaction() as session:
        now = request.app.state.clock.now()
        _, version = await usecases.change(session, who, template_id, number, verb, now)
        return _version(version, await usecases.origins_of(session, [version]))


async def _look_up(request: Request, target: Target, reference: str) -> TemplateSeen:
    try:
        seen = await usecases.look_up(request.app.state.sessions, target, reference)
    except UnknownDriver as error:
        raise invalid("resource_id", str(error)) from None
    except Rejected as error:
        if error.cause is Cause.NOT_FOUND:
            seen = None
        else:
            raise invalid("resource_id", f"The resource refused to be looked at: {error.detail}") from None
    except ProviderError as error:
        raise unavailable(f"The resource does not answer ({error.cause}).", 30) from None
    if seen is None:
        raise invalid("reference", "The resource has no template of this name.", "Check its name and scope.")
    if seen.unfit is not None:
        raise invalid("reference", f"No machine can be made from this template: {seen.unfit}.", FIT)
    return seen


def _image(seen: TemplateSeen, asked: VersionRequest) -> Image:
    if asked.disk_gib is not None and asked.disk_gib < seen.disk_gib:
        raise invalid("disk_gib", f"The template's own disks take {seen.disk_gib:g} GiB.")
    disk_gib = seen.disk_gib if asked.disk_gib is None else asked.disk_gib
    return Image(seen, disk_gib, asked.derived_from, asked.components)


def _version(version: Version, origins: Mapping[UUID, Origin]) -> VersionView:
    origin = origins[version.derived_from] if version.derived_from is not None else None
    return VersionView(
        id=version.id,
        version=version.version,
        reference=version.reference,
        disk_gib=version.disk_gib,
        guest_os=version.guest_os,
        state=TemplateState(version.state),
        missing=version.missing,
        checked_at=version.checked_at,
        created_at=version.created_at,
        derived_from=OriginView.model_validate(origin) if origin is not None else None,
        components=version.components,
    )


def _view(template: Template, versions: Sequence[Version], origins: Mapping[UUID, Origin]) -> TemplateView:
    own = [_version(version, origins) for version in versions if version.template_id == template.id]
    return TemplateView(
        id=template.id,
        organisation_id=template.organisation_id,
        resource_id=template.resource_id,
        name=template.name,
        created_at=template.created_at,
        versions=own,
    )
