"""What everybody may rely on while all is well."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from libs.common.bus.base import Bus, BusUnavailable, Message, Queue
from tests.contract.bus.company import Listener, a_message, a_queue, forever, listening
from tests.support import until

OpenBus = Callable[[], Awaitable[Bus]]


async def test_every_bound_queue_gets_one_copy_and_others_none(bus: Bus) -> None:
    stats, workload = a_queue("stats.done"), a_queue("workload.done")
    other = a_queue("stats.other", ("other.done.v1",))
    await bus.declare([stats, workload, other])
    heard = [Listener() for _ in range(3)]

    message = replace(a_message(), body=b'{"\xc3\xa4": NaN}')
    await bus.publish(message)
    await bus.publish(a_message("last", "other.done.v1"))

    async with (
        listening(bus, stats, heard[0]),
        listening(bus, workload, heard[1]),
        listening(bus, other, heard[2]),
    ):
        await until(lambda: all(listener.handled for listener in heard))
        await until(lambda: _is_empty(bus))
    assert heard[0].handled == heard[1].handled == [message]
    assert heard[2].ids == ["last"]


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("action.*.v1", ["action.failed.v1"]),
        ("action.#", ["action", "action.failed.v1", "action.machine.failed.v1"]),
        ("#.v1", ["action.failed.v1", "action.machine.failed.v1"]),
        ("action.#.v1", ["action.failed.v1", "action.machine.failed.v1"]),
        ("*.*", []),
        ("#", ["action", "action.failed.v1", "action.machine.failed.v1", "act-on.failed.v2"]),
        ("act-on.failed.v2", ["act-on.failed.v2"]),
    ],
)
async def test_patterns_match_as_in_amqp(bus: Bus, pattern: str, keys: list[str]) -> None:
    queue = a_queue("q", (pattern,))
    await bus.declare([queue, a_queue("end", ("end",))])

    for key in ("action", "action.failed.v1", "action.machine.failed.v1", "act-on.failed.v2"):
        await bus.publish(a_message(key=key))
    await bus.send("q", a_message("end"))

    listener = Listener()
    async with listening(bus, queue, listener):
        await until(lambda: "end" in listener.ids)
    assert sorted(message.key for message in listener.handled if message.id != "end") == sorted(keys)


async def test_two_bindings_that_match_make_one_copy(bus: Bus) -> None:
    queue = a_queue("q", ("a.b", "a.*", "#"))
    await bus.declare([queue])

    await bus.publish(a_message(key="a.b"))

    assert await until(bus.depth) == 1


async def test_messages_wait_for_a_consumer_and_come_in_order(bus: Bus) -> None:
    queue = replace(a_queue(), prefetch=1)
    await bus.declare([queue])
    ids = [f"m{number}" for number in range(50)]
    for id in ids:
        await bus.publish(a_message(id))

    listener = Listener()
    async with listening(bus, queue, listener):
        await until(lambda: len(listener.handled) == len(ids))
    assert listener.ids == ids


async def test_competing_consumers_share_without_doubling(open_bus: OpenBus) -> None:
    talking, first, second = [await open_bus() for _ in range(3)]
    queue = replace(a_queue(), prefetch=5)
    await talking.declare([queue])

    async def work(_: Message) -> None:
        await asyncio.sleep(0.01)

    ones, others = Listener(work), Listener(work)
    async with listening(first, queue, ones), listening(second, queue, others):
        await asyncio.gather(*(talking.publish(a_message(f"m{number}")) for number in range(200)))
        await until(lambda: len(ones.handled) + len(others.handled) >= 200)
        await until(lambda: _is_empty(talking))
    assert (ones.counts + others.counts).total() == len(ones.counts + others.counts) == 200
    assert min(len(ones.handled), len(others.handled)) > 20


async def test_no_more_than_prefetch_are_handled_at_once(bus: Bus) -> None:
    queue = replace(a_queue(), prefetch=3)
    await bus.declare([queue])
    listener = Listener(forever)

    async with listening(bus, queue, listener):
        await asyncio.gather(*(bus.publish(a_message()) for _ in range(12)))
        await until(lambda: listener.busy == 3)
        await asyncio.sleep(0.3)  # nothing announces that a fourth does not come
        assert listener.busiest == 3
        assert await bus.depth() == 12


async def test_sending_reaches_one_queue_only(bus: Bus) -> None:
    asked, other = a_queue("asked"), a_queue("other")
    await bus.declare([asked, other])
    listener = Listener()

    await bus.send("asked", a_message("replayed"))

    async with listening(bus, asked, listener):
        await until(lambda: listener.ids == ["replayed"])
        await until(lambda: _is_empty(bus))
    assert listener.handled[0].key == "thing.done.v1"


async def test_sending_to_nobody_is_said(open_bus: OpenBus, bus_url: str) -> None:
    bus = await open_bus()
    sending = asyncio.create_task(bus.send("nobody", a_message()))

    with pytest.raises(BusUnavailable):
        await sending


async def test_publishing_for_nobody_is_no_error(bus: Bus) -> None:
    await bus.publish(a_message(key="nobody.cares.v1"), public=True)


async def test_depth_is_zero_once_all_is_handled(bus: Bus) -> None:
    queue = a_queue()
    await bus.declare([queue])
    released = asyncio.Event()

    async def wait(_: Message) -> None:
        await released.wait()

    for _ in range(3):
        await bus.publish(a_message())
    listener = Listener(wait)
    async with listening(bus, queue, listener):
        await until(lambda: listener.busy == 3)
        await until(lambda: _depth_is(bus, 3))
        released.set()
        await until(lambda: _is_empty(bus))
    assert len(listener.handled) == 3


async def test_declaring_again_changes_nothing(bus: Bus, open_bus: OpenBus) -> None:
    queue = a_queue()
    await bus.declare([queue])
    await bus.publish(a_message())

    await (await open_bus()).declare([queue])
    await bus.declare([queue])

    assert await until(bus.depth) == 1


async def test_a_queue_may_be_declared_with_another_expiry(bus: Bus, open_bus: OpenBus) -> None:
    await bus.declare([Queue("q", ("k",), expires_s=60)])

    later = await open_bus()
    await later.declare([Queue("q", ("k",), expires_s=30)])
    await later.publish(a_message(key="k"))

    assert await until(later.depth) == 1


async def test_what_expired_is_dropped_and_not_among_the_dead(bus: Bus) -> None:
    queue = replace(a_queue(), expires_s=0.3)
    await bus.declare([queue, a_queue("kept")])
    listener, kept = Listener(), Listener()

    await bus.publish(a_message("old"))
    await until(lambda: _depth_is(bus, 1), what="only the kept copy is left")
    await bus.publish(a_message("new"))

    async with listening(bus, queue, listener), listening(bus, a_queue("kept"), kept):
        await until(lambda: listener.handled and len(kept.handled) == 2)
    assert listener.ids == ["new"]
    assert await bus.dead() == []


async def test_a_handler_hears_at_once(bus: Bus) -> None:
    queue = a_queue()
    await bus.declare([queue])
    listener = Listener()
    loop = asyncio.get_running_loop()
    took_s = []

    async with listening(bus, queue, listener):
        for number in range(1, 22):
            begun_at = loop.time()
            await bus.publish(a_message())
            while len(listener.handled) < number:  # noqa: ASYNC110 - the measurement is finer than until()
                await asyncio.sleep(0)
            took_s.append(loop.time() - begun_at)
    assert sorted(took_s)[10] < 0.05


async def _is_empty(bus: Bus) -> bool:
    return await bus.depth() == 0


async def _depth_is(bus: Bus, count: int) -> bool:
    return await bus.depth() == count
