"""Keeping account at the end: the cloud, what the bus carried and what services show must tell one story."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import asyncpg

from libs.common.bus.base import Message
from libs.common.bus.messages import decode
from libs.common.contracts.usage import UsageSampled
from tests.crash.story import START, WITNESS, Play, outboxes
from tests.system.action_log import ONCE, said_twice, without_outcome, word_of

SETTLED_WITHIN_LOOKS, LOOK_AGAIN_S = 150, 0.2


async def audit(play: Play) -> list[str]:
    """What is wrong, in words; nothing, if all is well."""
    await play.stage.settled()
    connection = await asyncpg.connect(play.database_url)
    try:
        events = await _events(play, connection)
        return [
            *play.troubles,
            *await _cloud_and_rows(play),
            *_actions(events),
            *await _words(connection, {event["id"] for event in events}),
            *await _samples(play, connection),
            *await _left_over(connection),
        ]
    finally:
        await connection.close()


async def _events(play: Play, connection: asyncpg.Connection) -> list[dict[str, Any]]:
    """The log. It shows nothing that is younger than any transaction still open on the server, whosever it is."""
    for _ in range(SETTLED_WITHIN_LOOKS):
        events = await play.stage.client.pages("/v1/events")
        kept = await connection.fetchval("select count(*) from workload.action_event")
        if len(events) >= kept:
            break
        await asyncio.sleep(LOOK_AGAIN_S)
    return events


async def _cloud_and_rows(play: Play) -> list[str]:
    state = play.cloud().state()
    live = [machine.name for machine in state.machines if machine.deleted_at_s is None]
    twice = [name for name, count in Counter(machine.name for machine in state.machines).items() if count > 1]
    rows = await play.stage.client.pages("/v1/machines", live=True)
    resources = await play.stage.client.pages("/v1/resources")
    return [
        *(f"the cloud still has {name}" for name in live),
        *(f"the cloud made {name} twice" for name in twice),
        *(f"a row still says that {row['name']} is {row['state']}" for row in rows),
        *(f"resource {each['name']} is still {each['mode']}" for each in resources),
    ]


def _actions(events: list[dict[str, Any]]) -> list[str]:
    """Each act said once and ended once; each machine with one life."""
    troubles = [f"said twice: {key}" for key in said_twice(events)]
    troubles += [f"no outcome: {word}" for word in without_outcome(events)]
    lives: dict[str, list[str]] = {}
    for event in events:
        if event["machine_id"] and word_of(event) in ONCE:
            lives.setdefault(event["machine_id"], []).append(word_of(event))
    for machine, words in lives.items():
        if max(Counter(words).values()) > 1 or words[0] != "requested" or words[-1] != "destroyed":
            troubles.append(f"the life of machine {machine}: {', '.join(words)}")
    if not lives:
        troubles.append("no machine ever lived")
    return troubles


async def _words(connection: asyncpg.Connection, logged: set[str]) -> list[str]:
    """What the bus carried is what the log has: repeats by the same id are allowed there, gaps are not."""
    rows = await connection.fetch(
        "select distinct message_id from bus.message where queue = $1 and key like 'action.%'", WITNESS
    )
    said = {row[0] for row in rows}
    troubles = (
        [f"{len(said - logged)} action events were said and are not in the log"] if said - logged else []
    )
    return troubles + ([f"{len(logged - said)} action events were never said"] if logged - said else [])


async def _samples(play: Play, connection: asyncpg.Connection) -> list[str]:
    """Every published sample is kept, once; and no interval of the cloud's is missing while it was watched."""
    rows = await connection.fetch(
        "select message_id, key, body from bus.message where queue = $1 and key like 'usage.%'", WITNESS
    )
    said: set[tuple[str, str]] = set()
    for row in rows:
        event = decode(Message(row["message_id"], row["key"], row["body"]))
        assert isinstance(event, UsageSampled)
        said |= {(sample.cluster, sample.at.isoformat()) for sample in event.samples}
    span = {
        "from": (START - timedelta(hours=1)).isoformat(),
        "to": (play.stage.clock.now() + timedelta(hours=1)).isoformat(),
    }
    told = await play.stage.client.call("GET", "/v1/stats/summary", params=span)
    if told["samples"] != len(said):
        return [f"{len(said)} samples were published, {told['samples']} are kept"]
    return []


async def _left_over(connection: asyncpg.Connection) -> list[str]:
    dead = await connection.fetch("select queue, key, reason from bus.message where dead_at is not null")
    troubles = [f"dead in {row['queue']}: {row['key']}: {row['reason']}" for row in dead]
    for schema in await outboxes(connection):
        left = await connection.fetch(f'select key, parked_at from "{schema}".outbox')
        troubles += [f"left in the outbox of {schema}: {row['key']}" for row in left]
    return troubles
