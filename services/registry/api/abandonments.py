"""`/v1/abandonments`: clouds that were given up without being asked, and what may run there still."""

import asyncio
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, ValidationError

from libs.common.auth import Principal, Role, allow
from libs.common.db import Database, Session
from libs.common.paging import Cursor, Limit, Page, page_of, read_cursor
from libs.common.service import Runtime
from libs.providers.registry import UnknownDriver, find_driver
from services.registry.models import Resource
from services.registry.usecases import abandoning

_LOOK_EVERY_S, _LOOKS = 0.1, 50
"""How long an answer waits for workload's word on the machines, which takes a fraction of a second."""
Viewer = Annotated[Principal, Depends(allow(Role.VIEWER))]


class MachineLeftShown(BaseModel):
    """A machine that may run still, as it was last known."""

    machine_id: UUID
    name: str
    cluster_id: UUID
    cluster: str
    host: str | None
    state: str
    power: str | None


class AbandonmentShown(BaseModel):
    """A cloud that was given up. `machines` is null until workload has written them off."""

    model_config = ConfigDict(from_attributes=True)
    resource_id: UUID
    organisation_id: UUID
    name: str
    provider: str
    url: str
    at: datetime
    by: str
    reason: str
    find: str
    """How to find the machines in the cloud, in words."""
    machines: list[MachineLeftShown] | None


class Abandonments:
    """The routes, and the way out of a resource that leads here."""

    def __init__(self, database: Database, runtime: Runtime) -> None:
        self._database = database
        self._runtime = runtime

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/v1/abandonments", tags=["resources"])
        router.get("", summary="List clouds that were abandoned")(self.list)
        router.get("/{resource_id}", summary="Read what may run in an abandoned cloud")(self.read)
        return router

    async def list(self, who: Viewer, limit: Limit = 50, cursor: Cursor = None) -> Page[AbandonmentShown]:
        """In the order in which the resources were registered; of the caller's organisation, for an admin of all."""
        after: UUID | None = read_cursor(cursor, UUID)[0] if cursor else None
        async with self._database.transaction() as session:
            rows = await abandoning.list_page(session, who, after, limit)
        return page_of(rows, limit, AbandonmentShown.model_validate, lambda row: (str(row.resource_id),))

    async def read(self, resource_id: UUID, who: Viewer) -> AbandonmentShown:
        """By the id that the resource had."""
        async with self._database.transaction() as session:
            return AbandonmentShown.model_validate(await abandoning.read(session, who, resource_id))

    async def abandon(self, resource_id: UUID, who: Principal) -> AbandonmentShown:
        """Forget a resource whose cloud does not answer; the answer waits a little for workload's word."""
        async with self._database.transaction() as session:
            find = await self._how_to_find(session, resource_id)
            await abandoning.abandon(session, who, resource_id, find, self._runtime.clock.now())
        shown = await self.read(resource_id, who)
        for _ in range(_LOOKS):
            if shown.machines is not None:
                break
            await asyncio.sleep(_LOOK_EVERY_S)
            shown = await self.read(resource_id, who)
        return shown

    async def _how_to_find(self, session: Session, resource_id: UUID) -> str:
        resource = await session.get(Resource, resource_id)
        if resource is None:
            return ""
        return how_to_find(resource, self._runtime.settings.installation_id)


def how_to_find(resource: Resource, installation_id: UUID | None) -> str:
    """Where our machines lie in a cloud and how they are called, in words."""
    try:
        settings = find_driver(resource.provider).settings.model_validate(resource.settings)
    except (UnknownDriver, ValidationError):
        settings = BaseModel()
    # What a driver's settings call a place of our own.
    places = {"folder": "folder", "pool": "resource pool"}
    named = [
        f"in {word} `{getattr(settings, key)}`" for key, word in places.items() if hasattr(settings, key)
    ]
    where = f"{' and '.join(named)}, " if named else ""
    return (
        f"Each is named `tides-<machine id>`, lies {where}in its cluster, and its mark says installation"
        f" {installation_id}. Only what bears both is ours. Registered again, such a cloud is lent nothing until a"
        " person has answered for these machines (`tides sweep show`)."
    )
