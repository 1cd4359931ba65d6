"""Tasks of the cloud, followed until they end: by a property collector of their own, with a deadline for who waits.

A task that outlasts its deadline is unknown, not failed: it is followed further, and whoever asks something of the same
machine later first waits for its end and then looks at what came of it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import structlog
from pyVmomi import vim
from pyVmomi.VmomiSupport import GetWsdlName

from libs.providers.base import Cause, Unavailable
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.faults import TaskFailed, translate
from libs.providers.vsphere.inventory import read_objects, ref_id
from libs.providers.vsphere.soap import Line, Ref, TaskNews, TaskWatch, Wire

SETTLE_S = 5.0
"""So long an act waits for what an earlier one began on the same machine and did not see the end of."""
LONGEST_PAUSE_S = 30.0
_ENDED = ("success", "error")

T = TypeVar("T")
log = structlog.get_logger()


class Caller(Protocol):
    """What following needs of a session."""

    async def call(self, work: Callable[[Api], T], doing: str) -> T: ...

    async def read(self, work: Callable[[Line], Awaitable[T]], doing: str) -> T: ...


@dataclass(frozen=True, slots=True)
class End:
    """How a task ended."""

    result: Any = None
    fault: TaskFailed | None = None
    is_unknown: bool = False
    """The cloud no longer knows the task: what came of it must be read from what it was about."""


@dataclass(slots=True, eq=False)
class Followed:
    """A task, and what is known of it."""

    task: Any
    ref: Ref
    state: str = "queued"
    progress: int | None = None
    cancelable: bool | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when nothing more comes: how it ended must still be read."""

    def note(self, news: TaskNews) -> None:
        """More is known."""
        self.state = news.state or self.state
        self.progress = self.progress if news.progress is None else news.progress
        self.cancelable = self.cancelable if news.cancelable is None else news.cancelable
        if news.is_gone or self.state in _ENDED:
            self.ended.set()

    def tell(self) -> str:
        """Where it stands, in words."""
        return self.state if self.progress is None else f"{self.state} at {self.progress} %"


