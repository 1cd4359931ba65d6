"""One logged-in session: blocking pyVmomi behind a bounded pool of threads, every call with a deadline."""

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, TypeVar

import structlog
from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import GetWsdlName

from libs.providers.base import Cause, LoginRefused, ProviderError, Unavailable
from libs.providers.vsphere.api import Api
from libs.providers.vsphere.faults import Refused, refuse_login, translate, untrusted
from libs.providers.vsphere.inventory import ref_id
from libs.providers.vsphere.settings import Endpoint
from libs.providers.vsphere.soap import Access, Line, Pace, Ref, Wire
from libs.providers.vsphere.tasks import Tasks
from libs.providers.vsphere.transport import THREADS, Stub, Trust, choose_version, see_thumbprint

CALL_TIMEOUT_S = 20.0
KEEP_ALIVE_S = 600.0
"""A session that nobody has used for so long asks for the time: an ESXi host ends idle ones after 30 minutes, and each
login is an event in somebody's vCenter."""
_MARGIN_S = 1.0
_LOGOUT_S = 5.0

T = TypeVar("T")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Login:
    """As whom to log in; `open_secret` opens the sealed password each time it is needed."""

    username: str
    open_secret: Callable[[], str] = field(repr=False)


class Session:
    """A session on one vSphere API. `call` runs blocking work; a lost session is opened again once per call."""

    def __init__(self, endpoint: Endpoint, trust: Trust, login: Login) -> None:
        self._endpoint = endpoint
        self._trust = trust
        self._login = login
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="vsphere")
        self._lock = threading.Lock()
        self._api: Api | None = None
        self._refused: LoginRefused | None = None
        """Once a login was refused none is tried again here: whoever wants another opens another session."""
        self._stub: Stub | None = None
        self._wire = Wire(endpoint, trust)
        self._line: tuple[Api, Line] | None = None
        self.pace = Pace()
        """How many reads go over the raw wire at once; rounds adjust it."""
        self._long_wire = Wire(endpoint, trust)
        self.tasks = Tasks(self, self._long_wire)
        self.closed = False
        self._used_at = time.monotonic()
        self._keeping: asyncio.Task[None] | None = None

    async def call(self, work: Callable[[Api], T], doing: str, timeout_s: float = CALL_TIMEOUT_S) -> T:
        """Run blocking work in a thread; it may run twice, after a new login: idempotent. Raises ProviderError."""
        deadline = self._begin() + timeout_s
        async with self._translating(doing):
            async with asyncio.timeout(timeout_s + _MARGIN_S):
                return await self._in_thread(self._work, work, deadline)

    async def read(
        self, work: Callable[[Line], Awaitable[T]], doing: str, timeout_s: float = CALL_TIMEOUT_S
    ) -> T:
        """Read over the raw wire, with the same session; it may run twice, after a new login. Raises ProviderError."""
        deadline = self._begin() + timeout_s
        async with self._translating(doing):
            async with asyncio.timeout(timeout_s):
                api = self._api
                if api is None:
                    api = await self._in_thread(self._connect, None, deadline)
                try:
                    return await work(self._line_of(api))
                except Refused as refusal:
                    if not isinstance(refusal.fault, vim.fault.NotAuthenticated):
                        raise
                log.info("vsphere.session_lost", endpoint=self._endpoint.text)
                return await work(self._line_of(await self._in_thread(self._connect, api, deadline)))

    def _begin(self) -> float:
        self._used_at = time.monotonic()
        return self._used_at

    def keep_alive(self) -> None:
        """From now on the session does not end by itself while nobody uses it."""
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep_alive())

    async def _keep_alive(self) -> None:
        while not self.closed:
            await asyncio.sleep(max(0.01, self._used_at + KEEP_ALIVE_S - time.monotonic()))
            api = self._api
            if time.monotonic() - self._used_at >= KEEP_ALIVE_S and self._begin() and api is not None:
                try:
                    async with self._translating("keeping the session"), asyncio.timeout(CALL_TIMEOUT_S):
                        await self._line_of(api).now()
                except ProviderError as error:
                    # Nobody logs in for this, perhaps with an old password: whoever uses it next does, and is told.
                    log.info("vsphere.not_kept_alive", endpoint=self._endpoint.text, reason=error.detail)

    @asynccontextmanager
    async def _translating(self, doing: str) -> AsyncIterator[None]:
        """Whatever goes wrong inside, in our words."""
        if self.closed:
            raise Unavailable(Cause.UNREACHABLE, f"{doing}: the session is closed")
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise untrusted(error, await self._in_thread(see_thumbprint, self._endpoint)) from None
        except Exception as error:
            raise translate(error, doing) from None

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _line_of(self, api: Api) -> Line:
        """The raw wire into this session; views and collectors of a session that was lost went with it."""
        if self._line is None or self._line[0] is not api:
            self._line = api, Line(self._wire, _access_of(api), self.pace)
        return self._line[1]

    def _work(self, work: Callable[[Api], T], deadline: float) -> T:
        api = self._connect(None, deadline)
        try:
            with api.stub.deadline(deadline):
                return work(api)
        except vim.fault.NotAuthenticated:
            log.info("vsphere.session_lost", endpoint=self._endpoint.text)
            api = self._connect(api, deadline)
            with api.stub.deadline(deadline):
                return work(api)

    def _connect(self, lost: Api | None, deadline: float) -> Api:
        """The session's api; logs in when there is none, or when it is still the one that was lost."""
        with self._lock:
            if self.closed:
                raise Unavailable(Cause.UNREACHABLE, "the session is closed")
            if self._api is not None and self._api is not lost:
                return self._api
            if self._refused is not None:
                raise LoginRefused(self._refused.cause, self._refused.detail)
            self._api = None
            self._wire.prepare()
            self._long_wire.prepare()
            if self._stub is None:
                version = choose_version(self._endpoint, self._trust, deadline)
                self._stub = Stub(self._endpoint, self._trust, version)
            if lost is not None:
                # Where the session is in truth still alive, a login into it would be refused as if it were wrong.
                self._stub.forget_session()
            with self._stub.deadline(deadline):
                api = Api(self._stub)
                password = self._login.open_secret()
                try:
                    api.content.sessionManager.Login(self._login.username, password)
                except (vmodl.MethodFault, HTTPException) as refusal:
                    told = refuse_login(refusal, password)
                    self._refused = told if isinstance(told, LoginRefused) else None
                    raise told from None
            self._api = api
            return api

    async def finish(self, task: Any, doing: str, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """Wait for a task and return its result. Raises ProviderError; Unavailable(TIMEOUT) while it still runs."""
        return await self.tasks.finish(task, doing, timeout_s)

    async def do(
        self,
        start: Callable[[Api], Any],
        doing: str,
        timeout_s: float = CALL_TIMEOUT_S,
        about: str | None = None,
    ) -> Any:
        """Start a task and wait for it; one that outlasts its deadline stays known by the machine it is `about`."""
        return await self.tasks.do(start, doing, timeout_s, about)

    async def aclose(self) -> None:
        """Log out, as far as the server lets us, and let go of threads and connections. Nothing logs in any more."""
        if self.closed:
            return
        self.closed = True
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        await self.tasks.aclose()
        try:
            async with asyncio.timeout(_LOGOUT_S + _MARGIN_S):
                await self._in_thread(self._log_out, time.monotonic() + _LOGOUT_S)
        except Exception as error:  # the session is going away either way
            log.info("vsphere.logout_failed", endpoint=self._endpoint.text, reason=str(error))
        await self._wire.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._stub is not None:
            self._stub.drop()

    def _log_out(self, deadline: float) -> None:
        """End the session, also one whose login is just under way."""
        with self._lock:
            api, self._api = self._api, None
        if api is not None:
            with api.stub.deadline(deadline), suppress(vim.fault.NotAuthenticated):
                api.content.sessionManager.Logout()


def _access_of(api: Api) -> Access:
    content = api.content
    root, collector, views, performance, search = (
        _ref(each)
        for each in (
            content.rootFolder,
            content.propertyCollector,
            content.viewManager,
            content.perfManager,
            content.searchIndex,
        )
    )
    tasks, events = (
        None if each is None else _ref(each) for each in (content.taskManager, content.eventManager)
    )
    cookie, action = str(api.stub.cookie).partition(";")[0], str(api.stub.versionId)
    return Access(
        cookie, action, root, collector, views, performance, search, tasks, events, on_host=api.on_host
    )


def _ref(each: Any) -> Ref:
    return Ref(GetWsdlName(type(each)), ref_id(each))
