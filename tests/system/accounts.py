"""Keeping account: what was said on the bus, against what services show and what the cloud has."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aio_pika
import asyncpg

from libs.common.bus.base import Message
from libs.common.bus.messages import decode
from libs.common.bus.rabbit.wire import DEAD, INTERNAL, PUBLIC, packed
from libs.common.contracts.usage import UsageSampled
from libs.common.ids import cluster_id
from tests.support import slowness, until
from tests.system.action_log import ended_twice, said_twice, without_outcome, word_of
from tests.system.installing import Installed
from tests.system.lab import TICK_S, Lab
from tests.system.processes import Deployment

_QUORUM: Any = {"x-queue-type": "quorum"}
_OURS, _ALL = "witness.internal", "witness.public"
_MOST_KEPT = 1000

OUR_PLACE = "tides"
"""What our pools and folders are called."""
SETTLED_WITHIN_S = 60.0
MOST_POINTS = 1000

Wrong = Sequence[str] | Mapping[str, str]
"""What does not agree. Where the words hold figures that change: by what it is about."""


@dataclass
class Witness:
    """A subscriber from the first word on; its queues keep everything while nobody reads."""

    url: str
    public: dict[str, Counter[str]] = field(default_factory=dict)
    """How often each message id came, by key."""
    kept: dict[str, aio_pika.Message] = field(default_factory=dict)
    """Packets of every kind as they came, by id; the last thousand."""
    samples: set[tuple[str, datetime]] = field(default_factory=set)
    """Every published sample: cluster and end of its interval."""

    async def subscribe(self) -> None:
        """Bind the queues before anybody speaks."""
        async with await aio_pika.connect(self.url) as connection, connection.channel() as channel:
            for name, exchange, key in ((_OURS, INTERNAL, "#"), (_ALL, PUBLIC, "#")):
                declared = await channel.declare_exchange(exchange, aio_pika.ExchangeType.TOPIC, durable=True)
                queue = await channel.declare_queue(name, durable=True, arguments=_QUORUM)
                await queue.bind(declared, key)

    async def read(self) -> None:
        """Take what has come since the last time."""
        async with await aio_pika.connect(self.url) as connection, connection.channel() as channel:
            for name in (_OURS, _ALL):
                queue = await channel.declare_queue(name, passive=True)
                while (packet := await queue.get(fail=False)) is not None:
                    await packet.ack()
                    self._note(name, packet)

    def _note(self, queue: str, packet: aio_pika.abc.AbstractIncomingMessage) -> None:
        key, message_id = packet.routing_key or "", packet.message_id or ""
        if queue == _ALL:
            self.public.setdefault(key, Counter())[message_id] += 1
            return
        self.kept[message_id] = packed(Message(message_id, key, packet.body, _texts(packet.headers)))
        if len(self.kept) > _MOST_KEPT:
            del self.kept[next(iter(self.kept))]
        if key == UsageSampled.key:
            event = decode(Message(message_id, key, packet.body))
            assert isinstance(event, UsageSampled)
            self.samples.update((str(cluster_id(event.resource_id, s.cluster)), s.at) for s in event.samples)

    def actions(self) -> set[str]:
        """Ids of all action events that came."""
        return {id for key, ids in self.public.items() if key.startswith("action.") for id in ids}


def _texts(headers: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if isinstance(value, str)}


async def all_accounts_agree(installed: Installed, lab: Lab, witness: Witness) -> None:
    """Waits for quiet, then: no machine twice, no orphan, nothing lost, doubled or left over, wherever one looks.

    Fails with all that does not agree.
    """
    accounts: dict[str, Callable[[], Awaitable[Wrong]]] = {
        "machines": lambda: _machines(installed, lab),
        "pools": lambda: pools(installed, lab),
        "events": lambda: events_on_the_bus(installed, witness),
        "lives": lambda: _lives(installed, lab),
        "samples": lambda: _samples(installed, witness),
        "left over": lambda: _left_over(installed.deployment),
    }
    wrong = [each for name, account in accounts.items() for each in await last_word(name, account)]
    wrong += [f"{name} existed twice" for name in sorted(lab.twice)]
    ended = [name for name, each in installed.deployment.processes.items() if not each.is_running]
    wrong += [f"{name} has ended" for name in ended]
    assert not wrong, "\n".join(wrong)


async def nothing_of_ours_stays(installed: Installed, lab: Lab) -> None:
    """Take the cloud away: whatever we ever made or set there is gone, by the cloud's own word."""
    path = f"/v1/resources/{installed.resource['id']}"
    await installed.deployment.ask("registry", "DELETE", f"{path}?force=true")
    await until(lambda: _is_gone(installed.deployment, path), timeout=120, what="a resource that is gone")
    sight = await lab.look()
    assert [vm.name for vm in sight.ours] == [], "no machine"
    assert OUR_PLACE not in {*sight.folders, *(pool.name for pool in sight.pools)}, "no pool, no folder"


async def rows_are_the_cloud(installed: Installed, lab: Lab) -> bool:
    """Whether workload's live machines are exactly the cloud's: name, host, power and limit."""
    return not await _machines(installed, lab)


