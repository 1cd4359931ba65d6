"""Many rows of one table that are new, or changed, alike: written in one statement.

A flush writes as many statements as there are sets of changed columns in a row, and keeps books of every row; over a
hundred clusters of a round that costs more than judging them.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import DateTime, Float, Integer, String, TextClause, Uuid, inspect, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute
from sqlalchemy.orm.attributes import set_committed_value

from libs.common.db import Session, as_json_text

Attribute = InstrumentedAttribute[Any]
_TYPES = (
    (Uuid, "uuid"), (DateTime, "timestamptz"), (Float, "float8"), (JSONB, "jsonb"), (String, "text"),
    (Integer, "int8"),
)  # fmt: skip


async def write_alike(
    session: Session, rows: Sequence[DeclarativeBase], columns: tuple[Attribute, ...]
) -> None:
    """Write these columns of rows that the session holds, by the primary key `id`, as a flush would do later.

    Rows that have not loaded all of the columns are left to the flush, as is what else was changed in a row.
    Raises TypeError for a column of a type that nobody needed yet.
    """
    keys = [column.key for column in columns]
    whole = [row for row in rows if _is_changed(row, keys)]
    if not whole:
        return
    given = {"id": [row.__dict__["id"] for row in whole]}
    given |= _given(columns, [row.__dict__ for row in whole])
    with session.no_autoflush:
        await session.execute(_update(columns), given)
    for row in whole:
        for key in keys:
            set_committed_value(row, key, row.__dict__[key])


async def add_alike(
    session: Session, rows: Sequence[Mapping[str, Any]], columns: tuple[Attribute, ...]
) -> None:
    """Insert rows with these columns, which nobody will look at in this session.

    Raises TypeError for a column of a type that nobody needed yet.
    """
    if rows:
        with session.no_autoflush:
            await session.execute(_insert(columns), _given(columns, rows))


def _given(columns: Sequence[Attribute], rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values of each column, as the statement takes them."""
    given = {column.key: [row[column.key] for row in rows] for column in columns}
    for column in columns:
        if isinstance(column.type, JSONB):
            given[column.key] = [*map(_as_json, given[column.key])]
    return given


def _is_changed(row: DeclarativeBase, keys: Sequence[str]) -> bool:
    return bool(inspect(row).modified) and all(key in row.__dict__ for key in keys)


def _as_json(value: Any) -> str | None:
    return None if value is None else as_json_text(value)


@lru_cache(maxsize=32)
def _update(columns: tuple[Attribute, ...]) -> TextClause:
    table, kinds = columns[0].class_.__tablename__, _kinds_of(columns)
    changes = [f"{name} = cast(given.{name} as {kind})" for name, kind in kinds.items()]
    return text(
        f"update {table} set {', '.join(changes)}"
        f" from {_rows_of({'id': 'uuid'} | kinds)} where {table}.id = given.id"
    )


@lru_cache(maxsize=32)
def _insert(columns: tuple[Attribute, ...]) -> TextClause:
    table, kinds = columns[0].class_.__tablename__, _kinds_of(columns)
    values = [f"cast({name} as {kind})" for name, kind in kinds.items()]
    return text(f"insert into {table} ({', '.join(kinds)}) select {', '.join(values)} from {_rows_of(kinds)}")


def _rows_of(kinds: Mapping[str, str]) -> str:
    """Parameters of these names and types, each an array, as rows. JSON comes as text."""
    arrays = [f"cast(:{name} as {'text' if kind == 'jsonb' else kind}[])" for name, kind in kinds.items()]
    return f"unnest({', '.join(arrays)}) as given ({', '.join(kinds)})"


def _kinds_of(columns: Sequence[Attribute]) -> dict[str, str]:
    """The types of columns, as PostgreSQL calls them."""
    return {column.key: _type_of(column) for column in columns}


def _type_of(column: Attribute) -> str:
    for known, name in _TYPES:
        if isinstance(column.type, known):
            return name
    raise TypeError(f"{column}: a column of type {column.type!r}")
