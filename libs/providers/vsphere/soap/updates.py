"""What changes about tasks, by a property collector of its own: one long question, however many tasks there are."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from pyVmomi import vim, vmodl

from libs.providers.vsphere.faults import Refused
from libs.providers.vsphere.soap.answer import VIM, XSI_TYPE, Answer, Element, Garbled
from libs.providers.vsphere.soap.envelope import Ref, Request, write_call, write_ref
from libs.providers.vsphere.soap.line import Access
from libs.providers.vsphere.soap.values import parse_int, read_ref
from libs.providers.vsphere.soap.wire import Wire

WAIT_S = 10
"""Shorter than a call's deadline; a server that overlooks a new filter is asked again by then."""
_STATE, _PROGRESS, _CANCELABLE = "info.state", "info.progress", "info.cancelable"
_PATHS = (_STATE, _PROGRESS, _CANCELABLE)
_STATES = ("queued", "running", "success", "error")
_LONGEST_VERSION = 1000


@dataclass(frozen=True, slots=True)
class TaskNews:
    """What became known of a task: None where nothing did."""

    state: str | None = None
    """queued, running, success or error."""
    progress: int | None = None
    """Percent."""
    cancelable: bool | None = None
    is_gone: bool = False
    """The server knows it no longer: how it ended must be read from what it was about."""


class TaskWatch:
    """A collector with one filter per task; ends with its session. Raises what a Line raises."""

    def __init__(self, wire: Wire, access: Access) -> None:
        self._wire = wire
        self._access = access
        self._collector: Ref | None = None
        self._filters: dict[Ref, Ref] = {}
        self._version = ""

    async def keep(self, tasks: Collection[Ref]) -> list[Ref]:
        """Watch these tasks and no other; returns those that the server knows no longer. A pending `wait` sees it."""
        if self._collector is None:
            request = write_call("CreatePropertyCollector", self._access.collector)
            self._collector = await self._make(request)
        gone: list[Ref] = []
        for task in [task for task in tasks if task not in self._filters]:
            try:
                self._filters[task] = await self._make(_write_filter(self._collector, task))
            except Refused as refusal:
                if not isinstance(refusal.fault, vmodl.fault.ManagedObjectNotFound):
                    raise
                gone.append(task)
        for task in [task for task in self._filters if task not in tasks]:
            await self._ask(write_call("DestroyPropertyFilter", self._filters.pop(task)))
        return gone

    async def wait(self) -> dict[Ref, TaskNews]:
        """What has changed since the last answer, or what is known at first; nothing after some seconds of silence."""
        assert self._collector is not None
        sets = await self._ask(_write_wait(self._collector, self._version))
        if not sets:
            return {}
        if len(sets) > 1:
            raise Garbled("two sets of updates in one answer")
        version, news = read_updates(sets[0])
        self._version = version
        return news

    async def _make(self, request: Request) -> Ref:
        """Raises Garbled unless the answer is one reference."""
        found = [read_ref(element) for element in await self._ask(request)]
        if len(found) != 1 or found[0] is None:
            raise Garbled(f"{request.method} without a reference")
        return found[0]

    async def _ask(self, request: Request) -> list[Element]:
        taken: list[Element] = []
        # The parser forgets what it has handed out: a copy stays.
        answer = Answer(request.method, "returnval", lambda element: taken.append(_copy(element)))
        await self._wire.ask(request, answer, self._access.cookie, self._access.action)
        return taken


def _copy(element: Element) -> Element:
    return element.__deepcopy__({})


def _write_filter(collector: Ref, task: Ref) -> Request:
    paths = "".join(f"<pathSet>{path}</pathSet>" for path in _PATHS)
    spec = f"<propSet><type>Task</type>{paths}</propSet><objectSet>{write_ref('obj', task)}</objectSet>"
    return write_call("CreateFilter", collector, f"<spec>{spec}</spec><partialUpdates>true</partialUpdates>")


def _write_wait(collector: Ref, version: str) -> Request:
    options = f"<options><maxWaitSeconds>{WAIT_S}</maxWaitSeconds></options>"
    return write_call("WaitForUpdatesEx", collector, f"<version>{escape(version)}</version>{options}")


def read_updates(element: Element) -> tuple[str, dict[Ref, TaskNews]]:
    """The version and the news of an UpdateSet. Raises Garbled, or Refused where the session has ended."""
    version = element.findtext(f"{VIM}version") or ""
    if not version or len(version) > _LONGEST_VERSION:
        raise Garbled("updates without a version")
    news: dict[Ref, TaskNews] = {}
    for update in element.iterfind(f"{VIM}filterSet/{VIM}objectSet"):
        task, found = _read_object(update)
        if task in news and news[task] != found:
            raise Garbled("updates that contradict each other")
        news[task] = found
    for lost in element.iterfind(f"{VIM}filterSet/{VIM}missingObject"):
        ref = _ref_of(lost)
        _check_session(lost)
        news[ref] = TaskNews(is_gone=True)
    return version, news


def _read_object(update: Element) -> tuple[Ref, TaskNews]:
    task, kind = _ref_of(update), update.findtext(f"{VIM}kind")
    if kind not in ("enter", "modify", "leave"):
        raise Garbled("an update of no known kind")
    _check_session(update)
    values: dict[str, Any] = {}
    for change in update.iterfind(f"{VIM}changeSet"):
        name = change.findtext(f"{VIM}name")
        value = change.find(f"{VIM}val")
        if name in values:
            raise Garbled("a property that changed twice at once")
        if name in _PATHS and change.findtext(f"{VIM}op") == "assign" and value is not None:
            values[name] = _READERS[name](value)
    news = TaskNews(values.get(_STATE), values.get(_PROGRESS), values.get(_CANCELABLE), kind == "leave")
    return task, news


def _ref_of(element: Element) -> Ref:
    obj = element.find(f"{VIM}obj")
    ref = None if obj is None else read_ref(obj)
    if ref is None:
        raise Garbled("an update about nothing")
    return ref


def _check_session(element: Element) -> None:
    """A session that ended is told object by object here."""
    for fault in element.iter(f"{VIM}fault"):
        if (fault.get(XSI_TYPE) or "").rpartition(":")[2] == "NotAuthenticated":
            raise Refused(vim.fault.NotAuthenticated())


def _read_state(value: Element) -> str:
    if value.text not in _STATES or len(value):
        raise Garbled("a task in no known state")
    return str(value.text)


def _read_progress(value: Element) -> int | None:
    number = parse_int(value.text or "")
    return number if number is not None and 0 <= number <= 100 else None


def _read_cancelable(value: Element) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get(value.text or "")


_READERS: Mapping[str, Any] = {
    _STATE: _read_state,
    _PROGRESS: _read_progress,
    _CANCELABLE: _read_cancelable,
}
