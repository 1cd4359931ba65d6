"""What happens to a message that cannot be handled, and to one whose consumer goes away."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from libs.common.bus.base import Bus, Message, Queue
from libs.common.bus.handling import pause_s
from tests.contract.bus.company import Listener, a_message, a_queue, fail, forever, listening
from tests.support import until

OpenBus = Callable[[], Awaitable[Bus]]


async def test_a_failure_is_delivered_again_after_a_pause(bus: Bus) -> None:
    queue = a_queue()
    await bus.declare([queue])
    begun_at: list[float] = []

    async def fail_twice(_: Message) -> None:
        begun_at.append(asyncio.get_running_loop().time())
        if len(begun_at) < 3:
            raise ValueError("not yet")

    listener = Listener(fail_twice)
    with capture_logs() as logs:
        async with listening(bus, queue, listener):
            await bus.publish(a_message("m"))
            await until(lambda: listener.ids == ["m"])
            await until(lambda: _is_empty(bus))

    first, second, third = begun_at
    assert second - first >= 0.19
    assert third - second >= 0.39
    said = [line for line in logs if line["event"] == "bus.handler_failed"]
    assert [(line["queue"], line["key"], line["message"], line["deliveries"]) for line in said] == [
        (queue.name, "thing.done.v1", "m", 1),
        (queue.name, "thing.done.v1", "m", 2),
    ]
    assert await bus.dead() == []


def test_the_pause_doubles_up_to_half_a_minute() -> None:
    assert [round(pause_s(deliveries), 1) for deliveries in (1, 2, 3, 8, 9, 20, 10_000)] == [
        0.2,
        0.4,
        0.8,
        25.6,
        30,
        30,
        30,
    ]


async def test_failures_do_not_hold_up_the_others(bus: Bus) -> None:
    queue = replace(a_queue(), prefetch=2)
    await bus.declare([queue])

    async def fail_on_bad(message: Message) -> None:
        if message.id.startswith("bad"):
            raise ValueError(message.id)

    listener = Listener(fail_on_bad)
    async with listening(bus, queue, listener):
        for number in range(2):
            await bus.publish(a_message(f"bad{number}"))
        await until(lambda: len(listener.begun) >= 6, what="both bad ones pause for 0.8 s")
        for number in range(10):
            await bus.publish(a_message(f"good{number}"))
        begun_at = asyncio.get_running_loop().time()
        await until(lambda: len(listener.handled) == 10)
        assert asyncio.get_running_loop().time() - begun_at < 0.7


async def test_at_the_limit_a_message_is_parked_listed_and_retried(bus: Bus) -> None:
    queue, other = replace(a_queue("q"), delivery_limit=3), a_queue("other")
    await bus.declare([queue, other])
    others = Listener()
    failing = Listener(fail)

    async with listening(bus, queue, failing), listening(bus, other, others):
        await bus.publish(a_message("m", body=b'{"x": 1}'))
        (dead,) = await until(bus.dead)
        await until(lambda: _is_empty(bus))
    assert len(failing.begun) == 3
    assert (dead.queue, dead.message) == ("q", failing.begun[0])
    assert dead.reason == "ValueError: cannot handle m"

    well = Listener()
    async with listening(bus, queue, well), listening(bus, other, others):
        assert await bus.retry_dead(dead.number) == 1
        await until(lambda: well.ids == ["m"])
        await until(lambda: _is_empty(bus))
    assert well.handled == [dead.message]
    assert others.ids == ["m"], "the retried one goes to its own queue only"
    assert await bus.dead() == []


async def test_looking_at_the_dead_loses_none_and_keeps_their_order(bus: Bus) -> None:
    await _park(bus, 5)

    looks = [await bus.dead() for _ in range(5)]
    assert [[dead.message.id for dead in look] for look in looks] == [[f"m{n}" for n in range(5)]] * 5
    assert [dead.message.id for dead in await bus.dead(2)] == ["m0", "m1"]


async def test_one_of_the_dead_is_retried_and_the_others_stay(bus: Bus) -> None:
    queue = await _park(bus, 4)
    dead = await bus.dead()

    assert (await bus.look()).dead == 4
    assert await bus.retry_dead(dead[2].number) == 1
    assert (await bus.look()).dead == 3
    assert [left.message.id for left in await bus.dead()] == ["m0", "m1", "m3"]
    assert await bus.retry_dead(10**9) == 0

    assert await bus.retry_dead() == 3
    assert await bus.dead() == []
    seen = await bus.look([queue.name, "nobody.heard.v1"])
    assert [(one.name, one.waiting) for one in seen.queues] == [(queue.name, 4), ("nobody.heard.v1", None)]
    listener = Listener()
    async with listening(bus, queue, listener):
        await until(lambda: sorted(listener.ids) == ["m0", "m1", "m2", "m3"])
        (heard,) = (await bus.look([queue.name])).queues
    assert heard.consumers in (1, None), "RabbitMQ knows who listens"


async def test_a_retried_message_has_all_its_deliveries_again(bus: Bus) -> None:
    queue = await _park(bus, 1, limit=2)
    listener = Listener(fail)

    async with listening(bus, queue, listener):
        await bus.retry_dead()
        await until(bus.dead)
    assert len(listener.begun) == 2


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyError(), TimeoutError(), ConnectionError()])
async def test_whatever_a_handler_raises_the_consumer_lives(bus: Bus, error: BaseException) -> None:
    queue = a_queue()
    await bus.declare([queue])

    async def raise_at_first(message: Message) -> None:
        if message.id == "first":
            raise error

    listener = Listener(raise_at_first)
    async with listening(bus, queue, listener):
        await bus.publish(a_message("first"))
        await until(lambda: listener.begun)
        await bus.publish(a_message("second"))
        await until(lambda: listener.ids == ["second"])


async def test_a_consumer_cancelled_while_handling_gives_the_message_back_at_once(open_bus: OpenBus) -> None:
    one, other = await open_bus(), await open_bus()
    queue = a_queue()
    await one.declare([queue])
    stuck, well = Listener(forever), Listener()

    consumer = asyncio.create_task(one.consume(queue, stuck))
    await one.publish(a_message("m"))
    await until(lambda: stuck.busy)

    consumer.cancel()
    await until(consumer.cancelled)

    assert stuck.busy == 0
    async with listening(other, queue, well):
        await until(lambda: well.ids == ["m"], timeout=1)


async def test_a_bus_closed_while_handling_gives_the_message_back_at_once(open_bus: OpenBus) -> None:
    one, other = await open_bus(), await open_bus()
    queue = a_queue()
    await one.declare([queue])
    stuck, well = Listener(forever), Listener()
    consumer = asyncio.create_task(one.consume(queue, stuck))
    await one.publish(a_message("m"))
    await until(lambda: stuck.busy)

    await one.aclose()

    async with listening(other, queue, well):
        await until(lambda: well.ids == ["m"], timeout=1)
    consumer.cancel()
    await asyncio.wait([consumer])


async def _park(bus: Bus, count: int, limit: int = 1) -> Queue:
    queue = replace(a_queue(), delivery_limit=limit, prefetch=1)
    await bus.declare([queue])
    async with listening(bus, queue, Listener(fail)):
        for number in range(count):
            await bus.publish(a_message(f"m{number}"))
            await until(lambda: _are_dead(bus, number + 1))  # noqa: B023 - awaited before the next round
    return queue


async def _are_dead(bus: Bus, count: int) -> bool:
    return len(await bus.dead()) == count


async def _is_empty(bus: Bus) -> bool:
    return await bus.depth() == 0
