"""The audit, for administrators."""

from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from libs.common.paging import Cursor, Limit, Page, page_of, read_cursor
from services.identity.api.door import Admin, HasDoor
from services.identity.usecases import auditing
from services.identity.usecases.auditing import What

router = APIRouter(prefix="/v1/audit", tags=["audit"])


class AuditOut(BaseModel):
    """Who did what, when, from where. No secret is in it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    at: datetime
    what: What
    by_user_id: UUID | None
    """None: nobody who had logged in, or Tides itself."""
    by_name: str | None
    from_address: str | None
    about_id: UUID | None
    """The user, organisation or token that it is about."""
    about_name: str | None
    details: dict[str, Any]


@router.get("")
async def list_audit(
    _caller: Admin, door: HasDoor, limit: Limit = 50, cursor: Cursor = None
) -> Page[AuditOut]:
    """Every change of users, roles, tokens and passwords, and what became of logins; newest first."""
    after = read_cursor(cursor, UUID)[0] if cursor is not None else None
    async with door.database.transaction() as session:
        rows = await auditing.list_audit(session, after, limit + 1)
    return page_of(rows, limit, AuditOut.model_validate, lambda row: (str(row.id),))
