"""Organisations."""

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel

from libs.common.paging import Cursor, Limit, Page, page_of, read_cursor
from libs.common.repeats import HasOnce
from services.identity.api.door import Admin, Anyone, Body, HasDoor, Name
from services.identity.models import Organisation
from services.identity.usecases import users
from services.identity.usecases.auditing import What, note

router = APIRouter(prefix="/v1/organisations", tags=["organisations"])


class OrganisationIn(Body):
    """A new organisation."""

    name: Name


class OrganisationOut(BaseModel):
    """An organisation."""

    id: UUID
    name: str
    created_at: datetime


@router.get("")
async def list_organisations(
    _caller: Anyone, door: HasDoor, limit: Limit = 50, cursor: Cursor = None
) -> Page[OrganisationOut]:
    """Every organisation, by name."""
    after = read_cursor(cursor, str)[0] if cursor is not None else None
    async with door.database.transaction() as session:
        rows = await users.list_organisations(session, after, limit + 1)
    return page_of(rows, limit, _shown, lambda organisation: (organisation.name,))


@router.post("", status_code=201)
async def create_organisation(
    body: OrganisationIn, caller: Admin, door: HasDoor, once: HasOnce
) -> OrganisationOut:
    """Add an organisation."""
    async with once.transaction(door.database) as session:
        organisation = await users.create_organisation(session, body.name, door.now())
        note(session, door.by(caller), What.ORGANISATION_CREATED, organisation, door.now())
        return once.answers(_shown(organisation))


def _shown(organisation: Organisation) -> OrganisationOut:
    return OrganisationOut(id=organisation.id, name=organisation.name, created_at=organisation.created_at)
