"""Finds drivers by entry point, so that one can be added without touching this code base."""

import asyncio
import gc
from functools import cache
from importlib.metadata import entry_points

from libs.providers.base import Driver

GROUP = "tides.providers"


class UnknownDriver(LookupError):
    """No installed driver has this name; the message lists those that exist."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no driver named {name!r}; installed: {', '.join(driver_names())}")


@cache
def driver_names() -> tuple[str, ...]:
    """Names of the installed drivers, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


@cache
def find_driver(name: str) -> Driver:
    """The driver of this name. Raises UnknownDriver."""
    for point in entry_points(group=GROUP, name=name):
        found: Driver = point.load()
        gc.freeze()  # a vendor's SDK is tens of thousands of objects: a full collection over them is a stall of 50 ms
        return found
    raise UnknownDriver(name)


async def load_driver(name: str) -> Driver:
    """The same for who must not stand still: the first time a vendor's SDK takes a second to load."""
    return await asyncio.to_thread(find_driver, name)
