"""Many rows of one table that changed alike, written in one statement.

A flush writes as many statements as there are sets of changed columns in a row; over a hundred clusters of a round
that costs more than judging them.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import DateTime, Float, String, TextClause, Uuid, inspect, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute
from sqlalchemy.orm.attributes import set_committed_value

from libs.common.db import Session, as_json_text

Attribute = InstrumentedAttribute[Any]
_TYPES = ((Uuid, "uuid"), (DateTime, "timestamptz"), (Float, "float8"), (JSONB, "jsonb"), (String, "text"))


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
    given: dict[str, Any] = {"id": [row.__dict__["id"] for row in whole]}
    for column in columns:
        values = [row.__dict__[column.key] for row in whole]
        given[column.key] = [*map(_as_json, values)] if isinstance(column.type, JSONB) else values
    with session.no_autoflush:
        await session.execute(_update(columns), given)
    for row in whole:
        for key in keys:
            set_committed_value(row, key, row.__dict__[key])


def _is_changed(row: DeclarativeBase, keys: Sequence[str]) -> bool:
    return bool(inspect(row).modified) and all(key in row.__dict__ for key in keys)


def _as_json(value: Any) -> str | None:
    return None if value is None else as_json_text(value)


@lru_cache(maxsize=32)
def _update(columns: tuple[Attribute, ...]) -> TextClause:
    table, names = columns[0].class_.__tablename__, [column.key for column in columns]
    kinds = [_type_of(column) for column in columns]
    arrays = [
        f"cast(:{name} as {'text' if kind == 'jsonb' else kind}[])"
        for name, kind in zip(names, kinds, strict=True)
    ]
    changes = [f"{name} = cast(given.{name} as {kind})" for name, kind in zip(names, kinds, strict=True)]
    return text(
        f"update {table} set {', '.join(changes)}"
        f" from unnest(cast(:id as uuid[]), {', '.join(arrays)}) as given (id, {', '.join(names)})"
        f" where {table}.id = given.id"
    )


def _type_of(column: Attribute) -> str:
    for known, name in _TYPES:
        if isinstance(column.type, known):
            return name
    raise TypeError(f"{column}: a column of type {column.type!r}")
