"""GUI RPC: how a BOINC client is steered over its TCP port. No TLS: only ever on the client's own machine.

Source: BOINC `lib/gui_rpc_client*.cpp`; frames end in 0x03, replies can be megabytes.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import TracebackType
from xml.sax.saxutils import escape

from libs.boinc import lenient, wording
from libs.boinc.lenient import Node

PORT = 31416
LARGEST_REPLY = 64 * 1024 * 1024
_END = b"\x03"
_IN_PROGRESS = -204


class GuiRpcError(Exception):
    """The client could not be asked, or said no; the message is one sentence."""


class RefusedPassword(GuiRpcError):
    """The password is not the client's."""


class Operation(StrEnum):
    """What can be done with a project."""

    UPDATE = "project_update"
    SUSPEND = "project_suspend"
    RESUME = "project_resume"
    NO_MORE_WORK = "project_nomorework"
    ALLOW_MORE_WORK = "project_allowmorework"
    RESET = "project_reset"
    DETACH = "project_detach"
    DETACH_WHEN_DONE = "project_detach_when_done"


class TaskOperation(StrEnum):
    """What can be done with a task."""

    SUSPEND = "suspend_result"
    RESUME = "resume_result"
    ABORT = "abort_result"


class RunMode(StrEnum):
    """When the client computes."""

    ALWAYS = "always"
    AUTO = "auto"
    NEVER = "never"
    RESTORE = "restore"


