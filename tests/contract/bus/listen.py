"""A consumer process that takes messages and never finishes one; says each id that it began with."""

import asyncio
import sys
from dataclasses import replace

import structlog

from libs.common.bus.base import Message
from tests.contract.bus.company import a_queue, forever, open_quick_bus


async def main(url: str, limit: int) -> None:
    bus = await open_quick_bus(url)

    async def say(message: Message) -> None:
        sys.stdout.write(f"{message.id}\n")
        sys.stdout.flush()
        await forever(message)

    await bus.consume(replace(a_queue(), delivery_limit=limit), say)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
