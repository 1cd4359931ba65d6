"""What BOINC clients say that they computed, added up: claimed, and nobody's grant."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute

from libs.common.auth import Principal, Role
from libs.common.db import Session
from services.contribution.models import Claimed, Granted


class By(StrEnum):
    """What is added up apart."""

    DAY = "day"
    PROJECT = "project"
    MACHINE = "machine"
    ORGANISATION = "organisation"


@dataclass(frozen=True, slots=True)
class Asked:
    """Which days, from `since` up to but without `until`, added up by what, and which page of it."""

    since: date
    until: date
    by: By
    project_id: UUID | None
    after: date | UUID | None
    limit: int


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


def asked_of(table: type[Claimed] | type[Granted], who: Principal, asked: Asked) -> ColumnElement[bool]:
    """The rows of the table that the caller asks for and may see: of its organisation (an admin: of all)."""
    rows = (table.day >= asked.since) & (table.day < asked.until)
    if asked.project_id is not None:
        rows &= table.project_id == asked.project_id
    if who.role is not Role.ADMIN:
        rows &= table.organisation_id == who.organisation_id
    return rows


async def claims(session: Session, who: Principal, asked: Asked) -> tuple[list[Claim], Claim]:
    """A page, one row more than its limit where there is more; and all of it added up, of `since`."""
    of, rows = columns_of(Claimed)[asked.by], asked_of(Claimed, who, asked)
    sums = (func.coalesce(func.sum(Claimed.cpu_s), 0.0), func.coalesce(func.sum(Claimed.credit), 0.0))
    query = select(of, *sums).where(rows).group_by(of).order_by(of).limit(asked.limit + 1)
    found = await session.execute(query if asked.after is None else query.where(of > asked.after))
    cpu_s, credit = (await session.execute(select(*sums).where(rows))).one()
    return [Claim(*row) for row in found.all()], Claim(asked.since, cpu_s, credit)