class TaskState(IntEnum):
    """How far along a task is."""

    NEW = 0
    DOWNLOADING = 1
    DOWNLOADED = 2
    FAILED = 3
    UPLOADING = 4
    UPLOADED = 5
    ABORTED = 6


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the client sees it."""

    name: str
    project_url: str
    state: int
    """A `TaskState`, where it is one that we know."""
    ready_to_report: bool
    suspended: bool
    started: bool
    executing: bool
    current_cpu_s: float
    checkpoint_cpu_s: float
    fraction_done: float
    remaining_s: float
    exit_status: int

    @property
    def unsaved_cpu_s(self) -> float:
        """CPU seconds that are lost if it is killed now."""
        return max(0.0, self.current_cpu_s - self.checkpoint_cpu_s) if self.started else 0.0


@dataclass(frozen=True, slots=True)
class AttachedProject:
    """A project that the client is attached to."""

    url: str
    name: str
    host_id: int
    resource_share: float
    suspended: bool
    no_more_work: bool
    managed: bool
    """Attached by an account manager, which alone can detach it."""


class GuiRpc:
    """One authorised connection; `async with await GuiRpc.connect(...)`. Every call has the same deadline."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_s: float = 10.0
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()

    @classmethod
    async def connect(
        cls, password: str, port: int = PORT, host: str = "127.0.0.1", timeout_s: float = 10.0
    ) -> "GuiRpc":
        """Connect and authorise. Raises RefusedPassword, GuiRpcError."""
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(host, port, limit=LARGEST_REPLY)
        except (OSError, TimeoutError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise GuiRpcError(f"The BOINC client does not answer: {reason}.") from None
        rpc = cls(reader, writer, timeout_s)
        try:
            nonce = (await rpc.ask("<auth1/>")).get("nonce")
            proof = hashlib.md5((nonce + password).encode(), usedforsecurity=False).hexdigest()
            answer = await rpc.ask(f"<auth2>\n<nonce_hash>{proof}</nonce_hash>\n</auth2>")
            if answer.find("authorized") is None:
                raise RefusedPassword("The BOINC client refuses the password.")
        except GuiRpcError:
            await rpc.aclose()
            raise
        return rpc

    async def __aenter__(self) -> "GuiRpc":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection."""
        self._writer.close()
        try:
            async with asyncio.timeout(1):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            pass

    async def ask(self, body: str) -> Node:
        """The reply's element. Raises GuiRpcError, also where it holds an `<error>`; the connection is void then."""
        frame = f"<boinc_gui_rpc_request>\n{body}\n</boinc_gui_rpc_request>\n".encode() + _END
        try:
            async with self._turn, asyncio.timeout(self._timeout_s):
                self._writer.write(frame)
                await self._writer.drain()
                said = await self._reader.readuntil(_END)
        except asyncio.LimitOverrunError:
            raise GuiRpcError(f"The BOINC client's reply is above {LARGEST_REPLY >> 20} MiB.") from None
        except (OSError, EOFError, TimeoutError) as error:
            self._writer.close()
            raise GuiRpcError(f"The BOINC client does not answer: {type(error).__name__}.") from None
        reply = lenient.find_root(lenient.decode(said[:-1]), "boinc_gui_rpc_reply")
        if reply is None:
            raise GuiRpcError("What answers is no BOINC client.")
        if (error_text := reply.get("error")) or reply.find("unauthorized") is not None:
            refused = RefusedPassword if not error_text or error_text == "unauthorized" else GuiRpcError
            raise refused(f"The BOINC client says: {error_text or 'unauthorized'}.")
        return reply

    async def state(self) -> Node:
        """`<client_state>`: everything at once."""
        return _part(await self.ask("<get_state/>"), "client_state")

    async def status(self) -> Node:
        """`<cc_status>`: modes and why it is suspended."""
        return _part(await self.ask("<get_cc_status/>"), "cc_status")

    async def host_info(self) -> Node:
        """`<host_info>`: processors, memory, benchmarks."""
        return _part(await self.ask("<get_host_info/>"), "host_info")

    async def tasks(self, *, active_only: bool = False) -> tuple[Task, ...]:
        """Tasks that are not yet reported."""
        reply = await self.ask(f"<get_results><active_only>{int(active_only)}</active_only></get_results>")
        return tuple(_task(each) for each in _part(reply, "results").all("result"))

    async def finished(self) -> tuple[Node, ...]:
        """Tasks that were reported of late: `exit_status`, `cpu_time`, `elapsed_time`."""
        return tuple(_part(await self.ask("<get_old_results/>"), "old_results").all("old_result"))

    async def projects(self) -> tuple[AttachedProject, ...]:
        """Projects that the client is attached to."""
        reply = await self.ask("<get_project_status/>")
        return tuple(_project(each) for each in _part(reply, "projects").all("project"))

    async def messages(self, after: int = 0) -> tuple[tuple[int, str], ...]:
        """The client's log beyond a number: each with its number."""
        reply = await self.ask(f"<get_messages>\n<seqno>{after}</seqno>\n</get_messages>")
        found = _part(reply, "msgs").all("msg")
        return tuple((each.integer("seqno"), each.get("body")) for each in found)

    async def operate(self, operation: Operation, project_url: str) -> None:
        """Do it with a project. Raises GuiRpcError: one of an account manager cannot be detached so."""
        url = escape(project_url)
        await self.ask(f"<{operation}>\n<project_url>{url}</project_url>\n</{operation}>")

    async def operate_task(self, operation: TaskOperation, task: Task) -> None:
        """Do it with a task; one that is gone meanwhile raises GuiRpcError."""
        where = f"<project_url>{escape(task.project_url)}</project_url>\n<name>{escape(task.name)}</name>"
        await self.ask(f"<{operation}>\n{where}\n</{operation}>")

    async def set_run_mode(self, mode: RunMode, duration_s: float = 0.0) -> None:
        """Compute or not; for a while, or for good (0)."""
        await self.ask(f"<set_run_mode>\n<{mode}/>\n<duration>{duration_s:.0f}</duration>\n</set_run_mode>")

    async def override_preferences(self, values: Mapping[str, float]) -> None:
        """Replace the override file and read it; no values: none is overridden."""
        text = wording.preferences(values) if values else ""
        await self.ask(f"<set_global_prefs_override>\n{text}</set_global_prefs_override>")
        await self.ask("<read_global_prefs_override/>")

    async def configure(self, options: Mapping[str, int]) -> None:
        """Replace the options of `cc_config.xml` and read it."""
        rows = "".join(f"<{wording.tag(name)}>{int(value)}</{name}>\n" for name, value in options.items())
        body = f"<cc_config>\n<options>\n{rows}</options>\n</cc_config>\n"
        await self.ask(f"<set_cc_config>\n{body}</set_cc_config>")
        await self.ask("<read_cc_config/>")

    async def sync_manager(self) -> None:
        """Contact the account manager of the client's own files now."""
        await self.ask("<acct_mgr_rpc>\n<use_config_file/>\n</acct_mgr_rpc>")

    async def manager_outcome(self) -> int | None:
        """How the last contact went: 0 well, None not over yet, else BOINC's error number."""
        reply = await self.ask("<acct_mgr_rpc_poll/>")
        found = next((node for node in reply.walk() if node.tag == "error_num"), None)
        code = 0 if found is None else int(lenient.number_of(found.text))
        return None if code == _IN_PROGRESS else code

    async def quit(self) -> None:
        """End the client; it kills its tasks first, and what is not checkpointed is lost."""
        await self.ask("<quit/>")


def _part(reply: Node, tag: str) -> Node:
    return next((node for node in reply.walk() if node.tag == tag), Node(tag))


def _task(node: Node) -> Task:
    active = node.find("active_task")
    known = active or Node("active_task")
    return Task(
        name=node.get("name"),
        project_url=node.get("project_url"),
        state=node.integer("state"),
        ready_to_report=node.flag("ready_to_report"),
        suspended=node.flag("suspended_via_gui"),
        started=active is not None,
        executing=known.integer("active_task_state") == 1,
        current_cpu_s=known.number("current_cpu_time"),
        checkpoint_cpu_s=known.number("checkpoint_cpu_time"),
        fraction_done=known.number("fraction_done"),
        remaining_s=node.number("estimated_cpu_time_remaining"),
        exit_status=node.integer("exit_status"),
    )


def _project(node: Node) -> AttachedProject:
    return AttachedProject(
        url=node.get("master_url"),
        name=node.get("project_name"),
        host_id=node.integer("hostid"),
        resource_share=node.number("resource_share"),
        suspended=node.flag("suspended_via_gui"),
        no_more_work=node.flag("dont_request_more_work"),
        managed=node.flag("attached_via_acct_mgr"),
    )
