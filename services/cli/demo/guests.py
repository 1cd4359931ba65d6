"""What runs inside the simulated cloud's machines: a BOINC client each, as far as Tides and a project see one.

Each comes to the account manager with the token of its machine's user data, attaches to what it is told, and turns the
CPU seconds that its machine really had into tasks of the project. All of it happens while the clock stands still.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import yaml

from libs.boinc.demo_project.project import PLATFORM
from libs.boinc.demo_project.visitor import Visitor
from libs.boinc.manager import (
    HostInfo,
    ManagerReply,
    ManagerRequest,
    ProjectAccount,
    ReportedProject,
    parse_reply,
    render_request,
)
from libs.providers.base import Power
from libs.providers.simulated import Cloud
from libs.providers.simulated.cloud import MachineTruth
from services.cli.demo.lab import LINK_S, Lab

FPOPS = 1e9
SETTLED_S = 300
SOON, LATER = timedelta(minutes=10), timedelta(minutes=30)
"""A client may come later than it is told: while it is told to come soon, and once all is settled."""
NEVER = timedelta(days=366)
_VERSION = "8.0.4"
_CACHE_S = 2 * LATER.total_seconds()
_TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass
class Guest:
    """One machine's client."""

    token: str = field(repr=False)
    hostname: str
    cpid: str
    next_at: datetime
    opaque: str = ""
    shares: dict[str, float] = field(default_factory=dict)
    """Of each project, as it was last told."""
    orders: dict[str, ProjectAccount] = field(default_factory=dict)
    projects: dict[str, Visitor] = field(default_factory=dict)

    def work(self, cpu_s: float) -> None:
        """Spend it on the projects by their shares."""
        whole = sum(self.shares.values())
        for url, project in self.projects.items():
            project.work(cpu_s * self.shares[url] / whole if whole else 0.0)


class Guests:
    """All of them; their state ends with the run, as that of the cloud does."""

    def __init__(self, cloud: Cloud, url: str, lab: Lab) -> None:
        self._cloud, self._http = cloud, lab.http
        self._url, self._key = f"{url}/boinc/rpc.php", lab.key.public
        self._guests: dict[str, Guest] = {}
        self._worked_until_s = cloud.now_s()

    async def come(self, *, all_of_them: bool = False) -> None:
        """Compute what was to be had since the last time; then whose time it is comes. Raises aiohttp.ClientError."""
        worked = self._cloud.worked_s(self._worked_until_s)
        self._worked_until_s, now = self._cloud.now_s(), self._cloud.clock.now()
        for machine in sorted(self._cloud.truth().machines, key=lambda one: one.ordinal):
            guest = self._guests.get(machine.name)
            if guest is not None:
                guest.work(worked.get(machine.name, 0.0))
            elif machine.booted:
                guest = self._guests[machine.name] = _born(machine, now)
            is_on = machine.booted and machine.power is Power.ON
            if guest is not None and is_on and (all_of_them or guest.next_at <= now):
                await self._visit(guest, machine, now)

    async def _visit(self, guest: Guest, machine: MachineTruth, now: datetime) -> None:
        asked = render_request(_request(guest, machine))
        async with self._http.post(self._url, data=asked, timeout=_TIMEOUT) as answer:
            body = await answer.read()
        try:
            reply = parse_reply(body)
        except ValueError:  # a real one falls silent, too
            guest.next_at = now + NEVER
            return
        if reply.signing_key == self._key:
            self._follow(guest, machine, reply)
        for url, project in guest.projects.items():
            order = guest.orders[url]
            if order.abort_not_started:
                project.tasks = [task for task in project.tasks if task.done_s > 0]
            in_hand_s = sum(task.cpu_s - task.done_s for task in project.tasks)
            wants_s = 0.0 if order.dont_request_more_work else machine.vcpus * _CACHE_S - in_hand_s
            await project.come(self._http, max(0.0, wants_s))
        guest.next_at = now + (LATER if reply.repeat_s >= SETTLED_S else SOON)

    def _follow(self, guest: Guest, machine: MachineTruth, reply: ManagerReply) -> None:
        """Do as a client does: keep the new token, attach to what is signed, leave what it is to leave."""
        guest.token, guest.opaque = reply.authenticator or guest.token, reply.opaque
        for account in reply.accounts:
            if account.detach_when_done:
                guest.projects.pop(account.url, None)
                guest.shares.pop(account.url, None)
            elif self._key.verifies(account.url, account.signature or ""):
                guest.shares[account.url], guest.orders[account.url] = account.resource_share or 0.0, account
                known = guest.projects.get(account.url)
                guest.projects[account.url] = known or Visitor(
                    account.url, account.authenticator or "", guest.cpid, guest.hostname, machine.vcpus, FPOPS, LINK_S
                )  # fmt: skip


def _born(machine: MachineTruth, now: datetime) -> Guest:
    """A client as its machine's user data makes it."""
    document: Mapping[str, Any] = yaml.safe_load(machine.user_data)
    files = {file["path"]: file["content"] for file in document["write_files"]}
    cpid = hashlib.md5(machine.name.encode(), usedforsecurity=False).hexdigest()
    return Guest(files["/etc/tides/guest_token"].strip(), document["hostname"], cpid, now)


def _request(guest: Guest, machine: MachineTruth) -> ManagerRequest:
    return ManagerRequest(
        authenticator=guest.token,
        opaque=guest.opaque,
        host_cpid=guest.cpid,
        domain_name=guest.hostname,
        client_version=_VERSION,
        platforms=(PLATFORM,),
        projects=tuple(_reported(guest, project) for project in guest.projects.values()),
        host=HostInfo(machine.vcpus, FPOPS),
    )


def _reported(guest: Guest, project: Visitor) -> ReportedProject:
    return ReportedProject(
        url=project.url,
        host_id=project.host_id,
        resource_share=guest.shares[project.url],
        attached_by_manager=True,
        no_more_work=guest.orders[project.url].dont_request_more_work,
        cpu_s=project.cpu_s,
        jobs_succeeded=project.reported,
    )
