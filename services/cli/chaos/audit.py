"""What an operator can be shown after blows: each account, whether it agrees, and what does not."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

from libs.common.embedded import EmbeddedPostgresFailed
from libs.common.settings import InvalidSettings, load_settings
from services.cli.client import Client, Failed
from services.cli.doctor import stores, wires
from services.cli.doctor.findings import Grade, examine
from services.cli.doctor.installation import NothingHere, found

ASK_AGAIN_S = 2.0
LOOK_WITHIN_S = 15.0
MOST_POINTS = 1000
NAMED = 5
ENDS = ("action.limits_applied.v1", "action.limits_superseded.v1")
ONCE = ("requested", "deployed", "destroyed", "failed")
LIVE = ("running", "suspended")


@dataclass(frozen=True, slots=True)
class Account:
    """One thing that was counted."""

    name: str
    told: str
    """What was counted, in words."""
    wrong: tuple[str, ...] = ()
    is_known: bool = True
    """Whether it could be looked at from here."""


@dataclass
class Auditor:
    """Counts over the REST APIs, and in the stores that this environment names."""

    client: Client
    since: datetime
    """When the blows began."""
    until: datetime
    """When they had ended."""
    events_before: set[str] = field(default_factory=set)

    async def settle(self, within_s: float) -> list[Account]:
        """Every account, asked again until all agree or the time is over: what is under way arrives first."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while True:
            accounts = await self.look()
            if not any(account.wrong for account in accounts) or loop.time() > end:
                return accounts
            await asyncio.sleep(ASK_AGAIN_S)

    async def look(self) -> list[Account]:
        """Every account once."""
        asked = {"samples": self.samples, "acts": self.acts, "machines": self.machines}
        accounts = [await _asked(name, ask) for name, ask in asked.items()]
        return [*accounts, await left_over()]

    async def samples(self) -> Account:
        """Every interval of every sampled cluster is kept, once: what the blows delayed was read afterwards."""
        monitors = {each["resource_id"]: each for each in await self.client.pages("/v1/monitors")}
        clusters = await self.client.pages("/v1/clusters")
        wrong, count = [], 0
        for cluster in clusters:
            watched = monitors.get(cluster["resource_id"])
            if watched is None or cluster["sampled_at"] is None or watched["sampled_at"] is None:
                continue
            offset = timedelta(seconds=watched["clock_offset_s"])
            kept = await self._kept(cluster["id"], self.since + offset, self.until + offset)
            wrong += [f"{cluster['name']}: {line}" for line in gaps(kept)]
            count += len(kept)
        return Account("samples", f"{count} intervals of {len(clusters)} clusters", tuple(wrong))

    async def _kept(self, cluster: str, since: datetime, until: datetime) -> list[tuple[datetime, int]]:
        """The beginning of each second with a sample, and how many samples count there."""
        found, step = [], timedelta(seconds=MOST_POINTS)
        while since < until:
            end = min(until, since + step)
            asked = {"cluster_id": cluster, "from": since.isoformat(), "to": end.isoformat(), "step": 1}
            points = (await self.client.call("GET", "/v1/stats/usage", params=asked))["points"]
            found += [
                (datetime.fromisoformat(each["at"]), each["samples"]) for each in points if each["samples"]
            ]
            since = end
        return found

    async def acts(self) -> Account:
        """Every act on limits ended once, and every machine has one life."""
        events = await self.client.pages("/v1/events")
        fresh = [each for each in events if each["id"] not in self.events_before]
        acts = sum(each["key"] == "action.limits_requested.v1" for each in fresh)
        told = f"{acts} changes of limits, {len(fresh)} events"
        return Account("acts", told, tuple(judge_acts(events, self.events_before)))

    async def machines(self) -> Account:
        """What rows say is what the cloud showed last, and it showed nobody of ours besides."""
        machines = await self.client.pages("/v1/machines", live=True)
        sweeps = await self.client.pages("/v1/sweeps")
        wrong = [f"{m['name']} is {m['state']}" for m in machines if m["state"] not in LIVE]
        wrong += [
            f"{m['name']} is {m['state']} and its power {m['power']}"
            for m in machines
            if m["state"] == "running" and m["power"] not in (None, "on")
        ]
        wrong += [f"{s['strangers']} strangers on {s['resource']}" for s in sweeps if s["strangers"]]
        names = Counter(m["name"] for m in machines)
        wrong += [f"{name} twice" for name, count in names.items() if count > 1]
        return Account("machines", f"{len(machines)} live", tuple(wrong))


def gaps(kept: Sequence[tuple[datetime, int]]) -> list[str]:
    """Where an interval counts twice, or where one is missing between two others."""
    wrong = [f"{at:%H:%M:%S} counts {count} times" for at, count in kept if count > 1]
    ats = sorted(at for at, _ in kept)
    steps = Counter((later - at).total_seconds() for at, later in pairwise(ats))
    if not steps:
        return wrong if kept else ["no sample at all"]
    interval_s = min(step for step, count in steps.items() if count == max(steps.values()))
    return wrong + [
        f"nothing between {at:%H:%M:%S} and {later:%H:%M:%S}"
        for at, later in pairwise(ats)
        if (later - at).total_seconds() >= 2 * interval_s
    ]


def judge_acts(events: Sequence[Mapping[str, Any]], before: set[str]) -> list[str]:
    """What does not add up in the log; of acts that were begun after `before`."""
    ends: Counter[str] = Counter()
    begun, lives = [], Counter[tuple[str, str]]()
    for event in events:
        body, word = event["body"], event["key"].split(".")[1].removeprefix("machine_")
        if event["key"] in ENDS:
            ends[body["action_id"]] += 1
        if event["key"] == "action.limits_requested.v1" and event["id"] not in before:
            begun.append(body["action_id"])
        if event["machine_id"] and word in ONCE:
            lives[(body["name"], word)] += 1
    wrong = [f"act {act} has no outcome" for act in begun if not ends[act]]
    wrong += [f"act {act} ended {ends[act]} times" for act in begun if ends[act] > 1]
    return wrong + [f"{name} was {word} {count} times" for (name, word), count in lives.items() if count > 1]


async def left_over() -> Account:
    """Outboxes and dead letters, where this environment names the database and the bus."""
    try:
        async with found(load_settings()) as place:
            named = {service.name: service for service in place.services}
            checks = {
                f"outbox of {name}": partial(stores.look_at_outbox, each) for name, each in named.items()
            }
            findings = await examine(
                {**checks, "dead letters": partial(wires.look_at_dead, place)}, LOOK_WITHIN_S
            )
    except (NothingHere, InvalidSettings, EmbeddedPostgresFailed) as error:
        return Account("left over", str(error).splitlines()[0], is_known=False)
    wrong = [f"{one.check}: {one.what}" for one in findings if one.grade is not Grade.OK]
    return Account("left over", f"{len(named)} outboxes, and the dead letters", tuple(wrong))


async def _asked(name: str, ask: Callable[[], Awaitable[Account]]) -> Account:
    try:
        return await ask()
    except Failed as error:
        return Account(name, "nobody answered", (str(error),))
