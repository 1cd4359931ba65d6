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

from libs.common.alike import add_alike, write_alike
from libs.common.db import Database, Json, Session, Utc, among
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
    is_done: Mapped[bool] = mapped_column(default=False)


COLUMNS = (Thing.name, Thing.level, Thing.at, Thing.sample)


@pytest.fixture
async def things(database: Database) -> Database:
    async with database.transaction() as session:
        await session.execute(
            text(
                "create table thing (id uuid primary key, name text not null, level float8 not null,"
                " at timestamptz, sample jsonb, count int not null, is_done bool not null)"
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
        one.is_done = True
        with pytest.raises(TypeError, match="is_done"):
            await write_alike(session, [one], (Thing.is_done,))


async def test_json_that_is_written_already_is_stored_as_it_stands_and_read_where_somebody_looks(
    things: Database,
) -> None:
    async with things.transaction() as session:
        one, two = await _load(session, ONE, TWO)
        ready = Json('{"host": "ü", "mhz": [1.50, null]}')
        assert (ready["host"], ready.get("name"), len(ready)) == ("ü", None, 2)
        one.sample = two.sample = ready  # type: ignore[assignment]
        await write_alike(session, [one], COLUMNS)  # the other one is left to the flush
    async with things.transaction() as session:
        stored = [row.sample for row in await _load(session, ONE, TWO)]
    assert stored == [{"host": "ü", "mhz": [1.5, None]}] * 2


async def test_new_rows_are_added_in_one_statement_and_none_of_them_where_one_cannot_be(
    things: Database,
) -> None:
    columns = (Thing.id, *COLUMNS, Thing.count)
    row = {"name": "added", "level": 0.5, "at": AT, "sample": Json('{"a": 1}'), "count": 4}
    four, five = ({**row, "id": UUID(int=number)} for number in (4, 5))
    async with things.transaction() as session:
        session.add(Thing(id=UUID(int=9), name="held", level=0.0))
        await add_alike(session, [], columns)
        await session.execute(text("alter table thing alter is_done set default false"))
        with pytest.raises(DBAPIError):
            async with session.savepoint():
                await add_alike(session, [four, {**five, "id": ONE}], columns)
        await add_alike(session, [four, {**five, "sample": None}], columns)
    async with things.transaction() as session:
        found = await _load(session, UUID(int=4), UUID(int=5), UUID(int=9))
    assert [(one.name, one.at, one.sample, one.count) for one in found] == [
        ("added", AT, {"a": 1}, 4),
        ("added", AT, None, 4),
        ("held", None, None, 0),
    ]
