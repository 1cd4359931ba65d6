"""Resources that are away and what stands in for them, as workload says."""

from collections.abc import Iterable, Mapping
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from libs.common.contracts.action import AwayFact, ResourceDeparted
from libs.common.db import Session
from services.contribution.models import AwayResource


async def note(session: Session, event: AwayFact) -> None:
    """Keep the newest word of a resource; a repeat, or one that comes late, moves nothing."""
    row = {
        "organisation_id": event.organisation_id,
        "is_away": isinstance(event, ResourceDeparted),
        "stand_in_id": event.stand_in_id,
        "at": event.at,
    }
    values = insert(AwayResource).values(resource_id=event.resource_id, **row)
    newer = AwayResource.at <= values.excluded.at
    await session.execute(values.on_conflict_do_update(index_elements=["resource_id"], set_=row, where=newer))


async def read_stand_ins(session: Session, organisation_id: UUID) -> Mapping[UUID, UUID]:
    """What stands in for which resource of the organisation now."""
    mine = (AwayResource.organisation_id == organisation_id) & AwayResource.is_away.is_(True)
    rows = select(AwayResource.resource_id, AwayResource.stand_in_id).where(
        mine, AwayResource.stand_in_id.is_not(None)
    )
    return {row.resource_id: row.stand_in_id for row in await session.execute(rows)}


def with_stand_ins(resource_ids: Iterable[UUID] | None, stand_ins: Mapping[UUID, UUID]) -> list[UUID] | None:
    """The resources that a contribution lends just now: those that it names, and what stands in for them; None: all."""
    if resource_ids is None:
        return None
    named = list(resource_ids)
    return named + [stand_ins[one] for one in named if one in stand_ins]
