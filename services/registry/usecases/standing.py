"""Which resources stand at a site."""

from collections.abc import Sequence

from sqlalchemy import select

from libs.common.auth import Principal, Role
from libs.common.db import Session
from libs.common.errors import not_found
from services.registry.domain import name_key
from services.registry.domain.sites import Site, Standing, count, group
from services.registry.models import Resource


async def list_sites(session: Session, who: Principal) -> Sequence[Site]:
    """Every site at which the caller's organisation has a resource; for an admin those of all."""
    query = (
        select(Resource.id, Resource.name, Resource.site, Resource.inventory, Resource.declared)
        .where(Resource.site.is_not(None))
        .order_by(Resource.id)
    )
    if who.role is not Role.ADMIN:
        query = query.where(Resource.organisation_id == who.organisation_id)
    return group(
        Standing(row.id, row.name, row.site, *count(row.inventory, row.declared))
        for row in await session.execute(query)
    )


async def find_site(session: Session, who: Principal, name: str) -> Site:
    """The site of this name. Raises 404."""
    for site in await list_sites(session, who):
        if name_key(site.name) == name_key(name.strip()):
            return site
    raise not_found("site")
