"""Keeping account: what was said on the bus, against what services show and what the cloud has."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aio_pika

from libs.common.bus.base import Message
from libs.common.bus.messages import decode
from libs.common.bus.rabbit.wire import INTERNAL, PUBLIC, packed
from libs.common.contracts.usage import UsageSampled
from libs.common.ids import cluster_id
from tests.support import until
from tests.system.action_log import said_twice, without_outcome, word_of
from tests.system.installing import Installed
from tests.system.lab import TICK_S, Lab

_QUORUM: Any = {"x-queue-type": "quorum"}
_OURS, _ALL = "witness.samples", "witness.public"


@dataclass
class Witness:
    """A subscriber from the first word on; its queues keep everything while nobody reads."""

    url: str
    public: dict[str, Counter[str]] = field(default_factory=dict)
    """How often each message id came, by key."""
    kept: list[aio_pika.Message] = field(default_factory=list)
    """The packets of the samples, as they came; the last thousand."""
    samples: set[tuple[str, datetime]] = field(default_factory=set)
    """Every published sample: cluster and end of its interval."""

    async def subscribe(self) -> None:
        """Bind the queues before anybody speaks."""
        async with await aio_pika.connect(self.url) as connection, connection.channel() as channel:
            for name, exchange, key in ((_OURS, INTERNAL, UsageSampled.key), (_ALL, PUBLIC, "#")):
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
        event = decode(Message(message_id, key, packet.body))
        assert isinstance(event, UsageSampled)
        again = packed(Message(message_id, key, packet.body, _texts(packet.headers)))
        self.kept = [*self.kept[-999:], again]
        self.samples.update((str(cluster_id(event.resource_id, s.cluster)), s.at) for s in event.samples)

    def actions(self) -> set[str]:
        """Ids of all action events that came."""
        return {id for key, ids in self.public.items() if key.startswith("action.") for id in ids}


def _texts(headers: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if isinstance(value, str)}


async def all_accounts_agree(installed: Installed, lab: Lab, witness: Witness) -> None:
    """Waits for quiet, then: no machine twice, no orphan, no sample lost, no action event missing or doubled."""
    await until(
        lambda: rows_are_the_cloud(installed, lab), timeout=60, what="rows that say what the cloud has"
    )
    assert lab.twice == set(), "a machine existed twice"
    await until(lambda: _every_event_went_out(installed, witness), timeout=40, what="every event went out")
    await until(lambda: _every_sample_is_kept(installed, witness), timeout=40, what="every sample in stats")
    await until(lambda: _every_request_has_an_outcome(installed), timeout=30, what="an outcome of all limits")
    events = await installed.events()
    assert said_twice(events) == [], "said twice"
    _every_machine_has_one_life(events, {vm.name for vm in await lab.ours()})
    dead = [p for p in installed.deployment.processes.values() if not p.is_running]
    assert dead == [], "every process lives"


async def rows_are_the_cloud(installed: Installed, lab: Lab) -> bool:
    """Whether workload's live machines are exactly the cloud's: name, host, power and limit."""
    rows = {(m["name"], m["host"], m["state"], m["limit_mhz"]) for m in await installed.machines()}
    there = {
        (vm.name, vm.host, "running" if vm.is_on else "suspended", float(vm.limit_mhz))
        for vm in await lab.ours()
    }
    return rows == there


async def _every_event_went_out(installed: Installed, witness: Witness) -> bool:
    await witness.read()
    logged = {event["id"] for event in await installed.events()}
    # The log shows an event once every older transaction has ended: the bus may have been told sooner.
    return witness.actions() == logged


async def _every_sample_is_kept(installed: Installed, witness: Witness) -> bool:
    await witness.read()
    (cluster,) = {cluster for cluster, _ in witness.samples}
    ats = sorted(at for _, at in witness.samples)
    since = ats[0] - timedelta(seconds=TICK_S)
    query = {
        "cluster_id": cluster,
        "from": since.isoformat(),
        "to": (ats[-1] + timedelta(hours=1)).isoformat(),
        "step": TICK_S,
    }
    text = "&".join(f"{name}={value}" for name, value in query.items()).replace("+", "%2B")
    points = (await installed.deployment.ask("stats", "GET", f"/v1/stats/usage?{text}"))["points"]
    kept = {datetime.fromisoformat(p["at"]).astimezone(UTC) + timedelta(seconds=TICK_S) for p in points}
    assert {point["samples"] for point in points} <= {1}, "a sample counts once"
    return set(ats) <= kept


async def _every_request_has_an_outcome(installed: Installed) -> bool:
    return not without_outcome(await installed.events())


def _every_machine_has_one_life(events: list[dict[str, Any]], there: set[str]) -> None:
    names = {word: set[str]() for word in ("requested", "destroyed")}
    for event in events:
        if event["machine_id"] and word_of(event) in names:
            names[word_of(event)].add(event["body"]["name"])
    assert names["requested"] - names["destroyed"] == there, "what was asked for and not destroyed is there"
