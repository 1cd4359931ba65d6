"""What can go wrong beside a process: the cloud, the network, the stores, the messages, the clocks."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import aio_pika
import asyncpg

from libs.common.bus.rabbit.wire import INTERNAL
from tests.faultproxy import Late, Rules, SoapFault
from tests.system.house import House
from tests.system.lab import TICK_S

ACTS = ("CloneVM_Task", "ReconfigVM_Task", "PowerOnVM_Task", "PowerOffVM_Task", "Destroy_Task")
HANG_S = 25.0
"""Longer than anybody waits for a call; it happens all the same, in the end."""
FULL = """
create or replace function stats.fill() returns trigger language plpgsql as
    $$ begin raise exception 'no space left' using errcode = 'disk_full'; end $$;
create or replace trigger fill before insert on stats.cluster_sample for each row execute function stats.fill();
"""
EMPTIED = """
create or replace function stats.fill() returns trigger language plpgsql as $$ begin return new; end $$;
"""
"""The trigger stays: to take it away would lock all partitions, against those who are writing."""
Blow = Callable[[House, random.Random, float], Awaitable[None]]
Illness = Callable[[House, random.Random, Rules], Awaitable[None]]


# -- the cloud -------------------------------------------------------------------------------------------------------


async def slow(house: House, chance: random.Random, rules: Rules) -> None:
    rules.delay_s = {"*": 0.3}


async def busy(house: House, chance: random.Random, rules: Rules) -> None:
    rules.status = {"*": 503}


async def down(house: House, chance: random.Random, rules: Rules) -> None:
    rules.down = True


async def hangs(house: House, chance: random.Random, rules: Rules) -> None:
    """What is asked now happens long after everybody has given it up."""
    rules.delay_s = {chance.choice(("*", *ACTS)): HANG_S}


async def loses_answers(house: House, chance: random.Random, rules: Rules) -> None:
    rules.reset_after = Counter(dict.fromkeys(ACTS, 1)) + Counter({"QueryPerf": 1})
    rules.reset_before = Counter({"RetrievePropertiesEx": 1})


async def refuses(house: House, chance: random.Random, rules: Rules) -> None:
    rules.faults = dict.fromkeys(ACTS, SoapFault("SystemError", "A general system error occurred."))


async def fails_tasks(house: House, chance: random.Random, rules: Rules) -> None:
    """Accepted, begun, and then not done."""
    fault = SoapFault("GenericVmConfigFault", "The operation failed.")
    rules.late = dict.fromkeys(ACTS, Late(1.0, fault=fault))


async def succeeds_late(house: House, chance: random.Random, rules: Rules) -> None:
    rules.late = {act: Late(chance.uniform(2, 20)) for act in ACTS}


async def ends_sessions(house: House, chance: random.Random, rules: Rules) -> None:
    rules.expiry = chance


async def shows_nothing(house: House, chance: random.Random, rules: Rules) -> None:
    """A lie: none of our machines is there."""
    rules.hidden = {vm.ref for vm in await house.lab.ours()}


async def hides_one(house: House, chance: random.Random, rules: Rules) -> None:
    """A lie that is easier to believe."""
    there = [vm.ref for vm in await house.lab.ours()]
    rules.hidden = set(chance.sample(there, min(1, len(there))))


async def shows_the_past(house: House, chance: random.Random, rules: Rules) -> None:
    """A lie: everything is as it was when it was last asked for."""
    rules.is_stale = True


async def says_off(house: House, chance: random.Random, rules: Rules) -> None:
    """A lie: whatever runs is said to be off."""
    rules.mutate = lambda method, text: (
        text.replace(">poweredOn<", ">poweredOff<") if method == "RetrievePropertiesEx" else text
    ).encode()


async def _ill(begin: Illness, house: House, chance: random.Random, pause_s: float) -> None:
    rules = house.proxy.rules
    await begin(house, chance, rules)
    await asyncio.sleep(2 * pause_s)
    rules.heal()


# -- the network -----------------------------------------------------------------------------------------------------


async def is_cut(house: House, chance: random.Random, pause_s: float) -> None:
    """Some processes, or all, lose the database, the bus, or both: packets go lost, and nobody is told."""
    names = sorted(house.places)
    cut_off = chance.choice((names, *(chance.sample(names, count) for count in (1, 1, 2, 3))))
    which = chance.choice((("database",), ("bus",), ("database", "bus")))
    wires = [getattr(house.places[name], each) for name in cut_off for each in which]
    for wire in wires:
        wire.cut()
    await asyncio.sleep(3 * pause_s)
    for wire in wires:
        wire.mend()


async def is_slow(house: House, chance: random.Random, pause_s: float) -> None:
    """What the bus and the database say to some processes comes late, and so out of order with all others."""
    cut_off = chance.sample(sorted(house.places), 3)
    wires = [wire for name in cut_off for wire in (house.places[name].bus, house.places[name].database)]
    for wire in wires:
        wire.delay_s = chance.uniform(0.05, 1.0)
    await asyncio.sleep(2 * pause_s)
    for wire in wires:
        wire.delay_s = 0.0


# -- the stores and what they carry ----------------------------------------------------------------------------------


async def broker_restarts(house: House, chance: random.Random, pause_s: float) -> None:
    """By force, half the time."""
    await (house.rabbit.kill() if chance.random() < 0.5 else house.rabbit.stop())
    await asyncio.sleep(pause_s)
    await house.rabbit.start()


async def database_restarts(house: House, chance: random.Random, pause_s: float) -> None:
    """In order: the servers of tests do not wait for the disk, and would forget by force what they promised."""
    await house.postgres.stop()
    await asyncio.sleep(pause_s / 2)
    await house.postgres.start()


async def disk_is_full(house: House, chance: random.Random, pause_s: float) -> None:
    """For samples; PostgreSQL says so by SQLSTATE 53100."""
    url = house.installed.deployment.database_url
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(FULL)
        await asyncio.sleep(2 * pause_s)
        await connection.execute(EMPTIED)
    finally:
        await connection.close()


async def messages_come_again(house: House, chance: random.Random, pause_s: float) -> None:
    """What was said long ago, twice, late and out of order; of every kind."""
    await house.witness.read()
    packets = list(house.witness.kept.values())
    again = chance.sample(packets, min(30, len(packets))) * 2
    async with (
        await aio_pika.connect(house.rabbit.url) as connection,
        connection.channel() as channel,
    ):
        exchange = await channel.get_exchange(INTERNAL)
        for packet in again:
            await exchange.publish(packet, packet.type or "", mandatory=False)


# -- the clocks ------------------------------------------------------------------------------------------------------


async def cloud_clock_steps(house: House, chance: random.Random, pause_s: float) -> None:
    """By whole intervals, so that the cloud still measures at its own ticks."""
    lab, seconds = house.lab, TICK_S * chance.choice((2, 4, 6))
    await lab.step(seconds if chance.random() < 0.5 and lab.ahead_s < lab.most_ahead_s else -seconds)


async def our_clocks_step(house: House, chance: random.Random, pause_s: float) -> None:
    """Of some processes; their waiting goes on by a clock that never steps."""
    clocks = [house.places[name].clock for name in chance.sample(sorted(house.places), 3)]
    for clock in clocks:
        clock.step(chance.uniform(5, 90) * chance.choice((-1, 1)))
    await asyncio.sleep(3 * pause_s)
    for clock in clocks:
        clock.step(0)


def _cloud(begin: Illness) -> tuple[str, Blow]:
    return "cloud", partial(_ill, begin)


BLOWS: dict[str, tuple[str, Blow]] = {
    "broker restarts": ("broker", broker_restarts),
    "clock of the cloud steps": ("clock of the cloud", cloud_clock_steps),
    "clocks of ours step": ("clocks", our_clocks_step),
    "cloud ends sessions": _cloud(ends_sessions),
    "cloud fails tasks": _cloud(fails_tasks),
    "cloud hangs": _cloud(hangs),
    "cloud hides a machine": _cloud(hides_one),
    "cloud is busy": _cloud(busy),
    "cloud is down": _cloud(down),
    "cloud is slow": _cloud(slow),
    "cloud loses answers": _cloud(loses_answers),
    "cloud refuses acts": _cloud(refuses),
    "cloud says all are off": _cloud(says_off),
    "cloud shows no machine": _cloud(shows_nothing),
    "cloud shows the past": _cloud(shows_the_past),
    "cloud succeeds late": _cloud(succeeds_late),
    "database restarts": ("database", database_restarts),
    "disk of stats is full": ("database", disk_is_full),
    "messages come again": ("broker", messages_come_again),
    "network is cut": ("network", is_cut),
    "network is slow": ("network", is_slow),
}
"""By name: what it is done to, which has one trouble at a time, and what is done."""
