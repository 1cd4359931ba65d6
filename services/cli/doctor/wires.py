"""Checks of the bus: is it there, who listens to what, and what was given up."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from libs.common.bus import open_bus
from libs.common.bus.base import Bus, QueueSeen
from services.cli.doctor.findings import Check, Finding, fail, ok, warn
from services.cli.doctor.installation import Installation, queues_of

MANY_WAIT = 1000
NAMED = 3


def checks(place: Installation) -> dict[str, Check]:
    """Every check of the bus, by name. Each connects for itself, so that none waits for another."""
    return {
        "bus": partial(look_at_bus, place),
        "queues": partial(look_at_queues, place),
        "dead letters": partial(look_at_dead, place),
    }


@asynccontextmanager
async def _bus(place: Installation) -> AsyncIterator[Bus]:
    bus = await open_bus(place.bus_url)
    try:
        yield bus
    finally:
        await bus.aclose()


async def look_at_bus(place: Installation) -> list[Finding]:
    """Whether it answers."""
    is_rabbit = place.bus_url.startswith("amqp")
    async with _bus(place) as bus:
        await bus.look()
    kind = "RabbitMQ" if is_rabbit else "the database's tables"
    clock = "tells no time, and none is needed of it" if is_rabbit else "is the database's"
    return [ok("bus", f"{kind}: answers"), ok("clock of the bus", clock)]


async def look_at_queues(place: Installation) -> list[Finding]:
    """One finding for each service: are its queues there, does somebody listen, does much wait?"""
    names = {service.name: queues_of(service) for service in place.services}
    async with _bus(place) as bus:
        seen = await bus.look([name for queues in names.values() for name in queues])
    by_name = {queue.name: queue for queue in seen.queues}
    return [_judge(name, [by_name[queue] for queue in queues]) for name, queues in names.items()]


def _judge(service: str, queues: list[QueueSeen]) -> Finding:
    check = f"queues of {service}"
    missing = [queue.name for queue in queues if queue.waiting is None]
    if len(missing) == len(queues):
        return warn(check, "none was ever declared", f"Start `tides run {service}` with this bus.")
    waiting = sum(queue.waiting or 0 for queue in queues)
    listening = [queue.consumers for queue in queues if queue.consumers is not None]
    told = f"{len(queues)} queues, {waiting} waiting" + (f", {sum(listening)} consumers" if listening else "")
    deaf = [queue.name for queue in queues if queue.consumers == 0]
    if deaf:
        named = ", ".join(deaf[:NAMED])
        return fail(
            check, f"{told}; nobody listens to {named}", f"Start `tides run {service}`, or look at its log."
        )
    if missing:
        named = ", ".join(missing[:NAMED])
        return warn(check, f"{told}; not declared: {named}", f"Restart {service}: it runs an older program.")
    if waiting > MANY_WAIT:
        return warn(check, told, f"Start more replicas of {service}, or look why it is slow.")
    return ok(check, told)


async def look_at_dead(place: Installation) -> list[Finding]:
    """What was given up waits for a person."""
    async with _bus(place) as bus:
        count = (await bus.look()).dead
        dead = await bus.dead() if count else ()
    if not count:
        return [ok("dead letters", "none")]
    queues = Counter(one.queue for one in dead)
    told = ", ".join(f"{number} of {queue}" for queue, number in queues.most_common(NAMED))
    remedy = "Read why with `tides dead list`; mend the cause, then `tides dead retry`."
    return [fail("dead letters", f"{count}: {told}", remedy)]
