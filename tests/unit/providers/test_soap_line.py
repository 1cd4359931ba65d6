"""How a session's reads go over the raw wire: pages, views, batches and pace, against a server that keeps count."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from libs.providers.vsphere.faults import Refused
from libs.providers.vsphere.perf import read_counters
from libs.providers.vsphere.soap import Access, Garbled, Line, Pace, Question, Ref, View, write_start
from libs.providers.vsphere.soap.answer import Answer, FaultSeen
from libs.providers.vsphere.soap.envelope import Request
from libs.providers.vsphere.soap.faults import read_fault
from tests.unit.providers import soap_writing as soap

ROOT = Ref("Folder", "group-d1")
ACCESS = Access(
    "cookie",
    '"urn:vim25/6.5"',
    ROOT,
    Ref("PropertyCollector", "propertyCollector"),
    Ref("ViewManager", "ViewManager"),
    Ref("PerformanceManager", "PerfMgr"),
    Ref("SearchIndex", "SearchIndex"),
)
HOSTS = View(ROOT, ("HostSystem",))
PATHS = {"HostSystem": {"name": str}}
QUESTION = Question({6: "cpu", 98: "memory"}, 20, 1)


class Server:
    """A vCenter's session: it knows its views, collectors and pages, and refuses what it does not know."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.objects = [f"host-{number}" for number in range(7)]
        self.page_size = 3
        self.known: set[str] = {"propertyCollector"}
        self.pages: dict[str, list[str]] = {}
        self.gone: set[str] = set()
        self.sizes: list[int] = []
        self.at_once = self.most_at_once = 0
        self.broken: set[str] = set()
        self.endless = False
        self.moves: list[int] = []

    async def ask(self, request: Request, answer: Answer, cookie: str, action: str) -> None:
        assert (cookie, action) == (ACCESS.cookie, ACCESS.action)
        self.calls[request.method] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        act: Callable[[str], str] = getattr(self, f"_{request.method}")
        text = "no XML" if request.method in self.broken else act(request.body.decode())
        try:
            answer.feed(text.encode())
            answer.close()
        except FaultSeen as seen:
            raise Refused(read_fault(seen.element)) from None

    def _make(self, method: str, kind: str) -> str:
        name = f"session-{kind}-{self.calls.total()}"
        self.known.add(name)
        return soap.answer(method, f'<returnval type="{kind}">{name}</returnval>')

    def _CreatePropertyCollector(self, body: str) -> str:
        return self._make("CreatePropertyCollector", "PropertyCollector")

    def _CreateContainerView(self, body: str) -> str:
        return self._make("CreateContainerView", "ContainerView")

    def _RetrievePropertiesEx(self, body: str) -> str:
        for tag in ("_this", "obj"):
            [ref] = re.findall(rf"<{tag} type=[^>]*>([^<]*)<", body)
            if ref not in self.known:
                return soap.fault("ManagedObjectNotFound")
        rows = [soap.an_object("HostSystem", ref, {"name": f"esx {ref}"}) for ref in self.objects]
        pages = [rows[start : start + self.page_size] for start in range(0, len(rows), self.page_size)] or [
            []
        ]
        token = f"t{self.calls.total()}" if len(pages) > 1 else None
        if token:
            self.pages[token] = [
                soap.page(page, token if number < len(pages) - 2 else None, "ContinueRetrievePropertiesEx")
                for number, page in enumerate(pages[1:])
            ]
        return soap.page(pages[0], token)

    def _ContinueRetrievePropertiesEx(self, body: str) -> str:
        [token] = re.findall(r"<token>([^<]*)<", body)
        if self.endless:
            return soap.page([], token, "ContinueRetrievePropertiesEx")
        page = self.pages[token].pop(0)
        if not self.pages[token]:
            del self.pages[token]
        return page

    def _CancelRetrievePropertiesEx(self, body: str) -> str:
        [token] = re.findall(r"<token>([^<]*)<", body)
        del self.pages[token]
        return soap.answer("CancelRetrievePropertiesEx", "")

    def _QueryPerf(self, body: str) -> str:
        entities = re.findall(r"<entity type=[^>]*>([^<]*)<", body)
        self.sizes.append(len(re.findall("<metricId>", body)))
        if self.gone & set(entities):
            return soap.fault("ManagedObjectNotFound")
        return soap.answer("QueryPerf", "".join(soap.a_metric(ref, {6: 1, 98: 2}) for ref in entities))

    def _CreateCollectorForEvents(self, body: str) -> str:
        return self._make("CreateCollectorForEvents", "EventHistoryCollector")

    def _ReadNextEvents(self, body: str) -> str:
        [most] = map(int, re.findall(r"<maxCount>(\d+)<", body))
        page, self.moves = self.moves[:most], self.moves[most:]
        events = (
            '<returnval xsi:type="VmBeingHotMigratedEvent">'
            f'<vm><vm type="VirtualMachine">vm-{number}</vm></vm>'
            f'<destHost><host type="HostSystem">host-{number}</host></destHost></returnval>'
            for number in page
        )
        return soap.answer("ReadNextEvents", "".join(events))

    def _DestroyCollector(self, body: str) -> str:
        [name] = re.findall(r"<_this type=[^>]*>([^<]*)<", body)
        self.known.remove(name)
        return soap.answer("DestroyCollector", "")

    def _CurrentTime(self, body: str) -> str:
        return soap.answer("CurrentTime", f"<returnval>{soap.AT}</returnval>")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def line(server: Server) -> Line:
    wire: Any = server
    return Line(wire, ACCESS, Pace())


