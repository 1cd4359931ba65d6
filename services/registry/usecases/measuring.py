"""Gauges of what stands in registry's table: which clouds are asked with their alternate credential."""

from sqlalchemy import select

from libs.common.db import Session
from libs.common.figures import Figures, Gauge, Readings
from services.registry.models import Resource


async def _read(session: Session) -> list[Readings]:
    rows = await session.execute(select(Resource.id, Resource.alternate_since.is_not(None)))
    return [{(str(resource_id),): is_in_use for resource_id, is_in_use in rows}]


FIGURES = Figures(
    (
        Gauge(
            "tides_resource_alternate_in_use",
            "1 where a cloud refuses the first credential and is asked with the alternate one.",
            ("resource",),
        ),
    ),
    _read,
)
