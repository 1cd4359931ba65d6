"""What an outside subscriber of the public exchange gets to see."""

import aio_pika

from tests.contract.bus.company import Listener, a_message, a_queue, listening, open_quick_bus
from tests.support import until


async def test_the_public_exchange_carries_public_messages_only(amqp_url: str) -> None:
    bus = await open_quick_bus(amqp_url)
    await bus.declare([a_queue()])
    outsider = await aio_pika.connect(amqp_url)
    seen: list[aio_pika.abc.AbstractIncomingMessage] = []
    inside = Listener()

    async def see(packet: aio_pika.abc.AbstractIncomingMessage) -> None:
        seen.append(packet)

    async with outsider, outsider.channel() as channel, listening(bus, a_queue(), inside):
        mine = await channel.declare_queue(exclusive=True)
        await mine.bind("tides", "#")
        await mine.consume(see, no_ack=True)
        await bus.publish(a_message("secret"))
        await bus.publish(a_message("open"), public=True)
        await until(lambda: seen and len(inside.handled) == 2)

    (packet,) = seen
    assert packet.message_id == "open"
    assert packet.routing_key == "thing.done.v1"
    assert packet.headers["ce-source"] == "/tides/test"
    assert packet.content_type == "application/json"
    assert sorted(inside.ids) == ["open", "secret"]
    await bus.aclose()