async def read(line: Line) -> list[str]:
    return [found.ref.id for found in await line.read_view("hosts", HOSTS, PATHS)]


async def test_every_page_is_read_and_the_view_is_made_once(line: Line, server: Server) -> None:
    for _ in range(3):
        assert await read(line) == server.objects
    assert server.calls["CreateContainerView"] == 1
    assert server.calls["CreatePropertyCollector"] == 1
    assert server.calls["ContinueRetrievePropertiesEx"] == 6
    assert server.pages == {}


async def test_every_consumer_has_a_collector_of_its_own(line: Line, server: Server) -> None:
    await line.read_view("one", HOSTS, PATHS)
    await line.read_view("two", HOSTS, PATHS)
    assert server.calls["CreatePropertyCollector"] == 2


async def test_pages_that_nobody_fetches_are_cancelled_by_the_next_read(line: Line, server: Server) -> None:
    server.broken = {"ContinueRetrievePropertiesEx"}
    with pytest.raises(Garbled):
        await read(line)
    assert len(server.pages) == 1
    server.broken = set()
    assert await read(line) == server.objects
    assert server.calls["CancelRetrievePropertiesEx"] == 1
    assert server.pages == {}


async def test_pages_that_never_end_are_garbled(line: Line, server: Server) -> None:
    server.endless = True
    with pytest.raises(Garbled, match="never end"):
        await read(line)
    assert server.calls["ContinueRetrievePropertiesEx"] < 2000


async def test_a_view_that_is_gone_is_made_again_once(line: Line, server: Server) -> None:
    await read(line)
    server.known = {name for name in server.known if "View" not in name}
    assert await read(line) == server.objects
    assert server.calls["CreateContainerView"] == 2
    line.keep_views([])
    await read(line)
    assert server.calls["CreateContainerView"] == 3


async def test_a_view_that_cannot_be_is_refused(line: Line, server: Server) -> None:
    server.known = set()
    with pytest.raises(Refused) as refusal:
        await line.retrieve("hosts", [write_start(ROOT)], PATHS)
    assert isinstance(refusal.value.fault, vmodl.fault.ManagedObjectNotFound)


async def test_a_session_that_ended_is_told_by_a_missing_property(line: Line, server: Server) -> None:
    missing = '<missingSet><path>name</path><fault><fault xsi:type="{}"/></fault></missingSet></objects>'
    row = soap.an_object("HostSystem", "host-1", {})
    for kind in ("ManagedObjectNotFound", "NotAuthenticated"):
        text = soap.page(
            [row.replace("</objects>", missing.format(kind)), soap.an_object("HostSystem", "host-2", {})]
        )
        server._RetrievePropertiesEx = lambda body, text=text: text  # type: ignore[method-assign,misc]
        if kind == "ManagedObjectNotFound":
            assert await read(line) == ["host-2"]
            continue
        with pytest.raises(Refused) as refusal:
            await read(line)
        assert isinstance(refusal.value.fault, vim.fault.NotAuthenticated)


