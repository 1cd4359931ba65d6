"""Weather by seed: processes die with exponential gaps, parts go away, the cloud lies, messages come again."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aio_pika

from libs.common.bus.rabbit.wire import INTERNAL
from libs.common.contracts.usage import UsageSampled
from tests.system.house import House
from tests.system.processes import Process

GAP_S = 10.0
"""Mean time from one blow to the next."""
DOWN_S = 4.0
"""Mean time that what was taken away stays away."""
LOST = ("CloneVM_Task", "ReconfigVM_Task", "PowerOnVM_Task", "PowerOffVM_Task", "Destroy_Task")


@dataclass
class Storm:
    """What happens to a house. The same seed blows the same things in the same order, if not at the same instant."""

    house: House
    seed: int
    count: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        blows: dict[Callable[[], Awaitable[None]], int] = {
            self.processes_die: 10,
            self.the_cloud_is_ill: 4,
            self.messages_come_again: 3,
            self.the_broker_restarts: 1,
            self.the_database_restarts: 1,
        }
        self._blows = [blow for blow, weight in blows.items() for _ in range(weight)]

    async def rage(self, seconds: float) -> None:
        """For so long; at the end everything is up and well again."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        try:
            while (gap_s := self._chance.expovariate(1 / GAP_S)) < end - loop.time():
                await asyncio.sleep(gap_s)
                await self._chance.choice(self._blows)()
        finally:
            self.house.proxy.rules.heal()

    async def processes_die(self) -> None:
        """A fraction of them at a time, half by force, half asked to stop."""
        everybody = list(self.house.installed.deployment.processes.values())
        victims = self._chance.sample(everybody, self._chance.choice((1, 1, 1, 2, 3, 5)))
        plans = [(victim, self._chance.random() < 0.5, self._pause_s()) for victim in victims]
        await asyncio.gather(*(self._take_away(*plan) for plan in plans))

    async def _take_away(self, process: Process, by_force: bool, pause_s: float) -> None:
        self.count["killed" if by_force else "stopped"] += 1
        await (process.kill() if by_force else process.stop())
        await asyncio.sleep(pause_s)
        await process.start()

    async def the_cloud_is_ill(self) -> None:
        """It is slow, answers 503, loses answers, or is not there."""
        rules, kind = self.house.proxy.rules, self._chance.choice(("slow", "503", "lost", "down"))
        self.count[f"cloud {kind}"] += 1
        if kind == "slow":
            rules.delay_s = {"*": 0.3}
        elif kind == "503":
            rules.status = {"*": 503}
        elif kind == "lost":
            rules.reset_after = Counter(dict.fromkeys(LOST, 1))
        else:
            rules.down = True
        await asyncio.sleep(2 * self._pause_s())
        rules.heal()

    async def messages_come_again(self) -> None:
        """Samples of long ago, twice, late and out of order."""
        await self.house.witness.read()
        packets = self.house.witness.kept
        again = self._chance.sample(packets, min(20, len(packets)))
        async with (
            await aio_pika.connect(self.house.rabbit.url) as connection,
            connection.channel() as channel,
        ):
            exchange = await channel.get_exchange(INTERNAL)
            for packet in again * 2:
                await exchange.publish(packet, UsageSampled.key)
        self.count["repeated samples"] += 2 * len(again)

    async def the_broker_restarts(self) -> None:
        """By force, half the time."""
        self.count["broker"] += 1
        rabbit = self.house.rabbit
        await (rabbit.kill() if self._chance.random() < 0.5 else rabbit.stop())
        await asyncio.sleep(self._pause_s())
        await rabbit.start()

    async def the_database_restarts(self) -> None:
        """In order: the servers of tests do not wait for the disk, and would forget by force what they promised."""
        self.count["database"] += 1
        postgres = self.house.postgres
        await postgres.stop()
        await asyncio.sleep(self._pause_s() / 2)
        await postgres.start()

    def _pause_s(self) -> float:
        return min(15.0, self._chance.expovariate(1 / DOWN_S))
