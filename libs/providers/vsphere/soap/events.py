"""vCenter's events of migrations that begin: where each machine is said to go. Of them only references are read."""

from datetime import UTC, datetime

from libs.providers.vsphere.soap.answer import VIM, Element
from libs.providers.vsphere.soap.envelope import Ref, Request, write_call
from libs.providers.vsphere.soap.values import read_ref

EVENTS_A_PAGE = 200
MOST_PAGES = 5
"""A collector has a thousand events at most, here as at a vCenter that was not told otherwise."""
_MOVES = ("VmBeingHotMigratedEvent", "VmBeingMigratedEvent", "VmBeingRelocatedEvent")
_MACHINE, _HOST = f"{VIM}vm/{VIM}vm", f"{VIM}destHost/{VIM}host"


def write_collector(manager: Ref, since: datetime) -> Request:
    """A collector of the migrations that began since then; it is to be destroyed."""
    begin = since.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    kinds = "".join(f"<eventTypeId>{kind}</eventTypeId>" for kind in _MOVES)
    most = f"<maxCount>{MOST_PAGES * EVENTS_A_PAGE}</maxCount>"
    wanted = (
        f"<filter><time><beginTime>{begin}</beginTime></time>"
        f"<disableFullMessage>true</disableFullMessage>{kinds}{most}</filter>"
    )
    return write_call("CreateCollectorForEvents", manager, wanted)


def write_reading(collector: Ref) -> Request:
    """The next page of its events, from the oldest on; the last one is not full."""
    return write_call("ReadNextEvents", collector, f"<maxCount>{EVENTS_A_PAGE}</maxCount>")


class Moves:
    """Takes events; `to` is the host that each machine is to arrive at, as the last event about it says."""

    def __init__(self) -> None:
        self.to: dict[str, str] = {}
        self.taken = 0
        self.is_whole = True
        """Whether all of them were read."""

    def take(self, event: Element) -> None:
        """One event; one that names no machine or no host tells nothing."""
        self.taken += 1
        machine, host = event.find(_MACHINE), event.find(_HOST)
        about = None if machine is None else read_ref(machine)
        to = None if host is None else read_ref(host)
        if about is not None and to is not None:
            self.to[about.id] = to.id
