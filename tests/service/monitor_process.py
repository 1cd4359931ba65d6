"""A monitor in a process of its own, to be killed. Its settings come as JSON on standard input."""

import asyncio
import json
import sys

from libs.common.runner import running
from libs.common.settings import Settings
from services.monitor.main import build


async def main() -> None:
    settings = Settings.model_validate(json.loads(sys.stdin.readline()))
    async with running([build], settings) as run:
        sys.stdout.write("running\n")
        sys.stdout.flush()
        await run.failed


if __name__ == "__main__":
    asyncio.run(main())
