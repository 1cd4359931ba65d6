"""What tests of every kind share: waiting for something to become true."""

import asyncio
import inspect
import os
from collections.abc import Callable
from typing import Any

LOOK_EVERY_S = 0.02
MOST_TIMES = 6.0
"""How much longer than asked for is waited on a machine that others use as well."""


async def until(condition: Callable[[], object], timeout: float = 10.0, what: str = "") -> Any:
    """Poll every 20 ms until `condition` (sync or async) answers something true, and return that.

    After `timeout` seconds it fails with `what` and the last answer; where more wants to run than there are cores, as
    many times later. What the condition raises is not caught.
    """
    answer: object = None
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(MOST_TIMES * timeout):
            while True:
                found = condition()
                answer = await found if inspect.isawaitable(found) else found
                if answer:
                    return answer
                await asyncio.sleep(LOOK_EVERY_S)
                if loop.time() - began > timeout and loop.time() - began > timeout * slowness():
                    raise TimeoutError
    except TimeoutError:
        name = what or getattr(condition, "__name__", "the condition")
        raise AssertionError(f"not within {timeout} s: {name} (last answer: {answer!r})") from None


def slowness() -> float:
    """How many times longer things take here just now: what wants to run, by cores."""
    return min(MOST_TIMES, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))
