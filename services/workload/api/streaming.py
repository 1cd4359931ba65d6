"""The event log as server-sent events: without end, resumable from any place, over at once when the process stops."""

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi import Request

from libs.common.auth import Verifier, bearer_of
from libs.common.db import Database
from libs.common.errors import Problem
from libs.common.paging import make_cursor, read_cursor
from services.workload.api.shapes import EventOut
from services.workload.models import ActionRecord
from services.workload.usecases import reading
from services.workload.usecases.reading import Position, Whose

FOLLOW_EVERY_S = 0.5
KEEP_ALIVE_S = 15.0
BATCH = 200


def read_position(cursor: str) -> Position:
    """A place in the log from its written form. Raises a 422 Problem."""
    transaction, number = read_cursor(cursor, int, int)
    return transaction, number


def make_position(row: ActionRecord) -> str:
    """The place behind an event: a page's cursor and a stream's id."""
    return make_cursor(row.transaction, row.number)


async def follow(
    request: Request, database: Database, after: Position | None, whose: Whose
) -> AsyncIterator[str]:
    """Server-sent events from a position on (None: from now), until reader, process or access token is gone.

    The first thing that a reader is told is the id of its place: who is cut off before any event misses none.
    """
    stopping: asyncio.Event = request.app.state.stopping
    verifier: Verifier = request.app.state.verifier
    token = bearer_of(request.headers)
    if after is None:
        async with database.transaction() as session:
            newest = await reading.events(session, None, whose, 1, newest=True)
        after = (newest[0].transaction, newest[0].number) if newest else (0, 0)
    yield f": following\nid: {make_cursor(*after)}\n\n"
    quiet_s = 0.0
    while not stopping.is_set() and not await request.is_disconnected() and _still_opens(verifier, token):
        async with database.transaction() as session:
            rows = await reading.events(session, after, whose, BATCH)
        for row in rows:
            after = (row.transaction, row.number)
            yield _frame(row)
        quiet_s = 0.0 if rows else quiet_s + FOLLOW_EVERY_S
        if quiet_s >= KEEP_ALIVE_S:
            quiet_s = 0.0
            yield ": still here\n\n"
        if len(rows) < BATCH:
            await _pause(stopping)


def _still_opens(verifier: Verifier, token: str) -> bool:
    """Whether the token is neither over nor revoked: a stream lives no longer than what it was opened with."""
    try:
        verifier.verify(token)
    except Problem:
        return False
    return True


def _frame(row: ActionRecord) -> str:
    shown = EventOut.model_validate(row).model_dump(mode="json")
    return f"id: {make_position(row)}\nevent: {row.key}\ndata: {json.dumps(shown)}\n\n"


async def _pause(stopping: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(FOLLOW_EVERY_S):
            await stopping.wait()
    except TimeoutError:
        return
