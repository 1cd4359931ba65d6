"""`/v1/sites`: where resources stand, and what is there in all."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from libs.common.auth import Principal, Role, allow
from libs.common.db import Database
from services.registry.domain.hosts import HostClass
from services.registry.domain.sites import Holdings, Site, Source, Standing, add_up
from services.registry.usecases.standing import find_site, list_sites

Viewer = Annotated[Principal, Depends(allow(Role.VIEWER))]


class HoldingsShown(BaseModel):
    """Hosts and what they are made of, added up."""

    hosts: int
    cores: int
    memory_gib: float
    gpus: int
    """Those that are known of."""
    hosts_of_unknown_gpus: int
    """The cloud does not say of so many hosts whether they have GPUs, or not to this account."""
    classes: dict[HostClass, int]
    """Hosts by class, where it is known."""


class StandingShown(HoldingsShown):
    """A resource of a site."""

    id: UUID
    name: str
    source: Source


class SiteTotals(HoldingsShown):
    """A site."""

    name: str
    resources: int


class SiteShown(SiteTotals):
    """A site and its resources."""

    standing: list[StandingShown]


class SitesShown(BaseModel):
    """All sites, and all of them together."""

    items: list[SiteTotals]
    total: HoldingsShown


class Sites:
    """The routes; each is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/sites", tags=["sites"])
        router.get("", summary="List sites with what is there")(self.list)
        router.get("/{name}", summary="Read a site")(self.read)
        return router

    async def list(self, who: Viewer) -> SitesShown:
        """By name, whole: of the caller's organisation, for an admin of all."""
        async with self._database.transaction() as session:
            sites = await list_sites(session, who)
        return SitesShown(
            items=[SiteTotals(**_about(site)) for site in sites],
            total=HoldingsShown(**_shown(add_up(site.holdings for site in sites))),
        )

    async def read(self, name: str, who: Viewer) -> SiteShown:
        """One site with its resources; capitals do not matter."""
        async with self._database.transaction() as session:
            site = await find_site(session, who, name)
        return SiteShown(**_about(site), standing=[_show(one) for one in site.standing])


def _about(site: Site) -> dict[str, object]:
    return {"name": site.name, "resources": len(site.standing), **_shown(site.holdings)}


def _show(one: Standing) -> StandingShown:
    return StandingShown(id=one.resource_id, name=one.name, source=one.source, **_shown(one.holdings))


def _shown(holdings: Holdings) -> dict[str, object]:
    return {name: getattr(holdings, name) for name in HoldingsShown.model_fields}
