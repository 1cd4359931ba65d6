"""How a service takes a message: read leniently, react in one transaction, wait while its database cannot take it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from structlog.contextvars import bind_contextvars

from libs.common.bus.base import Hopeless, Message
from libs.common.bus.handling import heed_cancellation
from libs.common.bus.messages import REPLAYED, decode
from libs.common.bus.retry import Backoff
from libs.common.contracts.base import Event
from libs.common.contracts.lenient import Strange
from libs.common.db import Database, refusal_of_server
from libs.common.inbox import first_time
from libs.common.metrics import Metrics
from libs.common.service import Hears, Runtime, Service

log = structlog.get_logger(__name__)

React = Callable[[Message, Event], Awaitable[None]]
MAY_BE_ITS_OWN = frozenset({"out_of_memory", "limit_exceeded"})
"""Refusals that one message can bring about by itself, by its size."""
_STRANGE_WORDS_KEPT = 100


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a message is tried that may itself be what the database cannot take; pauses grow to a second."""

    beside_others: int = 10
    """Refusals between which others of its kind were taken, so that the database was well."""
    alone: int = 600
    """Refusals of any kind: ten minutes, for the server's memory may be short for everybody."""


class CannotBeTaken(Hopeless):
    """A message whose every try ended in a refusal that others did not meet, or that did not end in all that time."""


@dataclass(slots=True)
class _Taken:
    """How many messages of a queue this process has taken."""

    count: int = 0


def handler(
    service: Service, hears: Hears, runtime: Runtime, metrics: Metrics
) -> Callable[[Message], Awaitable[None]]:
    """What the bus calls with a message of this queue."""

    async def react(message: Message, event: Event) -> None:
        with runtime.activity.busy(), metrics.event(service.name, message.key):
            async with service.database.transaction() as session:
                if hears.once and not await first_time(session, event.id, hears.event.key):
                    return
                await hears.react(session, event)
            # An answer is known already, mostly: who learns from it looks at its next beat.
            for wake in hears.wakes if REPLAYED not in message.headers else ():
                wake.set()

    return patiently(service.name, service.database, metrics, react)


def patiently(
    name: str, database: Database, metrics: Metrics, react: React, patience: Patience = Patience()
) -> Callable[[Message], Awaitable[None]]:
    """React, once the database takes it: that it is away, or full, is no fault of the message, and no delivery.

    A message that may be at fault itself is given up in the end, so that it does not hold its place for ever: it waits
    among the dead with the reason. Raises CannotBeTaken.
    """
    note, taken = _noting(name, metrics), _Taken()

    async def handle(message: Message) -> None:
        bind_contextvars(service=name)  # of this message's task
        event, backoff = decode(message, lambda strange: note(message.key, strange)), Backoff()
        seen, tries, beside = taken.count, 0, 0
        while True:
            try:
                await react(message, event)
                taken.count += 1
                return
            except Exception as error:
                cause = refusal_of_server(error)
                if cause is None and await database.answers():
                    raise
                if cause in MAY_BE_ITS_OWN or _is_cut(error):
                    tries += 1
                    beside += taken.count != seen
                    seen = taken.count
                if tries >= patience.alone or beside >= patience.beside_others:
                    raise CannotBeTaken(_why(tries, cause)) from error
                why = {"error": type(error).__name__, "cause": cause}
                log.warning("event.waits_for_database", key=message.key, message=message.id, **why)
            if cause is not None:
                metrics.refused(name, cause)
                await backoff.pause()
            await _until_it_answers(database)

    return handle


def _is_cut(error: Exception) -> bool:
    """Whether the server's process ended in the midst of it; one that cannot be reached at all is nobody's fault."""
    return refusal_of_server(error) is None and bool(getattr(error, "connection_invalidated", False))


def _why(tries: int, cause: str | None) -> str:
    return f"the database could not take it, tried {tries} times ({cause or 'it went away each time'})"


def _noting(service: str, metrics: Metrics) -> Callable[[str, Strange], None]:
    """Count words that are newer than this program; each is logged once, for samples come every few seconds."""
    known: set[tuple[str, Strange]] = set()

    def note(key: str, strange: Strange) -> None:
        metrics.strange_word(service, key, strange.field)
        if (key, strange) in known or len(known) >= _STRANGE_WORDS_KEPT:
            return
        known.add((key, strange))
        where = {"key": key, "field": strange.field}
        log.warning("event.strange_word", **where, word=strange.word, taken_for=strange.taken_for)

    return note


async def _until_it_answers(database: Database) -> None:
    backoff = Backoff()
    while not await database.answers():
        heed_cancellation()
        await backoff.pause()
