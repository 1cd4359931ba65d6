"""A stand-in for a client at the demo project: what it computes is told it in CPU seconds, as by a simulated machine.

It goes through the project's own doors: the page that names the scheduler, the scheduler, the upload handler.
"""

import re
from dataclasses import dataclass, field

import aiohttp

from libs.boinc import lenient
from libs.boinc.demo_project.burner import STEP_S, answer
from libs.boinc.demo_project.project import PLATFORM
from libs.boinc.demo_project.uploading import HANDLER

_SCHEDULER = re.compile(r"<scheduler>(.*?)</scheduler>")
_PERMISSION = re.compile(r"<file_info>\n<name>(\S+)_0</name>\n.*?</file_info>\n", re.S)
_TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass
class Task:
    """A task in hand."""

    name: str
    cpu_s: float
    permission: str
    """To upload its answer, as the project signed it."""
    done_s: float = 0.0


@dataclass
class Visitor:
    """One machine at one project."""

    url: str
    key: str = field(repr=False)
    cpid: str
    domain_name: str
    cpus: int
    fpops: float
    link_s: float = STEP_S
    """As the project's."""
    host_id: int = 0
    """0 until its scheduler has answered."""
    cpu_s: float = 0.0
    """Spent on its tasks since it was attached."""
    reported: int = 0
    tasks: list[Task] = field(default_factory=list)
    """In hand, done or not."""
    message: str = ""
    """What the project last said, as when it refuses the key."""
    _scheduler: str = ""
    _seqno: int = 0

    def work(self, cpu_s: float) -> None:
        """Spend so much on the tasks in hand, one after the other; what is too much for them is idled away."""
        for task in self.tasks:
            spent = min(cpu_s, task.cpu_s - task.done_s)
            task.done_s, self.cpu_s, cpu_s = task.done_s + spent, self.cpu_s + spent, cpu_s - spent

    async def come(self, http: aiohttp.ClientSession, wants_s: float) -> None:
        """Upload and report what is done, and ask for work of so many seconds. Raises aiohttp.ClientError."""
        done = [task for task in self.tasks if task.done_s >= task.cpu_s]
        for task in done:
            await self._upload(http, task)
        if not self._scheduler:
            page = await _ask(http, self.url)
            found = _SCHEDULER.search(page)
            self._scheduler = found[1] if found else f"{self.url}cgi"
        self._seqno += 1
        reply = await _ask(http, self._scheduler, self._request(done, wants_s))
        self._take(reply)

    def _take(self, reply: str) -> None:
        said = lenient.find_root(reply, "scheduler_reply") or lenient.Node("scheduler_reply")
        self.message = said.get("message")
        self.host_id = said.integer("hostid") or self.host_id
        acknowledged = {each.get("name") for each in said.all("result_ack")}
        self.reported += len(acknowledged)
        permissions = {found[1]: found[0] for found in _PERMISSION.finditer(reply)}
        lengths = {each.get("name"): each.number("rsc_fpops_est") / 1e9 for each in said.all("workunit")}
        self.tasks = [task for task in self.tasks if task.name not in acknowledged] + [
            Task(each.get("name"), lengths[each.get("wu_name")], permissions[each.get("name")])
            for each in said.all("result")
        ]

    async def _upload(self, http: aiohttp.ClientSession, task: Task) -> None:
        output = answer(task.cpu_s, task.name, self.link_s)
        head = f"<data_server_request>\n<file_upload>\n{task.permission}<nbytes>{len(output)}</nbytes>\n"
        await _ask(http, f"{self.url}{HANDLER}", f"{head}<offset>0</offset>\n<data>\n{output}")

    def _request(self, done: list[Task], wants_s: float) -> str:
        results = "".join(
            f"<result>\n<name>{task.name}</name>\n<final_cpu_time>{task.done_s}</final_cpu_time>\n"
            "<exit_status>0</exit_status>\n</result>\n"
            for task in done
        )
        return (
            f"<scheduler_request>\n<authenticator>{self.key}</authenticator>\n<hostid>{self.host_id}</hostid>\n"
            f"<rpc_seqno>{self._seqno}</rpc_seqno>\n<platform_name>{PLATFORM}</platform_name>\n"
            f"<work_req_seconds>{wants_s:f}</work_req_seconds>\n<host_info>\n<host_cpid>{self.cpid}</host_cpid>\n"
            f"<domain_name>{self.domain_name}</domain_name>\n<p_ncpus>{self.cpus}</p_ncpus>\n"
            f"<p_fpops>{self.fpops:f}</p_fpops>\n</host_info>\n{results}</scheduler_request>\n"
        )


async def _ask(http: aiohttp.ClientSession, url: str, body: str | None = None) -> str:
    method = "GET" if body is None else "POST"
    async with http.request(method, url, data=body, timeout=_TIMEOUT) as reply:
        reply.raise_for_status()
        return await reply.text()