async def test_a_query_asks_for_256_metrics_and_four_are_under_way(line: Line, server: Server) -> None:
    entities = [Ref("VirtualMachine", f"vm-{number}") for number in range(1000)]
    readings = await line.query(QUESTION, entities)
    assert len(readings.series) == 2000
    assert max(server.sizes) == 256
    assert len(server.sizes) == 8
    assert server.most_at_once == 4


async def test_a_server_that_allows_less_is_asked_for_less(line: Line, server: Server) -> None:
    question = Question(QUESTION.counters, 20, 1, most_metrics=64)
    await line.query(question, [Ref("VirtualMachine", f"vm-{number}") for number in range(100)])
    assert max(server.sizes) == 64


class Settings:
    """A vCenter's option manager with one option, or a refusal."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def QueryOptions(self, name: str) -> list[Any]:
        assert name == "config.vpxd.stats.maxQueryMetrics"
        if isinstance(self.answer, Exception):
            raise self.answer
        return [vim.option.OptionValue(key=name, value=self.answer)]


@pytest.mark.parametrize(
    ("answer", "most"),
    [("64", 64), (64, 64), ("-1", 256), ("0", 256), ("5000", 256), ("many", 256)]
    + [(fault(), 256) for fault in (vim.fault.InvalidName, vim.fault.NoPermission, vmodl.fault.NotSupported)],
)
def test_the_servers_own_bound_is_kept_where_it_can_be_read(answer: object, most: int) -> None:
    content = SimpleNamespace(setting=Settings(answer), perfManager=SimpleNamespace(perfCounter=[]))
    api: Any = SimpleNamespace(content=content)
    assert read_counters(api).most_metrics == most


def test_a_lost_session_is_no_missing_option() -> None:
    content = SimpleNamespace(
        setting=Settings(vim.fault.NotAuthenticated()), perfManager=SimpleNamespace(perfCounter=[])
    )
    api: Any = SimpleNamespace(content=content)
    with pytest.raises(vim.fault.NotAuthenticated):
        read_counters(api)


async def test_entities_that_have_gone_cost_only_their_own_values(line: Line, server: Server) -> None:
    server.gone = {"vm-3", "vm-90"}
    readings = await line.query(QUESTION, [Ref("VirtualMachine", f"vm-{number}") for number in range(100)])
    assert len({ref for ref, _ in readings.series}) == 98


async def test_the_first_failure_ends_all_lanes(line: Line, server: Server) -> None:
    server.broken = {"QueryPerf"}
    with pytest.raises(Garbled):
        await line.query(QUESTION, [Ref("VirtualMachine", f"vm-{number}") for number in range(10_000)])
    assert server.calls["QueryPerf"] <= 8


@pytest.mark.parametrize(("events", "pages", "is_whole"), [(0, 1, True), (450, 3, True), (5000, 5, False)])
async def test_moves_are_read_to_the_newest_one_and_not_without_end(
    server: Server, events: int, pages: int, is_whole: bool
) -> None:
    wire: Any = server
    line = Line(wire, replace(ACCESS, events=Ref("EventManager", "EventManager")), Pace())
    known, server.moves = set(server.known), list(range(events))
    moves = await line.read_moves(datetime(2026, 11, 27, tzinfo=UTC))

    assert (server.calls["ReadNextEvents"], moves.is_whole) == (pages, is_whole)
    assert moves.to == {f"vm-{number}": f"host-{number}" for number in range(min(events, 1000))}
    assert server.known == known, "the collector is gone again"


async def test_the_servers_own_time_is_told(line: Line) -> None:
    assert (await line.now()).timestamp() == soap.TICK


def test_slow_rounds_halve_the_pace_and_calm_ones_bring_it_back() -> None:
    pace = Pace()
    widths = []
    for took in (1, 11, 11, 11, 8, 1, 1, 1, 1, 1, 1):
        pace.note(took, 20)
        widths.append(pace.width)
    assert widths == [4, 2, 1, 1, 1, 1, 1, 2, 2, 2, 4]


async def test_results_keep_their_order_and_lanes_their_numbers() -> None:
    pace = Pace()
    lanes = set()

    def job(number: int) -> Callable[[int], Any]:
        async def run(lane: int) -> int:
            lanes.add(lane)
            await asyncio.sleep(0.001 * (5 - number % 5))
            return number

        return run

    assert await pace.run([job(number) for number in range(20)]) == list(range(20))
    assert lanes == {0, 1, 2, 3}
    assert await pace.run([]) == []
