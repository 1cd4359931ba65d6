"""Tasks that take their time: vcsim ends every task before the call returns, a real vCenter only begins it.

What a late task does is put to vcsim when its time is over, and never when it is cancelled. Until then it runs, tells
its progress, and holds the name of a clone. Filters on tasks, and the long question for changes, are answered here.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from tests.faultproxy.rules import Late, SoapFault
from tests.faultproxy.sessions import NOT_AUTHENTICATED
from tests.faultproxy.texts import ENVELOPE, first, ref_in

Ask = Callable[[str, str], Awaitable[str]]
"""Puts a SOAP body with a session's cookie to vcsim."""
_PREFIX, _PLACEHOLDER = "task-late-", "vm-late-"
_TICK_S = 0.02
_DESCRIPTIONS = {
    "CloneVM_Task": "clone",
    "Destroy_Task": "destroy",
    "PowerOffVM_Task": "powerOff",
    "PowerOnVM_Task": "powerOn",
    "ReconfigVM_Task": "reconfigure",
    "RelocateVM_Task": "relocate",
    "SuspendVM_Task": "suspend",
}
_VALUES = {
    "info.state": "TaskInfoState",
    "info.progress": "xsd:int",
    "info.cancelable": "xsd:boolean",
    "info.descriptionId": "xsd:string",
}


@dataclass(slots=True)
class Task:
    """A task as its properties tell; `values` are whole XML elements once it has ended."""

    id: str
    method: str
    body: str
    late: Late
    began: float
    state: str = "running"
    values: dict[str, str] = field(default_factory=dict)
    is_cancelled: bool = False

    @property
    def entity(self) -> tuple[str, str]:
        """What it is about; a clone's is what is cloned."""
        return ref_in(self.body, "_this") or ("", "")

    @property
    def name(self) -> str | None:
        """The name that a clone holds."""
        return first(r"<name[^>]*>([^<]*)</name>", self.body) if self.method == "CloneVM_Task" else None

    def read(self) -> dict[str, str]:
        """Every property as a `val` element."""
        found = {"info.state": self.state, "info.cancelable": str(self.late.cancelable).lower()}
        found["info.descriptionId"] = f"VirtualMachine.{_DESCRIPTIONS.get(self.method, 'other')}"
        if self.state == "running":
            share = (time.monotonic() - self.began) / self.late.seconds
            found["info.progress"] = str(min(99, int(share * 20) * 5))
        values = {name: f'<val xsi:type="{_VALUES[name]}">{text}</val>' for name, text in found.items()}
        kind, number = self.entity
        entity = f'<val xsi:type="ManagedObjectReference" type="{kind}">{number}</val>'
        return values | {"info.entity": entity} | self.values


@dataclass(slots=True)
class Filter:
    """A property filter on one task, and what was told of it."""

    collector: str
    task: str
    paths: list[str]
    told: dict[str, str] = field(default_factory=dict)


