"""Replay for who comes late: a service asks for the states that it hears, and whoever publishes them tells them again.

Answers are addressed to the asker's own queues. What is gone is told too, by its last state, so that it goes there.
"""

from collections.abc import Awaitable, Callable, Sequence

import structlog

from libs.common.clock import Clock
from libs.common.contracts.base import StateEvent
from libs.common.contracts.replay import StatesAsked
from libs.common.db import Session
from libs.common.service import Hears, Service, Tells, queue_name

log = structlog.get_logger(__name__)

ASK_EVERY_S = 3600.0
"""After the first time, at the start: for answers that a broker lost, and for publishers of before."""


def state_keys(service: Service) -> tuple[str, ...]:
    """The keys of the state events that a service hears."""
    return tuple(hears.event.key for hears in service.hears if issubclass(hears.event, StateEvent))


def asking(service: Service, clock: Clock) -> Callable[[], Awaitable[None]]:
    """A beat's work: ask, through the outbox, for everything that the service hears the state of."""
    database, name, keys = service.database, service.name, state_keys(service)

    async def ask() -> None:
        async with database.transaction() as session:
            session.emit(StatesAsked(at=clock.now(), asker=name, keys=keys))

    return ask


def answering(tells: Sequence[Tells]) -> Hears:
    """Ears for who asks: one transaction that tells every asked state into the asker's queue, page by page."""
    known = {told.event.key: told for told in tells}

    async def answer(session: Session, event: StatesAsked) -> None:
        for key in event.keys:
            if key in known:
                count = await _tell(session, known[key], queue_name(event.asker, key))
                log.info("states.told", asker=event.asker, key=key, states=count)

    return Hears(StatesAsked, answer, prefetch=1)


async def _tell(session: Session, told: Tells, queue: str) -> int:
    count, after = 0, None
    while True:
        states, after = await told.read(session, after)
        for state in states:
            session.emit(state, queue=queue)
        await session.write_out()
        count += len(states)
        if after is None:
            return count
