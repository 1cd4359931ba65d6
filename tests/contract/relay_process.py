"""A relay that is killed by itself as soon as the bus has confirmed so many messages."""

import asyncio
import os
import signal
import sys
from typing import cast

from libs.common.bus import open_bus
from libs.common.bus.base import Bus, Message
from libs.common.db import Database
from libs.common.outbox import relay
from libs.common.wake import Activity, Wake
from tests.contract.tiny import SCHEMA, Wire


async def main(database_url: str, bus_url: str, deadly: int) -> None:
    wire = Wire(await open_bus(bus_url))

    async def die(_: Message) -> None:
        if len(wire.passed) == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    wire.after = die
    await relay(Database(database_url, SCHEMA, committed=Wake(Activity())), cast(Bus, wire))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
