"""Steps of a bench that takes minutes, told as they end."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def timed(what: str, act: Callable[[], T]) -> T:
    """Do it, and say how long it took."""
    began = time.monotonic()
    found = act()
    print(f"{what}: after {time.monotonic() - began:.1f} s", flush=True)
    return found
