"""The bus and its two implementations; `open_bus` chooses by URL scheme."""

from libs.common.bus.base import Bus


async def open_bus(url: str) -> Bus:
    """Connect: `amqp(s)://` is RabbitMQ, `postgresql://` is tables in schema `bus` of that database."""
    if url.startswith(("amqp://", "amqps://")):
        from libs.common.bus.rabbit import RabbitBus

        return await RabbitBus.connect(url)
    from libs.common.bus.postgres import PostgresBus

    return await PostgresBus.connect(url)
