"""Lists a page at a time, and updates that name the revision they were made from."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Header, Query, Response
from pydantic import BaseModel

from libs.common.errors import Problem, invalid
from libs.common.names import is_storable

T = TypeVar("T")
R = TypeVar("R")

MAX_PAGE = 200


class Page(BaseModel, Generic[T]):
    """One page; `next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None = None


Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="How many items at most.")]
"""Query parameter; give it a default of 50."""
Cursor = Annotated[
    str | None, Query(max_length=500, description="`next_cursor` of the page before; leave it out at first.")
]
"""Query parameter; opaque to callers."""
IfMatch = Annotated[
    str | None, Header(description="The ETag of the revision that this change was made from.")
]


def make_cursor(*position: str | int) -> str:
    """An opaque cursor for a position: the sort key of the last item shown."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def read_cursor(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """The position that `make_cursor` was given; kinds are `str`, `int`, `UUID`. Raises a 422 Problem."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        position = json.loads(raw)
        if not isinstance(position, list) or len(position) != len(kinds):
            raise ValueError("another list's cursor")
        return tuple(_as(kind, part) for kind, part in zip(kinds, position, strict=True))
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise invalid("cursor", "This is no cursor of this list.", "Begin again without a cursor.") from None


def _as(kind: type, part: Any) -> Any:
    if kind is UUID and isinstance(part, str):
        return UUID(part)
    if type(part) is not kind or (isinstance(part, str) and not is_storable(part)):
        raise ValueError("wrong kind")
    if isinstance(part, int) and abs(part) >= 2**63:
        raise ValueError("out of range")
    return part


def page_of(
    rows: Sequence[R], limit: int, shown: Callable[[R], T], position: Callable[[R], tuple[str | int, ...]]
) -> Page[T]:
    """A page of rows that were asked for with `limit + 1`: the one too many says that there is more."""
    there_is_more = len(rows) > limit
    rows = rows[:limit]
    cursor = make_cursor(*position(rows[-1])) if there_is_more else None
    return Page[T](items=[shown(row) for row in rows], next_cursor=cursor)


def set_etag(response: Response, revision: int) -> None:
    """Say which revision this answer shows."""
    response.headers["ETag"] = f'"{revision}"'


def require_match(if_match: str | None, revision: int) -> None:
    """Refuse a change that was made from another revision: 428 when it names none, 412 when it is old."""
    if if_match is None:
        raise Problem(
            428, "This change must name the revision it was made from.", remedy="Send its ETag as If-Match."
        )
    if if_match.strip() == "*":
        return
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in if_match.split(",")}
    if str(revision) not in tags:
        raise Problem(
            412, "It has changed since you read it.", remedy="Read it again and repeat your change."
        )
