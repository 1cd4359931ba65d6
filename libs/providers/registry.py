"""Finds drivers by entry point, so that one can be added without touching this code base."""

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
        return found
    raise UnknownDriver(name)
