"""Rows that changed alike are written in one statement, and nothing else of them is touched."""

import math
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, defer, mapped_column

from libs.common.alike import write_alike
from libs.common.db import Database, Session, Utc, among
from tests.contract.tiny import AT

ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))


class _Base(DeclarativeBase):
    type_annotation_map = {datetime: Utc, dict[str, Any]: JSONB}  # noqa: RUF012 - SQLAlchemy's own name


class Thing(_Base):
    """A row with a column of every type that is written so."""

    __tablename__ = "thing"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    level: Mapped[float]
    at: Mapped[datetime | None]
    sample: Mapped[dict[str, Any] | None]
    count: Mapped[int] = mapped_column(default=0)


COLUMNS = (Thing.name, Thing.level, Thing.at, Thing.sample)


@pytest.fixture
async def things(database: Database) -> Database:
    async with database.transaction() as session:
        await session.execute(
            text(
                "create table thing (id uuid primary key, name text not null, level float8 not null,"
                " at timestamptz, sample jsonb, count int not null)"
            )
        )
        session.add_all(Thing(id=each, name="new", level=0.0) for each in (ONE, TWO, THREE))
    return database


async def _load(session: Session, *ids: UUID) -> list[Thing]:
    rows = select(Thing).where(among(Thing.id, ids)).order_by(Thing.id)
    return list((await session.execute(rows)).scalars())


async def test_what_changed_is_written_and_a_row_that_did_not_change_is_left_alone(things: Database) -> None:
    async with things.transaction() as session:
        one, two, three = await _load(session, THREE, TWO, ONE)
        one.name, one.level, one.at, one.sample, one.count = "it's", math.inf, AT, {"a": [1.5, None, "ü"]}, 7
        two.sample = {}
        with session.no_autoflush:
            other = text("update thing set name = 'by another hand' where id = :id")
            await session.execute(other, {"id": THREE})
            await write_alike(session, [one, two, three], COLUMNS)
            written = (await session.execute(text("select name, count from thing order by id"))).all()
        assert written == [("it's", 0), ("new", 0), ("by another hand", 0)], "the rest is the flush's"
    async with things.transaction() as session:
        one, two, three = await _load(session, ONE, TWO, THREE)
        assert (one.name, one.level, one.at, one.sample, one.count) == (
            "it's",
            math.inf,
            AT,
            {"a": [1.5, None, "ü"]},
            7,
        )
        assert (two.name, two.at, two.sample) == ("new", None, {})
        assert three.name == "by another hand"


async def test_a_row_of_which_not_all_is_loaded_is_left_to_the_flush(things: Database) -> None:
    async with things.transaction() as session:
        found = select(Thing).where(Thing.id == ONE).options(defer(Thing.sample))
        one = (await session.execute(found)).scalar_one()
        one.name = "half"
        await write_alike(session, [one], COLUMNS)
        assert list(session.dirty) == [one]
    async with things.transaction() as session:
        assert [one.name for one in await _load(session, ONE)] == ["half"]


async def test_what_postgresql_refuses_is_an_error_of_the_statement(things: Database) -> None:
    async with things.transaction() as session:
        (one,) = await _load(session, ONE)
        one.sample = {"level": math.nan}
        with pytest.raises(DBAPIError):
            await write_alike(session, [one], COLUMNS)
        session.expunge(one)


async def test_a_type_that_nobody_needed_yet_is_refused(things: Database) -> None:
    async with things.transaction() as session:
        (one,) = await _load(session, ONE)
        one.count = 3
        with pytest.raises(TypeError, match="count"):
            await write_alike(session, [one], (Thing.count,))
