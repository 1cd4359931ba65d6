"""A logged-in session's typed reads: leaf properties of many objects, performance values, the server's time."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from xml.sax.saxutils import escape

from pyVmomi import vim, vmodl

from libs.providers.vsphere.faults import Refused
from libs.providers.vsphere.soap.answer import Answer, Element, Garbled, ScannedAnswer
from libs.providers.vsphere.soap.envelope import (
    Ref,
    Request,
    Step,
    write_call,
    write_query,
    write_ref,
    write_retrieval,
    write_start,
    write_token,
    write_view,
)
from libs.providers.vsphere.soap.events import EVENTS_A_PAGE, Moves, write_collector, write_reading
from libs.providers.vsphere.soap.events import MOST_PAGES as MOST_EVENT_PAGES
from libs.providers.vsphere.soap.metrics import Metrics, Readings
from libs.providers.vsphere.soap.pace import Pace
from libs.providers.vsphere.soap.values import Found, Leaves, Objects, parse_time, prepare, read_ref
from libs.providers.vsphere.soap.wire import Wire

PAGE = 1000
MOST_PAGES = 1000
MOST_METRICS = 256
"""Entities times counters of one query; vCenter refuses more by default."""
_INSTANCE = Ref("ServiceInstance", "ServiceInstance")

Paths = Mapping[str, Leaves]
"""Leaf paths and their types by managed object type."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a session shares with pyVmomi's: its cookie, the version spoken, and the service's own objects."""

    cookie: str
    action: str
    root: Ref
    collector: Ref
    views: Ref
    performance: Ref
    search: Ref
    tasks: Ref | None = None
    events: Ref | None = None
    """The managers of tasks and of events, where there are any."""
    on_host: bool = False
    """One ESXi host by itself, where our machines' folder is that of all machines."""


@dataclass(frozen=True, slots=True)
class Question:
    """Which performance values: the newest `samples` of these counters at this interval."""

    counters: Mapping[int, str]
    interval_s: int
    samples: int
    most_metrics: int = MOST_METRICS


class View(NamedTuple):
    """Everything of these types below a container."""

    container: Ref
    kinds: tuple[str, ...]


