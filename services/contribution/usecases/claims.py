"""What BOINC clients say that they computed, added up: claimed, and nobody's grant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute

from libs.common.auth import Principal, Role
from libs.common.db import Session
from services.contribution.models import Claimed, Granted

MOST_ROWS = 10_000


class By(StrEnum):
    """What is added up apart."""

    DAY = "day"
    PROJECT = "project"
    MACHINE = "machine"
    ORGANISATION = "organisation"


@dataclass(frozen=True, slots=True)
class Claim:
    """CPU seconds and credit of a day, project, machine or organisation."""

    of: date | UUID
    cpu_s: float
    credit: float


def columns_of(table: type[Claimed] | type[Granted]) -> Mapping[By, InstrumentedAttribute[Any]]:
    """By which column of the table each is added up."""
    return {
        By.DAY: table.day,
        By.PROJECT: table.project_id,
        By.MACHINE: table.machine_id,
        By.ORGANISATION: table.organisation_id,
    }


async def claims(
    session: Session, who: Principal, since: date, until: date, by: By, project_id: UUID | None
) -> Sequence[Claim]:
    """Of the days from `since` up to but without `until`, of the caller's organisation (an admin: of all)."""
    of = columns_of(Claimed)[by]
    query = (
        select(of, func.sum(Claimed.cpu_s), func.sum(Claimed.credit))
        .where(Claimed.day >= since, Claimed.day < until)
        .group_by(of)
        .order_by(of)
        .limit(MOST_ROWS)
    )
    if project_id is not None:
        query = query.where(Claimed.project_id == project_id)
    if who.role is not Role.ADMIN:
        query = query.where(Claimed.organisation_id == who.organisation_id)
    rows = (await session.execute(query)).all()
    return [Claim(of, cpu_s, credit) for of, cpu_s, credit in rows]
