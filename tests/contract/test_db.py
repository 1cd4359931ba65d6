"""Transactions: rows and events together or not at all, in a schema and a role of one's own."""

import asyncio

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from libs.common.contracts.base import Event
from libs.common.contracts.resource import ResourceChanged, ResourceRecovered
from libs.common.db import Database, async_url
from libs.common.wake import Activity, Wake
from tests.contract.tiny import AT, SCHEMA, an_event, note, texts, tiny_database, waiting, write


class Stranger(Event):
    """Not in the catalogue."""

    key = "stranger.arrived.v1"


async def _keep(database: Database, event: Event, *notes: str, error: Exception | None = None) -> None:
    async with database.transaction() as session:
        for words in notes:
            await write(session, words)
        session.emit(event)
        if error is not None:
            raise error


async def test_a_commit_keeps_rows_and_events_and_wakes_the_relay(database_url: str) -> None:
    activity = Activity()
    async with tiny_database(database_url):
        database = Database(database_url, SCHEMA, committed=Wake(activity))
        async with database.transaction() as session:
            await write(session, "one")
            session.emit(an_event(1))
            session.emit(an_event(2))
            assert activity.is_idle, "nothing is committed yet"
        assert not activity.is_idle
        rows = await waiting(database)
        await database.dispose()
    assert [row.headers["ce-subject"] for row in rows] == [an_event(1).subject, an_event(2).subject]
    assert {(row.key, row.public, row.claimed_until, row.attempts) for row in rows} == {
        ("resource.recovered.v1", True, None, 0)
    }
    assert rows[0].headers["ce-source"] == "/tides/tiny"
    assert ResourceRecovered.decode(rows[0].body).id == rows[0].message_id


async def test_a_transaction_without_events_wakes_nobody(database_url: str) -> None:
    activity = Activity()
    async with tiny_database(database_url):
        database = Database(database_url, SCHEMA, committed=Wake(activity))
        async with database.transaction() as session:
            await write(session, "one")
        assert activity.is_idle
        assert await waiting(database) == []
        await database.dispose()


async def test_a_hint_is_given_after_the_commit_and_after_no_other_end(database: Database) -> None:
    told: list[str] = []
    async with database.transaction() as session:
        session.once_committed(lambda: told.append("committed"))
        assert told == []

    async def fail() -> None:
        async with database.transaction() as session:
            session.once_committed(lambda: told.append("rolled back"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert told == ["committed"]


async def test_a_rollback_keeps_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        await _keep(database, an_event(), "one", error=ZeroDivisionError())
    assert (await texts(database), await waiting(database)) == ([], [])


async def test_a_cancelled_transaction_keeps_nothing(database: Database) -> None:
    async def begin() -> None:
        async with database.transaction() as session:
            await write(session, "one")
            session.emit(an_event())
            await session.flush()
            begun.set()
            await asyncio.Event().wait()

    begun = asyncio.Event()
    task = asyncio.create_task(begin())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert (await texts(database), await waiting(database)) == ([], [])


async def test_a_commit_that_fails_emits_nothing_and_wakes_nobody(database_url: str) -> None:
    activity = Activity()
    async with tiny_database(database_url):
        database = Database(database_url, SCHEMA, committed=Wake(activity))
        with pytest.raises(IntegrityError):
            # The constraint is deferred: only the commit itself fails.
            await _keep(database, an_event(), "same", "same")
        assert activity.is_idle
        assert (await texts(database), await waiting(database)) == ([], [])
        await database.dispose()


async def test_an_event_outside_the_catalogue_is_refused_at_once(database: Database) -> None:
    with pytest.raises(KeyError, match=r"stranger\.arrived\.v1"):
        await _keep(database, Stranger(at=AT), "one")
    assert (await texts(database), await waiting(database)) == ([], [])


async def test_what_is_sealed_is_never_marked_public(database: Database) -> None:
    state = ResourceChanged.model_construct(
        **{**an_event().model_dump(), "name": "n", "revision": 1, "sealed_secret": "k.sealed"}
    )
    async with database.transaction() as session:
        session.emit(state)
    (row,) = await waiting(database)
    assert (row.key, row.public) == ("resource.changed.v1", False)


async def test_a_session_works_as_its_service_and_in_its_schema(database: Database) -> None:
    async with database.transaction() as session:
        who, schema, name = (
            await session.execute(
                text("select current_user, current_schema, current_setting('application_name')")
            )
        ).one()
        assert (who, schema, name) == ("tides_tiny", "tiny", "tides-tiny")
        one, other = await session.database_now(), await session.database_now()
        assert other > one, "a lease taken late in a long transaction must not be short"


async def test_an_error_does_not_quote_what_was_written(database: Database) -> None:
    with pytest.raises(DBAPIError) as raised:
        async with database.transaction() as session:
            await session.execute(note.insert(), [{"text": "hunter2 " * 100}])
    assert "hunter2" not in str(raised.value)
    assert "too long" in str(raised.value)


async def test_a_failed_statement_spoils_only_its_own_transaction(database: Database) -> None:
    for _ in range(8):
        with pytest.raises(ProgrammingError):
            async with database.transaction() as session:
                await session.execute(text("select * from nothing"))
    async with database.transaction() as session:
        await write(session, "one")
        assert list((await session.execute(select(note.c.text))).scalars()) == ["one"]


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_every_form_of_a_url_reaches_the_same_driver(scheme: str) -> None:
    assert async_url(f"{scheme}://u:postgres@h/d") == "postgresql+asyncpg://u:postgres@h/d"
