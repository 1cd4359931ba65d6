"""What tests of every kind share: waiting for something to become true."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], object], timeout: float = 10.0, what: str = "") -> Any:
    """Poll every 20 ms until `condition` (sync or async) answers something true, and return that.

    After `timeout` seconds it fails with `what` and the last answer. What the condition raises is not caught.
    """
    answer: object = None
    try:
        async with asyncio.timeout(timeout):
            while True:
                found = condition()
                answer = await found if inspect.isawaitable(found) else found
                if answer:
                    return answer
                await asyncio.sleep(0.02)
    except TimeoutError:
        name = what or getattr(condition, "__name__", "the condition")
        raise AssertionError(f"not within {timeout} s: {name} (last answer: {answer!r})") from None