async def last_word(name: str, account: Callable[[], Awaitable[Wrong]]) -> list[str]:
    """What was wrong all the time: what is under way arrives, and whatever goes on is not whole at any moment."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + SETTLED_WITHIN_S * slowness()
    still = _by_subject(await account())
    while still and loop.time() < until_s:
        await asyncio.sleep(0.2)
        now = _by_subject(await account())
        still = {subject: now[subject] for subject in still if subject in now}
    return [f"{name}: {text}" for text in still.values()]


def _by_subject(wrong: Wrong) -> dict[str, str]:
    return dict(wrong) if isinstance(wrong, Mapping) else dict(zip(wrong, wrong, strict=True))


async def _machines(installed: Installed, lab: Lab) -> dict[str, str]:
    """No orphan, no lost machine, no limit but ours: rows and cloud side by side."""
    rows = {(m["name"], m["host"], m["state"], m["limit_mhz"]) for m in await installed.machines()}
    there = {
        (vm.name, vm.host, "running" if vm.is_on else "suspended", float(vm.limit_mhz))
        for vm in await lab.ours()
    }
    wrong = {f"{one[0]} in rows": f"only in rows: {one}" for one in rows - there}
    return wrong | {f"{one[0]} there": f"only there: {one}" for one in there - rows}


async def pools(installed: Installed, lab: Lab) -> dict[str, str]:
    """There is one pool of ours, with the cap that was decided last."""
    cluster, sight = await installed.cluster(), await lab.look()
    limits = [pool.limit_mhz for pool in sight.pools if pool.name == OUR_PLACE]
    told = {"cap": f"caps {limits}, decided is {cluster['cap_mhz']}"}
    return {} if len(limits) == 1 and abs(limits[0] - cluster["cap_mhz"]) <= 1 else told


async def events_on_the_bus(installed: Installed, witness: Witness) -> list[str]:
    """Every event of the log was on the bus and no other; every act ended, and once."""
    await witness.read()
    events = await installed.events()
    logged, said = {event["id"] for event in events}, witness.actions()
    # The log shows an event once every older transaction has ended: the bus may have been told sooner.
    wrong = [f"{id} never said" for id in logged - said] + [f"{id} not in the log" for id in said - logged]
    wrong += [f"said twice: {key}" for key in said_twice(events)]
    wrong += [f"ended twice: {words}" for words in ended_twice(events)]
    return wrong + [f"no outcome after {word}" for word in without_outcome(events)]


async def _lives(installed: Installed, lab: Lab) -> list[str]:
    """What was asked for and not destroyed is there, and nothing else is."""
    names = {word: set[str]() for word in ("requested", "destroyed")}
    for event in await installed.events():
        if event["machine_id"] and word_of(event) in names:
            names[word_of(event)].add(event["body"]["name"])
    living, there = names["requested"] - names["destroyed"], {vm.name for vm in await lab.ours()}
    wrong = [f"{name} lives on in the log" for name in living - there]
    wrong += [f"{name} was never asked for, or is destroyed" for name in there - living]
    return wrong + [f"{name} was never asked for" for name in lab.ever - names["requested"]]


async def _samples(installed: Installed, witness: Witness) -> dict[str, str]:
    """Every published sample counts once in stats, and no other does."""
    await witness.read()
    (cluster,) = {cluster for cluster, _ in witness.samples}
    ats = sorted(at for _, at in witness.samples)
    kept: Counter[datetime] = Counter()
    since, end = ats[0] - timedelta(seconds=TICK_S), ats[-1] + timedelta(seconds=TICK_S)
    while since < end:
        till = min(end, since + timedelta(seconds=TICK_S * MOST_POINTS))
        query = {"cluster_id": cluster, "from": since.isoformat(), "to": till.isoformat(), "step": TICK_S}
        text = "&".join(f"{name}={value}" for name, value in query.items()).replace("+", "%2B")
        for point in (await installed.deployment.ask("stats", "GET", f"/v1/stats/usage?{text}"))["points"]:
            at = datetime.fromisoformat(point["at"]).astimezone(UTC) + timedelta(seconds=TICK_S)
            kept[at] += point["samples"]
        since = till
    hours = {"from": (ats[0] - timedelta(hours=1)).isoformat(), "to": (end + timedelta(hours=1)).isoformat()}
    text = "&".join(f"{name}={value}" for name, value in hours.items()).replace("+", "%2B")
    summary = await installed.deployment.ask("stats", "GET", f"/v1/stats/summary?{text}")
    if summary["samples"] != len(witness.samples):
        said_and_kept = f"{len(witness.samples)} published, {summary['samples']} counted"
        return {"count": f"{said_and_kept}, {summary['refused']} refused"}
    said = Counter(ats)
    return {
        f"{at}": f"{at:%H:%M:%S} published {said[at]}, kept {kept[at]}"
        for at in sorted({*said, *kept})
        if said[at] != kept[at]
    }


async def _left_over(deployment: Deployment) -> dict[str, str]:
    """Outboxes and the queue of the dead are empty."""
    connection = await asyncpg.connect(deployment.database_url, timeout=10)
    try:
        tables = await connection.fetch("select schemaname from pg_tables where tablename = 'outbox'")
        rows = {
            schema: await connection.fetch(f'select key, parked_at from "{schema}".outbox')
            for (schema,) in tables
        }
    finally:
        await connection.close()
    texts = [f"outbox of {name}: {row['key']}" for name, found in rows.items() for row in found]
    async with await aio_pika.connect(deployment.bus_url) as bus, bus.channel() as channel:
        dead = (await channel.declare_queue(DEAD, passive=True)).declaration_result.message_count
    return _by_subject(texts) | ({"dead": f"{dead} dead letters"} if dead else {})


async def _is_gone(deployment: Deployment, path: str) -> bool:
    answer = await deployment.ask("registry", "GET", path, expect=(200, 404))
    return "provider" not in answer
