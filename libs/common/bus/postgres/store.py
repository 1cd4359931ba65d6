"""The bus's connections to PostgreSQL: one that writes durably, two for the rest, one that listens."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg

from libs.common.bus.base import BusSeen, DeadMessage, Message, Queue, QueueSeen
from libs.common.bus.postgres import statements
from libs.common.bus.postgres.batch import Unwritable

CONNECT_TIMEOUT_S = 5.0
STATEMENT_TIMEOUT_S = 10.0

REFUSED = (asyncpg.exceptions.DataError, asyncpg.exceptions.ProgramLimitExceededError, ValueError)
"""What the server or its driver says of bad values; everything else is the server's own trouble."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way into the tables; without a target it goes wherever a binding matches."""

    message: Message
    target: str | None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message leased to this process; `deliveries` counts this one too and fences the lease."""

    id: int
    queue: str
    deliveries: int
    message: Message


@dataclass(frozen=True, slots=True)
class Outcome:
    """How handling a message ended: well (no reason), badly (pause), or for the last time (no pause)."""

    claimed: Claimed
    reason: str | None = None
    pause_s: float | None = None


class Store:
    """Statements on the tables. Any exception but Unwritable means that the server could not be asked."""

    def __init__(self, url: str, name: str) -> None:
        self._dsn = url.replace("postgresql+asyncpg://", "postgresql://", 1)
        self._name = name
        self._writer: Any = None
        self._pool: Any = None

    async def open(self) -> None:
        """Make the tables if there are none, and the pools."""
        self._writer = self._writer or await self._new_pool(1, {})
        # A claim or a settlement that a crash loses repeats a message: no need to wait for the disk.
        self._pool = self._pool or await self._new_pool(2, {"synchronous_commit": "off"})
        async with self._writer.acquire(timeout=CONNECT_TIMEOUT_S) as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock(hashtext('tides.bus'))")
            if await connection.fetchval("select to_regnamespace('bus') is null"):
                await connection.execute(statements.CREATE_SCHEMA)
            if await connection.fetchval("select to_regclass('bus.message') is null"):
                await connection.execute(statements.CREATE)

    async def aclose(self) -> None:
        """Close every connection."""
        for pool in (self._writer, self._pool):
            if pool is not None:
                try:
                    await asyncio.wait_for(pool.close(), CONNECT_TIMEOUT_S)
                except (TimeoutError, OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
                    pool.terminate()

    async def declare(self, queues: Sequence[Queue]) -> None:
        """Queues and bindings, in one transaction."""
        async with self._writer.acquire(timeout=CONNECT_TIMEOUT_S) as connection, connection.transaction():
            for queue in sorted(queues, key=lambda queue: queue.name):
                await connection.execute(
                    statements.DECLARE_QUEUE, queue.name, queue.expires_s, queue.delivery_limit
                )
                for pattern in queue.keys:
                    await connection.execute(
                        statements.BIND, queue.name, pattern, statements.matcher_of(pattern)
                    )

    async def knows(self, queue: str) -> bool:
        """Whether the queue has been declared by anybody."""
        return bool((await self._fetch(statements.KNOWS, queue))[0][0])

    async def publish(self, outgoing: Sequence[Outgoing]) -> list[str]:
        """Insert durably; the answer is the queues that got something. Raises Unwritable."""
        messages = [item.message for item in outgoing]
        try:
            rows = await self._writer.fetch(
                statements.PUBLISH,
                [message.id for message in messages],
                [message.key for message in messages],
                [json.dumps(dict(message.headers)) for message in messages],
                [message.body for message in messages],
                [item.target for item in outgoing],
                self._name,
            )
        except REFUSED as error:
            raise Unwritable(f"{type(error).__name__}: {messages[0].key} {messages[0].id}") from error
        return [row["queue"] for row in rows]

    async def claim(self, room: Mapping[str, int], lease_s: float) -> list[Claimed]:
        """Lease the oldest free messages, at most so many of each queue."""
        rows = await self._fetch(statements.CLAIM, list(room), list(room.values()), lease_s)
        return sorted(
            (Claimed(row["id"], row["queue"], row["deliveries"], _message_of(row)) for row in rows),
            key=lambda claimed: claimed.id,
        )

    async def extend(self, held: Sequence[Claimed], lease_s: float) -> None:
        """Begin the leases anew."""
        await self._fetch(statements.EXTEND, *_columns(held), lease_s)

    async def release(self, held: Sequence[Claimed]) -> None:
        """Give messages back at once, as if they had not been delivered."""
        await self._fetch(statements.RELEASE, *_columns(held), self._name)

    async def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Delete what went well, put back or park what did not."""
        done = [outcome.claimed.id for outcome in outcomes if outcome.reason is None]
        failed = [outcome for outcome in outcomes if outcome.reason is not None]
        if done:
            await self._fetch(statements.FINISH, done)
        if failed:
            await self._fetch(
                statements.FAIL,
                *_columns(outcome.claimed for outcome in failed),
                [outcome.pause_s for outcome in failed],
                [outcome.reason for outcome in failed],
            )

    async def sweep(self) -> list[tuple[str, str, str]]:
        """Delete what expired; park what no consumer survives: (queue, key, message id) of each."""
        await self._fetch(statements.DROP_EXPIRED)
        return [
            (row["queue"], row["key"], row["message_id"]) for row in await self._fetch(statements.BURY_FATAL)
        ]

    async def depth(self, queues: Iterable[str]) -> int:
        """Messages of these queues that are waiting, paused or leased."""
        return int((await self._fetch(statements.DEPTH, list(queues)))[0][0])

    async def look(self, queues: Sequence[str]) -> BusSeen:
        """How many are dead, and how many wait in each queue."""
        dead = int((await self._fetch(statements.COUNT_DEAD))[0][0])
        rows = await self._fetch(statements.LOOK, list(queues)) if queues else ()
        waiting = {row["name"]: row["waiting"] for row in rows}
        return BusSeen(dead, tuple(QueueSeen(name, waiting.get(name)) for name in queues))

    async def dead(self, limit: int) -> list[DeadMessage]:
        """The oldest parked messages; `number` is the row's."""
        rows = await self._fetch(statements.DEAD, limit)
        return [
            DeadMessage(row["id"], row["queue"], _message_of(row), row["reason"] or "unknown") for row in rows
        ]

    async def retry_dead(self, number: int | None) -> list[str]:
        """Make parked messages live again; the answer has the queue of each."""
        return [row["queue"] for row in await self._fetch(statements.RETRY_DEAD, number, self._name)]

    async def listen(self, heard: Callable[[str], None]) -> None:
        """Report queues in which other processes put something, until the connection is lost."""
        lost = asyncio.Event()

        def notified(_connection: object, _pid: int, _channel: str, payload: str) -> None:
            sender, _, queue = payload.partition(" ")
            if sender != self._name:
                heard(queue)

        connection = await asyncpg.connect(
            self._dsn, timeout=CONNECT_TIMEOUT_S, server_settings={"application_name": "tides-bus"}
        )
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(statements.CHANNEL, notified)
            await lost.wait()
        finally:
            with suppress(TimeoutError, OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
                await connection.close(timeout=1)

    async def _new_pool(self, size: int, settings: Mapping[str, str]) -> Any:
        return await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=size,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=STATEMENT_TIMEOUT_S,
            reset=_leave,
            server_settings={"application_name": "tides-bus", **settings},
        )

    async def _fetch(self, statement: str, *values: object) -> Sequence[Any]:
        rows: Sequence[Any] = await self._pool.fetch(statement, *values)
        return rows


async def _leave(_connection: object) -> None:
    """No session holds anything but its transaction, which asyncpg ends: the usual reset is one more round trip."""


def _message_of(row: Any) -> Message:
    return Message(row["message_id"], row["key"], row["body"], json.loads(row["headers"]))


def _columns(held: Iterable[Claimed]) -> tuple[list[int], list[int]]:
    held = list(held)
    return [claimed.id for claimed in held], [claimed.deliveries for claimed in held]
