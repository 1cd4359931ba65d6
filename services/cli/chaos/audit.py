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
from services.cli.client import PAGE, Client, Failed
from services.cli.doctor import stores, wires
from services.cli.doctor.findings import Grade, examine
from services.cli.doctor.installation import found
from services.cli.run import NothingHere

ASK_AGAIN_S = 2.0
LOOK_WITHIN_S = 15.0
MOST_POINTS = 1000
NAMED = 5
NOBODY = "nobody answered"
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
class Acts:
    """What the log of events adds up to. Each event is read once, and counts are kept instead of it."""

    client: Client
    fresh: int = 0
    """Events since the blows began."""
    begun: list[str] = field(default_factory=list)
    """Acts on limits since then."""
    ends: Counter[str] = field(default_factory=Counter)
    lives: Counter[tuple[str, str]] = field(default_factory=Counter)
    """What happened to machines that may happen once; from the log's beginning on."""
    cursor: str | None = None

    async def read(self, *, is_fresh: bool) -> None:
        """On from where the last read ended; `is_fresh` after the blows began."""
        while True:
            asked = {"limit": PAGE, "cursor": self.cursor}
            page = await self.client.call("GET", "/v1/events", params=asked)
            for event in page["items"]:
                self._note(event, is_fresh=is_fresh)
            if page["next_cursor"] is None:
                return
            self.cursor = page["next_cursor"]

    def wrong(self) -> list[str]:
        """What does not add up."""
        wrong = [f"act {act} has no outcome" for act in self.begun if not self.ends[act]]
        wrong += [f"act {act} ended {self.ends[act]} times" for act in self.begun if self.ends[act] > 1]
        return wrong + [
            f"{name} was {word} {count} times" for (name, word), count in self.lives.items() if count > 1
        ]

    def _note(self, event: Mapping[str, Any], *, is_fresh: bool) -> None:
        body, word = event["body"], event["key"].split(".")[1].removeprefix("machine_")
        if event["machine_id"] and word in ONCE:
            self.lives[(body["name"], word)] += 1
        if not is_fresh:
            return
        self.fresh += 1
        if event["key"] in ENDS:
            self.ends[body["action_id"]] += 1
        if event["key"] == "action.limits_requested.v1":
            self.begun.append(body["action_id"])


@dataclass
class Auditor:
    """Counts over the REST APIs, and in the stores that this environment names."""

    client: Client
    since: datetime
    """When the blows began."""
    until: datetime
    """When they had ended."""
    log: Acts
    """Read before the blows began."""
    usual_s: dict[str, float] = field(default_factory=dict)
    """From one sample of a cluster to the next before the blows."""

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
        if any(account.told == NOBODY for account in accounts):
            # An embedded database that does not run would be started: taken from the service that is about to.
            return [*accounts, Account("left over", "not looked at while services are away", is_known=False)]
        return [*accounts, await left_over()]

    async def samples(self) -> Account:
        """Every interval of every cluster is kept, once: what the blows delayed was read afterwards."""
        monitors = {each["resource_id"]: each for each in await self.client.pages("/v1/monitors")}
        clusters = await self.client.pages("/v1/clusters")
        wrong, count = [], 0
        for cluster in clusters:
            watched = monitors.get(cluster["resource_id"])
            if watched is None or cluster["sampled_at"] is None or watched["sampled_at"] is None:
                wrong.append(f"{cluster['name']}: nobody watches it, or it was never sampled")
                continue
            offset = timedelta(seconds=watched["clock_offset_s"])
            since, until = self.since + offset, self.until + offset
            kept = await self._kept(cluster["id"], since, until)
            interval_s = await self._usual(cluster["id"], since) or watched["interval_s"]
            wrong += [f"{cluster['name']}: {line}" for line in gaps(kept, since, until, interval_s)]
            count += len(kept)
        return Account("samples", f"{count} intervals of {len(clusters)} clusters", tuple(wrong))

    async def _usual(self, cluster: str, until: datetime) -> float | None:
        """A cloud measures in steps of its own, whatever a resource's interval is: so as it did before the blows."""
        if cluster not in self.usual_s:
            before = await self._kept(cluster, until - timedelta(seconds=MOST_POINTS), until)
            steps = Counter((later - at).total_seconds() for (at, _), (later, _) in pairwise(before))
            if not steps:
                return None
            self.usual_s[cluster] = min(step for step, count in steps.items() if count == max(steps.values()))
        return self.usual_s[cluster]

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
        await self.log.read(is_fresh=True)
        told = f"{len(self.log.begun)} changes of limits, {self.log.fresh} events"
        return Account("acts", told, tuple(self.log.wrong()))

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


def gaps(
    kept: Sequence[tuple[datetime, int]], since: datetime, until: datetime, interval_s: float
) -> list[str]:
    """Where an interval counts twice, or one is missing: between two others, at the beginning or at the end."""
    wrong = [f"{at:%H:%M:%S} counts {count} times" for at, count in kept if count > 1]
    second = timedelta(seconds=1)  # a sample is known by the second in which it lies
    ats = [since + second, *sorted(at for at, _ in kept), until - second]
    return wrong + [
        f"nothing between {at:%H:%M:%S} and {later:%H:%M:%S}"
        for at, later in pairwise(ats)
        if (later - at).total_seconds() >= 2 * interval_s
    ]


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
        return Account(name, NOBODY, (str(error),))