class Line:
    """Reads of one session. Views and collectors live as long as it; a lost session needs a new line.

    Raises Refused with pyVmomi's typed fault, Garbled, OSError, TimeoutError.
    """

    def __init__(self, wire: Wire, access: Access, pace: Pace) -> None:
        self.access = access
        self.pace = pace
        self._wire = wire
        self._collectors: dict[str, Ref] = {}
        self._views: dict[View, Ref] = {}
        self._unfinished: dict[str, Ref] = {}
        self.left_out: Counter[str] = Counter()
        """Values that made no sense, by property path, since the line began."""

    async def now(self) -> datetime:
        """The server's own time, aware."""
        found: list[str | None] = []
        answer = Answer("CurrentTime", "returnval", lambda element: found.append(element.text))
        await self._ask(write_call("CurrentTime", _INSTANCE), answer)
        at = parse_time(found[0]) if len(found) == 1 else None
        if at is None:
            raise Garbled("the server's time is none")
        return datetime.fromtimestamp(at, UTC)

    async def find_child(self, folder: Ref, name: str) -> Ref | None:
        """A child of a folder by its exact name."""
        arguments = f"{write_ref('entity', folder)}<name>{escape(name)}</name>"
        found = await self._ask_refs(write_call("FindChild", self.access.search, arguments))
        return found[0] if found else None

    # -- properties --------------------------------------------------------------------------------------------------

    async def read_view(
        self, consumer: str, view: View, paths: Paths, then: tuple[Step, ...] = ()
    ) -> list[Found]:
        """All members of a view, which is made once; `then` leads from them to further objects."""
        known = view in self._views
        try:
            return await self._read_view(consumer, view, paths, then)
        except Refused as refusal:
            if not known or not isinstance(refusal.fault, vmodl.fault.ManagedObjectNotFound):
                raise
            self._views.pop(view, None)
            return await self._read_view(consumer, view, paths, then)

    async def _read_view(
        self, consumer: str, view: View, paths: Paths, then: tuple[Step, ...]
    ) -> list[Found]:
        if view not in self._views:
            request = write_view(self.access.views, view.container, view.kinds)
            self._views[view] = await self._make(request)
        start = write_start(self._views[view], [Step("ContainerView", "view", then)])
        return await self.retrieve(consumer, [start], paths, tolerant=False)

    def keep_views(self, views: Iterable[View]) -> None:
        """Forget the views that are no longer read: those of clusters that are gone, which went with them."""
        kept = set(views)
        self._views = {view: ref for view, ref in self._views.items() if view in kept}

    async def retrieve(
        self,
        consumer: str,
        starts: Sequence[str],
        paths: Paths,
        tolerant: bool = True,
        pages: int = MOST_PAGES,
    ) -> list[Found]:
        """Leaf paths of all that lies at these starts, page by page. Objects that are gone are left out.

        With fewer `pages` what lies beyond them is left unread, and the server is told so.
        """
        if not starts:
            return []
        collector = await self._collector(consumer)
        await self._cancel_unfinished()
        wanted = prepare(list(paths.values()))
        rows: list[Found] = []
        request = write_retrieval(
            collector, {kind: list(leaves) for kind, leaves in paths.items()}, starts, PAGE, tolerant
        )
        token: str | None = None
        try:
            for _ in range(pages):
                page = Objects(wanted)
                await self._ask(request, ScannedAnswer(request.method, "objects", page))
                rows.extend(page.rows)
                token = page.token
                if token is None:
                    break
                request = write_token("ContinueRetrievePropertiesEx", collector, token)
            else:
                if pages == MOST_PAGES:
                    raise Garbled("the pages of an answer never end")
                self._unfinished[token or ""] = collector
        except BaseException:
            if token is not None:
                self._unfinished[token] = collector
            raise
        return list(filter(self._is_there, rows))

    def _is_there(self, found: Found) -> bool:
        """False for an object that has just gone. A session that ended is told property by property here."""
        if "NotAuthenticated" in found.faults:
            raise Refused(vim.fault.NotAuthenticated())
        self.left_out.update(found.broken)
        return "ManagedObjectNotFound" not in found.faults

    async def _collector(self, consumer: str) -> Ref:
        """The consumer's own: the session's shared one mixes up pages and filters."""
        if consumer not in self._collectors:
            request = write_call("CreatePropertyCollector", self.access.collector)
            self._collectors[consumer] = await self._make(request)
        return self._collectors[consumer]

    async def _cancel_unfinished(self) -> None:
        """Let the server forget the pages that an earlier failure left behind."""
        while self._unfinished:
            token, collector = self._unfinished.popitem()
            request = write_token("CancelRetrievePropertiesEx", collector, token)
            try:
                await self._ask(request, Answer(request.method, "returnval", _ignore))
            except Refused as refusal:
                if isinstance(refusal.fault, vim.fault.NotAuthenticated):
                    raise

    # -- performance -------------------------------------------------------------------------------------------------

    async def query(self, question: Question, entities: Sequence[Ref]) -> Readings:
        """The newest values of each entity, a bounded number of metrics a query, a few queries at once."""
        readings = Readings({})
        metrics = Metrics(readings, question.counters, question.interval_s)
        metrics.ask(entities)
        size = max(1, question.most_metrics // max(1, len(question.counters)))
        batches = [entities[start : start + size] for start in range(0, len(entities), size)]
        await self.pace.run([self._querying(question, metrics, batch) for batch in batches])
        return readings

    def _querying(
        self, question: Question, metrics: Metrics, entities: Sequence[Ref]
    ) -> Callable[[int], Awaitable[None]]:
        async def query(lane: int) -> None:
            await self._query(question, metrics, entities)

        return query

    async def _query(self, question: Question, metrics: Metrics, entities: Sequence[Ref]) -> None:
        """One batch. An entity that has just gone or cannot answer fails the whole call: halve until it is alone."""
        request = write_query(
            self.access.performance, entities, question.counters, question.interval_s, question.samples
        )
        try:
            await self._ask(request, ScannedAnswer("QueryPerf", "returnval", metrics))
        except Refused as refusal:
            kinds = (vmodl.fault.ManagedObjectNotFound, vmodl.fault.InvalidArgument)
            if not isinstance(refusal.fault, kinds):
                raise
            if len(entities) > 1:
                half = len(entities) // 2
                await self._query(question, metrics, entities[:half])
                await self._query(question, metrics, entities[half:])

    # -- events ------------------------------------------------------------------------------------------------------

    async def read_moves(self, since: datetime) -> Moves:
        """By machine id the host that it is to arrive at, page by page; none where there is no such manager.

        The collector lives for this one read.
        """
        moves = Moves()
        if self.access.events is None:
            return moves
        collector = await self._make(write_collector(self.access.events, since))
        try:
            for page in range(1, MOST_EVENT_PAGES + 1):
                await self._ask(write_reading(collector), Answer("ReadNextEvents", "returnval", moves.take))
                if moves.taken < page * EVENTS_A_PAGE:
                    break
            else:
                moves.is_whole = False
        finally:
            request = write_call("DestroyCollector", collector)
            await self._ask(request, Answer(request.method, "returnval", _ignore))
        return moves

    # -- one call ----------------------------------------------------------------------------------------------------

    async def _make(self, request: Request) -> Ref:
        """A call that makes something of the session's own."""
        found = await self._ask_refs(request)
        if len(found) != 1:
            raise Garbled(f"{request.method} without a reference")
        return found[0]

    async def _ask_refs(self, request: Request) -> list[Ref]:
        found: list[Ref | None] = []
        answer = Answer(request.method, "returnval", lambda element: found.append(read_ref(element)))
        await self._ask(request, answer)
        if None in found:
            raise Garbled(f"{request.method} without a reference")
        return [ref for ref in found if ref is not None]

    async def _ask(self, request: Request, answer: Answer) -> None:
        await self._wire.ask(request, answer, self.access.cookie, self.access.action)


def _ignore(element: Element) -> None:
    """Nothing is wanted of the answer."""