class Tasks:
    """The late tasks, and the filters on tasks of any kind."""

    def __init__(self, ask: Ask, own_cookie: Callable[[], Awaitable[str]]) -> None:
        self._ask = ask
        self._own_cookie = own_cookie
        self._late: dict[str, Task] = {}
        self._filters: dict[str, Filter] = {}
        self._versions: dict[str, int] = {}
        self._waiting: dict[str, object] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._count = 0
        self.cancelled = 0
        """Tasks that ended because somebody wanted it."""
        self.truncates = False
        """Updates come a filter at a time, as from a vCenter that has too many for one answer."""

    async def aclose(self) -> None:
        """Nothing more happens."""
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def forget(self, *, running: bool = False) -> None:
        """Tasks that have ended are known no longer, as after some minutes; `running`: and none is, nor any filter."""
        self._late = {} if running else {key: t for key, t in self._late.items() if t.state == "running"}
        if running:
            for each in self._running:
                each.cancel()
            self._filters, self._versions, self._waiting = {}, {}, {}

    def release(self) -> None:
        """Whatever still runs is over now."""
        for task in self._late.values():
            task.late = Late(0.001, task.late.cancelable, task.late.fault)

    # -- the tasks themselves ----------------------------------------------------------------------------------------

    def begin(self, method: str, body: str, late: Late) -> str:
        """The answer to a call that begins a late task."""
        self._count += 1
        task = Task(f"{_PREFIX}{self._count}", method, body, late, time.monotonic())
        self._late[task.id] = task
        running = asyncio.create_task(self._run(task))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return _answer(method, f'<returnval type="Task">{task.id}</returnval>')

    def holder(self, name: str) -> str | None:
        """The id of the machine that is being cloned and has taken this name."""
        held = (t.id for t in self._late.values() if t.name == name and t.state == "running")
        return next((number.replace(_PREFIX, _PLACEHOLDER) for number in held), None)

    async def _run(self, task: Task) -> None:
        while time.monotonic() - task.began < task.late.seconds and not task.is_cancelled:  # noqa: ASYNC110
            await asyncio.sleep(_TICK_S)
        if task.is_cancelled:
            self.cancelled += 1
            self._end(task, SoapFault("RequestCanceled", "The task was canceled by a user."))
        elif task.late.fault is not None:
            self._end(task, task.late.fault)
        else:
            await self._perform(task)

    async def _perform(self, task: Task) -> None:
        cookie = await self._own_cookie()
        call = first(r"<(?:\w+:)?Body[^>]*>(.*)</(?:\w+:)?Body>", task.body) or ""
        answer = await self._ask(call, cookie)
        begun = first(r'<returnval[^>]*type="Task"[^>]*>([^<]+)<', answer)
        if begun is None:
            self._end(task, SoapFault("SystemError", first(r"<faultstring>([^<]*)<", answer) or "refused"))
            return
        read = await self._ask(_retrieval(begun, ("info.state", "info.result", "info.error")), cookie)
        task.values = {
            name: val
            for name, val in re.findall(r"<name>([^<]*)</name>(<val.*?</val>)", read, re.DOTALL)
            if name != "info.state"
        }
        task.state = first(r"<val[^>]*>(success|error)</val>", read) or "success"

    def _end(self, task: Task, fault: SoapFault) -> None:
        task.values = {
            "info.error": f'<val xsi:type="LocalizedMethodFault"><fault xsi:type="{fault.kind}">{fault.detail}'
            f"</fault><localizedMessage>{escape(fault.text)}</localizedMessage></val>"
        }
        task.state = "error"

    def _cancel(self, number: str) -> str | SoapFault:
        task = self._late.get(number)
        if task is None or task.state != "running":
            return SoapFault("InvalidState", "The operation is not allowed in the current state.")
        if not task.late.cancelable:
            return SoapFault("NotSupported", "The operation is not supported on the object.")
        task.is_cancelled = True
        return _answer("CancelTask", "")

    # -- what is asked about them ------------------------------------------------------------------------------------

    async def answer(self, method: str, body: str, cookie: str) -> str | SoapFault | None:
        """The answer to a call that is about tasks; None where vcsim knows better."""
        about = (ref_in(body, "_this") or ("", ""))[1]
        if method == "CancelTask":
            return self._cancel(about)
        if method == "DestroyPropertyFilter" and self._filters.pop(about, False):
            return _answer(method, "")
        if method == "FindChild":
            place = self.holder(first(r"<name[^>]*>([^<]*)</name>", body) or "")
            return place and _answer(method, f'<returnval type="VirtualMachine">{place}</returnval>')
        if self._is_about_tasks(method, body):
            return await self._refuse_stranger(cookie) or await self._tell(method, body, cookie)
        return None

    def _is_about_tasks(self, method: str, body: str) -> bool:
        return (
            (method == "CreateFilter" and "<type>Task</type>" in body)
            or method == "WaitForUpdatesEx"
            or (method == "RetrievePropertiesEx" and bool(re.search(rf">(?:{_PREFIX}|{_PLACEHOLDER})", body)))
        )

    async def _tell(self, method: str, body: str, cookie: str) -> str | SoapFault | None:
        if method == "RetrievePropertiesEx":
            return self._retrieve(body)
        return await (self._wait if method == "WaitForUpdatesEx" else self._create_filter)(body, cookie)

    def show_recent(self, body: str, text: str) -> str:
        """An answer about objects' recent tasks, with those of ours that run on them."""
        asked = set(re.findall(r'<obj [^>]*type="VirtualMachine"[^>]*>([^<]+)</obj>', body))
        is_of_all = re.search(r'<obj [^>]*type="TaskManager"', body) is not None
        running = [
            t for t in self._late.values() if is_of_all or (t.state == "running" and t.entity[1] in asked)
        ]
        more = "".join(_object("Task", task.id, task.read(), _paths(body)) for task in running)
        if not more:
            return text
        if "</returnval>" not in text:
            return _answer("RetrievePropertiesEx", f"<returnval>{more}</returnval>")
        return text.replace("</returnval>", f"{more}</returnval>", 1)

    async def _refuse_stranger(self, cookie: str) -> SoapFault | None:
        """Who is not logged in learns nothing here either."""
        told = await self._ask(
            '<CreatePropertyCollector xmlns="urn:vim25">'
            '<_this type="PropertyCollector">propertyCollector</_this></CreatePropertyCollector>',
            cookie,
        )
        return NOT_AUTHENTICATED if "NotAuthenticated" in told else None

    def _retrieve(self, body: str) -> str:
        asked = re.findall(rf"<obj [^>]*>((?:{_PREFIX}|{_PLACEHOLDER})\d+)</obj>", body)
        objects = "".join(self._show(number, _paths(body)) for number in asked)
        return _answer("RetrievePropertiesEx", f"<returnval>{objects}</returnval>")

    def _show(self, number: str, paths: list[str]) -> str:
        task = self._late.get(number.replace(_PLACEHOLDER, _PREFIX))
        is_place = number.startswith(_PLACEHOLDER)
        if task is None or (is_place and task.state != "running"):
            kind = "VirtualMachine" if is_place else "Task"
            lost = '<fault><fault xsi:type="ManagedObjectNotFound"/><localizedMessage/></fault>'
            missing = "".join(f"<missingSet><path>{path}</path>{lost}</missingSet>" for path in paths)
            return f'<objects><obj type="{kind}">{number}</obj>{missing}</objects>'
        if is_place:  # a machine that is being cloned has a name and nothing else
            name = {"name": f'<val xsi:type="xsd:string">{task.name}</val>'}
            return _object("VirtualMachine", number, name, paths)
        return _object("Task", number, task.read(), paths)

    async def _create_filter(self, body: str, cookie: str) -> str | SoapFault:
        collector, task = ref_in(body, "_this"), ref_in(body, "obj")
        assert collector is not None
        assert task is not None
        if not await self._values_of(task[1], _paths(body), cookie):
            return SoapFault("ManagedObjectNotFound", "gone", f'<obj type="Task">{task[1]}</obj>')
        self._count += 1
        number = f"filter-late-{self._count}"
        self._filters[number] = Filter(collector[1], task[1], _paths(body))
        return _answer("CreateFilter", f'<returnval type="PropertyFilter">{number}</returnval>')

    async def _values_of(self, task: str, paths: list[str], cookie: str) -> dict[str, str]:
        """The properties of a task, late or not; nothing when it is unknown."""
        if task.startswith(_PREFIX):
            return self._late[task].read() if task in self._late else {}
        read = await self._ask(_retrieval(task, paths), cookie)
        return dict(re.findall(r"<name>([^<]*)</name>(<val.*?</val>)", read, re.DOTALL))

    async def _wait(self, body: str, cookie: str) -> str | SoapFault | None:
        """What has changed since this version. A newer question ends an older one, and only the last version counts."""
        collector = (ref_in(body, "_this") or ("", ""))[1]
        if collector not in {each.collector for each in self._filters.values()} | self._versions.keys():
            return None
        version = first(r"<version[^>]*>([^<]*)</version>", body) or ""
        if version and version != str(self._versions.get(collector)):
            return SoapFault("InvalidCollectorVersion", "The version is not known.")
        if not version:
            for each in self._of(collector):
                each.told = {}
        patience = float(first(r"<maxWaitSeconds>(\d+)<", body) or 1800)
        until, turn = time.monotonic() + patience, object()
        self._waiting[collector] = turn
        while self._waiting.get(collector) is turn:
            found = await self._all_changes(collector, cookie)
            if found:
                self._versions[collector] = self._versions.get(collector, 0) + 1
                number = self._versions[collector]
                more = "<truncated>true</truncated>" if self.truncates else ""
                updates = f"<returnval><version>{number}</version>{found}{more}</returnval>"
                return _answer("WaitForUpdatesEx", updates)
            if time.monotonic() >= until:
                return _answer("WaitForUpdatesEx", "")
            await asyncio.sleep(_TICK_S)
        return SoapFault("RequestCanceled", "A newer question took over.")

    async def _all_changes(self, collector: str, cookie: str) -> str:
        found = ""
        for key in [key for key, each in self._filters.items() if each.collector == collector]:
            if not (found and self.truncates) and key in self._filters:
                found += await self._changes(key, cookie)
        return found

    def _of(self, collector: str) -> list[Filter]:
        return [each for each in self._filters.values() if each.collector == collector]

    async def _changes(self, key: str, cookie: str) -> str:
        known = self._filters[key]
        now = await self._values_of(known.task, known.paths, cookie)
        news = {name: val for name, val in now.items() if name in known.paths and known.told.get(name) != val}
        if not news:
            return ""
        kind = "modify" if known.told else "enter"
        known.told |= news
        changes = "".join(
            f"<changeSet><name>{name}</name><op>assign</op>{val}</changeSet>" for name, val in news.items()
        )
        return (
            f'<filterSet><filter type="PropertyFilter">{key}</filter><objectSet><kind>{kind}</kind>'
            f'<obj type="Task">{known.task}</obj>{changes}</objectSet></filterSet>'
        )


def _answer(method: str, inside: str) -> str:
    return ENVELOPE.format(f'<{method}Response xmlns="urn:vim25">{inside}</{method}Response>')


def _paths(body: str) -> list[str]:
    return re.findall(r"<pathSet[^>]*>([^<]+)</pathSet>", body)


def _object(kind: str, number: str, values: dict[str, str], paths: list[str]) -> str:
    told = "".join(
        f"<propSet><name>{path}</name>{values[path]}</propSet>" for path in paths if path in values
    )
    return f'<objects><obj type="{kind}">{number}</obj>{told}</objects>'


def _retrieval(task: str, paths: list[str] | tuple[str, ...]) -> str:
    wanted = "".join(f"<pathSet>{path}</pathSet>" for path in paths)
    return (
        '<RetrievePropertiesEx xmlns="urn:vim25"><_this type="PropertyCollector">propertyCollector</_this><specSet>'
        f'<propSet><type>Task</type>{wanted}</propSet><objectSet><obj type="Task">{task}</obj></objectSet>'
        "</specSet><options/></RetrievePropertiesEx>"
    )