class Tasks:
    """The tasks that this session began and has not seen the end of."""

    def __init__(self, caller: Caller, wire: Wire) -> None:
        self._caller = caller
        self._wire = wire
        self._followed: dict[Ref, Followed] = {}
        self._unfinished: dict[str, Any] = {}
        self._changed = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    async def do(
        self, start: Callable[[Api], Any], doing: str, timeout_s: float, about: str | None = None
    ) -> Any:
        """Start a task and wait for its result; one that outlasts its deadline stays known by what it is `about`."""

        def begin(api: Api) -> Any:
            task = start(api)
            # In the thread: whoever waits for this call may be gone before the answer is there.
            if about is not None:
                self._unfinished[about] = task
            return task

        return await self.finish(await self._caller.call(begin, doing), doing, timeout_s)

    async def finish(self, task: Any, doing: str, timeout_s: float) -> Any:
        """Wait for a task and return its result. Raises ProviderError; Unavailable(TIMEOUT) while it still runs."""
        end = await self.end_of(task, doing, timeout_s)
        if end.is_unknown:
            raise Unavailable(
                Cause.UNKNOWN, f"{doing}: the cloud no longer knows the task: its outcome must be read back"
            )
        if end.fault is not None:
            raise translate(end.fault, doing)
        return end.result

    async def settle(self, about: str, doing: str, timeout_s: float | None = None) -> None:
        """See the end of what an earlier call began on this machine: only then is what is read of it true.

        Raises Unavailable(TIMEOUT) while it still runs.
        """
        task = self._unfinished.get(about)
        if task is None:
            return
        end = await self.end_of(task, doing, SETTLE_S if timeout_s is None else timeout_s)
        log.info(
            "vsphere.late_task_ended", about=about, unknown=end.is_unknown, fault=end.fault and str(end.fault)
        )

    def follow(self, task: Any) -> Followed:
        """What is known of a task from now on, without waiting for it."""
        ref = Ref(GetWsdlName(type(task)), ref_id(task))
        followed = self._followed.get(ref)
        if followed is None:
            followed = self._followed[ref] = Followed(task, ref)
            self._changed.set()
            if self._listening is None:
                self._listening = asyncio.create_task(self._listen())
        return followed

    async def cancel(self, task: Any, doing: str) -> None:
        """Ask the cloud to give up a task; it may run on all the same, and a moment passes in any case."""
        try:
            await self._caller.call(lambda api: _cancel(api, task), doing)
        except Unavailable:
            raise
        except Exception as refusal:
            log.info("vsphere.task_not_cancelled", task=ref_id(task), reason=str(refusal))

    async def aclose(self) -> None:
        """Follow nothing any more; whoever waits is told so by the closed session."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            self._listening = None
        for followed in self._followed.values():
            followed.ended.set()
        self._followed.clear()
        await self._wire.aclose()

    async def end_of(self, task: Any, doing: str, timeout_s: float) -> End:
        """How a task ended. Raises ProviderError where that cannot be learnt, Unavailable(TIMEOUT) while it runs."""
        until = time.monotonic() + timeout_s
        seen = await self._caller.call(lambda api: look_at(api, task), doing)
        if isinstance(seen, str):
            followed = self.follow(task)
            followed.state = seen
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    await followed.ended.wait()
            # The last word is always a look of our own: news may have been lost.
            seen = await self._caller.call(lambda api: look_at(api, task), doing)
            if isinstance(seen, str):
                raise Unavailable(Cause.TIMEOUT, f"{doing}: still {followed.tell()} after {timeout_s:.0f} s")
        self._forget(task)
        return seen

    def _forget(self, task: Any) -> None:
        for about in [about for about, known in list(self._unfinished.items()) if known is task]:
            del self._unfinished[about]
        followed = self._followed.pop(Ref(GetWsdlName(type(task)), ref_id(task)), None)
        if followed is not None:
            followed.ended.set()
            self._changed.set()

    async def _listen(self) -> None:
        """For the rest of the session; what goes wrong is tried again ever more rarely, with a new collector."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._listen_once()
            except Exception as error:
                if time.monotonic() - began > LONGEST_PAUSE_S:
                    failures = 0
                log.info("vsphere.tasks_unwatched", reason=str(translate(error, "following tasks")))
                # A session or a collector that is gone is the usual reason, and a new one the usual remedy.
                await asyncio.sleep(min(LONGEST_PAUSE_S, 2.0**failures - 1.0))
                failures += 1

    async def _listen_once(self) -> None:
        watch = await self._caller.read(self._open, "following tasks")
        while True:
            if not self._followed:
                await self._changed.wait()
            waiting = asyncio.create_task(watch.wait())
            try:
                while not waiting.done():
                    await self._keep(watch)
                    changed = asyncio.create_task(self._changed.wait())
                    await asyncio.wait({waiting, changed}, return_when=asyncio.FIRST_COMPLETED)
                    changed.cancel()
                for ref, news in waiting.result().items():
                    self._note(ref, news)
            finally:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)

    async def _open(self, line: Line) -> TaskWatch:
        watch = TaskWatch(self._wire, line.access)
        await self._keep(watch)
        return watch

    async def _keep(self, watch: TaskWatch) -> None:
        self._changed.clear()
        for ref in await watch.keep(list(self._followed)):
            self._note(ref, TaskNews(is_gone=True))

    def _note(self, ref: Ref, news: TaskNews) -> None:
        followed = self._followed.get(ref)
        if followed is None:
            return
        followed.note(news)
        if followed.ended.is_set():
            del self._followed[ref]
            self._changed.set()


def look_at(api: Api, task: Any) -> End | str:
    """How a task ended, or the state that it is in, by leaf paths: `task.info` cannot be read for every task."""
    rows = read_objects(api, "tasks", [task], {vim.Task: ("info.state", "info.result", "info.error")})
    if not rows:
        return End(is_unknown=True)
    got = rows[0].properties
    state = str(got.get("info.state"))
    if state == "error":
        return End(fault=TaskFailed(got.get("info.error")))
    return End(got.get("info.result")) if state == "success" else state


def _cancel(api: Api, task: Any) -> None:
    try:
        # An earlier session may have begun it: asked in this one.
        vim.Task(ref_id(task), api.stub).CancelTask()
    except vim.fault.InvalidState:
        return  # it has ended, or was cancelled before
