"""The inbox: a message counts once for each handler, and only if its transaction was committed."""

import asyncio
from datetime import timedelta

from sqlalchemy import func, insert, select

from libs.common.db import Database
from libs.common.ids import new_id
from libs.common.inbox import KEEP, first_time, prune, remember_revoked, revoked_tokens
from libs.common.tables import inbox
from tests.contract.tiny import texts, write

MESSAGE = new_id()


async def _handle(database: Database, words: str, handler: str = "reader", fail: bool = False) -> bool:
    async with database.transaction() as session:
        if not await first_time(session, MESSAGE, handler):
            return False
        await write(session, words)
        await asyncio.sleep(0.05)
        if fail:
            raise ValueError(words)
        return True


async def test_a_repeat_is_a_no_op(database: Database) -> None:
    assert [await _handle(database, words) for words in ("one", "again")] == [True, False]
    assert await texts(database) == ["one"]


async def test_each_handler_has_its_own_first_time(database: Database) -> None:
    assert await _handle(database, "one", "reader")
    assert await _handle(database, "two", "writer")


async def test_of_ten_at_once_one_counts(database: Database) -> None:
    handled = await asyncio.gather(*(_handle(database, f"by {number}") for number in range(10)))
    assert sorted(handled) == [False] * 9 + [True]
    assert len(await texts(database)) == 1


async def test_whoever_waits_for_one_that_fails_does_it(database: Database) -> None:
    both = _handle(database, "failed", fail=True), _handle(database, "done")
    assert True in await asyncio.gather(*both, return_exceptions=True)
    assert await texts(database) == ["done"]
    assert not await _handle(database, "again")


async def test_pruning_forgets_only_what_can_no_longer_come(database: Database) -> None:
    ages = {new_id(): age for age in (timedelta(0), KEEP - timedelta(hours=1), KEEP + timedelta(hours=1))}
    async with database.transaction() as session:
        for message_id, age in ages.items():
            row = {"message_id": message_id, "handler": "reader", "handled_at": func.now() - age}
            await session.execute(insert(inbox).values(row))
    await prune(database)
    async with database.transaction() as session:
        left = set((await session.execute(select(inbox.c.message_id))).scalars())
    assert left == {message_id for message_id, age in ages.items() if age < KEEP}


async def test_revoked_tokens_are_remembered_once(database: Database) -> None:
    one, other = new_id(), new_id()
    for token_id in (one, other, one):
        async with database.transaction() as session:
            await remember_revoked(session, token_id)
    assert await revoked_tokens(database) == {one, other}
