"""A message that the database cannot take: what is the server's fault waits, what is its own is given up."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from libs.common.bus.base import Message
from libs.common.bus.messages import to_message
from libs.common.contracts.base import Event
from libs.common.contracts.resource import Mode, ResourceChanged, ResourceRecovered
from libs.common.db import Database
from libs.common.hearing import CannotBeTaken, Patience, patiently
from libs.common.metrics import Metrics

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
UNREACHED = "no connection to be had"


class Refused(Exception):
    """What a driver raises."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate
        self.connection_invalidated = sqlstate is None


class Server:
    """A database that cannot take some messages."""

    def __init__(self) -> None:
        self.faults: dict[str, str | None] = {}
        self.refused_most: dict[str, int] = {}
        """How often at most; else always."""
        self.taken: list[str] = []
        self.refusals = 0
        self.is_up = True
        self.tags: set[object] = set()
        """What log lines say of whose they are."""

    async def answers(self) -> bool:
        """Down for one question after it went away over a message."""
        was_up, self.is_up = self.is_up, True
        return was_up

    async def react(self, message: Message, _event: Event) -> None:
        """Take it, or not."""
        await asyncio.sleep(0)
        self.tags.add(get_contextvars().get("service"))
        if message.id in self.faults:
            self.refusals += 1
            sqlstate = self.faults[message.id]
            self.refused_most[message.id] = left = self.refused_most.get(message.id, 1_000) - 1
            if left == 0:
                del self.faults[message.id]
            self.is_up = sqlstate not in (None, UNREACHED)
            raise TimeoutError if sqlstate == UNREACHED else Refused(sqlstate)
        self.taken.append(message.id)


def message(number: int) -> Message:
    return to_message(
        ResourceRecovered(id=UUID(int=number), at=AT, resource_id=UUID(int=1), outage_s=1), "/test"
    )


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def handle(server: Server, registry: CollectorRegistry) -> Callable[[Message], Awaitable[None]]:
    return patiently("tiny", cast(Database, server), Metrics(registry), server.react, Patience(3, 6))


async def test_what_is_logged_over_a_message_says_of_which_service_it_is(
    server: Server, handle: Callable[[Message], Awaitable[None]]
) -> None:
    await asyncio.gather(handle(message(1)), handle(message(2)))
    assert server.tags == {"tiny"}
    assert "service" not in get_contextvars()


@pytest.mark.parametrize(
    ("sqlstate", "cause"),
    [("53200", "out_of_memory"), ("53400", "limit_exceeded"), (None, "it went away each time")],
)
async def test_a_message_too_much_for_the_database_is_given_up_while_others_are_taken(
    server: Server, handle: Callable[[Message], Awaitable[None]], sqlstate: str | None, cause: str
) -> None:
    bad = message(1)
    server.faults[bad.id] = sqlstate
    trying, number = asyncio.ensure_future(handle(bad)), 2
    while not trying.done():
        await handle(message(number))
        number += 1
    with pytest.raises(CannotBeTaken) as raised:
        await trying

    assert str(raised.value) == f"the database could not take it, tried 3 times ({cause})"
    await handle(message(number))
    assert server.taken == [message(each).id for each in range(2, number + 1)]


async def test_what_was_refused_while_nobody_was_served_does_not_count_when_others_are(
    server: Server, handle: Callable[[Message], Awaitable[None]]
) -> None:
    server.faults = {message(1).id: "53200", message(2).id: "53200"}
    server.refused_most = {message(1).id: 4, message(2).id: 2}
    await asyncio.gather(handle(message(1)), handle(message(2)))

    assert server.taken == [message(2).id, message(1).id]


async def test_where_nothing_else_is_taken_it_has_more_time_and_not_all_the_time_there_is(
    server: Server, handle: Callable[[Message], Awaitable[None]]
) -> None:
    server.faults = {message(1).id: "53200", message(2).id: "53200"}
    outcomes = await asyncio.gather(handle(message(1)), handle(message(2)), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [CannotBeTaken] * 2
    assert server.refusals == 12


@pytest.mark.parametrize("sqlstate", ["53100", "57P01", UNREACHED])
async def test_a_full_disk_or_a_server_out_of_reach_is_no_messages_fault_however_often_it_is_tried(
    server: Server, handle: Callable[[Message], Awaitable[None]], sqlstate: str
) -> None:
    bad = message(1)
    server.faults[bad.id] = sqlstate
    trying = asyncio.ensure_future(handle(bad))
    while server.refusals < 5:
        await handle(message(2))
        await asyncio.sleep(0.01)
    del server.faults[bad.id]
    await trying
    assert bad.id in server.taken


async def test_a_new_word_is_counted_each_time_and_logged_once(
    handle: Callable[[Message], Awaitable[None]], server: Server, registry: CollectorRegistry
) -> None:
    event = ResourceChanged(
        at=AT, revision=1, resource_id=UUID(int=1), organisation_id=UUID(int=2), name="r", provider="simulated",
        url="sim://x", settings={}, username="", sealed_secret="", ca_pem=None, thumbprint=None, mode=Mode.LEND,
        interval_s=20,
    )  # fmt: skip
    told = to_message(event, "/test")
    newer = json.dumps(json.loads(told.body) | {"mode": "borrow"}).encode()
    with capture_logs() as logs:
        for number in range(3):
            await handle(Message(f"m{number}", told.key, newer, told.headers))

    assert [(line["event"], line["field"], line["word"], line["taken_for"]) for line in logs] == [
        ("event.strange_word", "mode", "borrow", "paused")
    ]
    where = {"service": "tiny", "key": told.key, "field": "mode"}
    assert registry.get_sample_value("tides_strange_words_total", where) == 3
    assert len(server.taken) == 3
