"""A stand-in BOINC project: attach, work fetch and report, strict about what a scheduler is strict about."""

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from libs.boinc import lenient
from libs.boinc.lenient import Node
from libs.boinc.signing import SigningKey
from tools.parts.slots import free_port

PLATFORM = "x86_64-pc-linux-gnu"
PROGRAM = "burner_100"


@dataclass
class Job:
    """A task that was handed out."""

    name: str
    host_id: int
    reported: Node | None = None

    @property
    def exit_status(self) -> int | None:
        return None if self.reported is None else self.reported.integer("exit_status")


@dataclass
class Host:
    """A host as the project knows it."""

    id: int
    rpc_seqno: int = -1
    contacts: int = 0


@dataclass
class StandInProject:
    """`weak_key` attaches; each host gets `jobs_per_host` tasks of `cpu_s` that checkpoint each `checkpoint_s`."""

    name: str = "lab"
    weak_key: str = "1_" + "a" * 32
    jobs_per_host: int = 0
    cpu_s: float = 600.0
    checkpoint_s: float = 4.0
    jobs: dict[str, Job] = field(default_factory=dict)
    hosts: dict[int, Host] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """What a client did wrong; empty in a good test."""
    port: int = 0

    @property
    def url(self) -> str:
        """The master URL."""
        return f"http://127.0.0.1:{self.port}/{self.name}/"

    @property
    def reported(self) -> list[Job]:
        """Tasks that came back."""
        return [job for job in self.jobs.values() if job.reported is not None]

    async def start(self) -> None:
        """Serve on 127.0.0.1."""
        self._code_key = await asyncio.to_thread(SigningKey.generate)
        source = (Path(__file__).parent / "burner.py").read_bytes()
        python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
        self._program = f"#!{python}\n".encode() + source
        self._signature = self._code_key.sign_bytes(self._program)
        app = web.Application(client_max_size=4 << 20)
        app.router.add_get(f"/{self.name}/", self._master_page)
        app.router.add_get(f"/{self.name}/{PROGRAM}", self._download)
        app.router.add_post(f"/{self.name}/cgi", self._schedule)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        self.port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def close(self) -> None:
        """End it."""
        await self._runner.cleanup()

    async def _master_page(self, _request: web.Request) -> web.Response:
        page = f"<html><body>A project.\n<!--\n<scheduler>{self.url}cgi</scheduler>\n-->\n</body></html>\n"
        return web.Response(text=page, content_type="text/html")

    async def _download(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._program, content_type="application/octet-stream")

    async def _schedule(self, request: web.Request) -> web.Response:
        asked = lenient.find_root(lenient.decode(await request.read()), "scheduler_request")
        if asked is None or asked.get("authenticator") != self.weak_key:
            self.faults.append("a scheduler request without the weak key")
            return _xml("<message priority='high'>Invalid or missing account key.</message>")
        host = self._host(asked)
        acks = "".join(
            f"<result_ack><name>{name}</name></result_ack>\n" for name in self._take_reports(asked, host)
        )
        wants = asked.number("work_req_seconds") > 0
        work = self._hand_out(host) if wants and host.rpc_seqno > -1 else ""
        host.rpc_seqno = asked.integer("rpc_seqno")
        key = (
            ""
            if asked.find("code_sign_key")
            else f"<code_sign_key>\n{self._code_key.public.text}</code_sign_key>\n"
        )
        return _xml(self._head(host) + key + acks + work)

    def _host(self, asked: Node) -> Host:
        number = asked.integer("hostid")
        if number and number not in self.hosts:
            self.faults.append(f"an unknown host id {number}")
        host = self.hosts.get(number) or self.hosts.setdefault(len(self.hosts) + 1, Host(len(self.hosts) + 1))
        sequence = asked.integer("rpc_seqno")
        if sequence < host.rpc_seqno:
            self.faults.append("a sequence number that went back: a cloned state")
        host.rpc_seqno = max(host.rpc_seqno, sequence)
        host.contacts += 1
        if PLATFORM not in {each.get("name") for each in asked.walk()} | {asked.get("platform_name")}:
            self.faults.append("a client of another platform")
        return host

    def _take_reports(self, asked: Node, host: Host) -> list[str]:
        names = []
        for result in asked.all("result"):
            job = self.jobs.get(result.get("name"))
            if job is None or job.host_id != host.id:
                self.faults.append("a report of a task that this host never had")
                continue
            if job.reported is None:
                job.reported = result
            names.append(job.name)
        return names

    def _hand_out(self, host: Host) -> str:
        had = sum(job.host_id == host.id for job in self.jobs.values())
        new = [Job(f"{self.name}_{host.id}_{number}", host.id) for number in range(had, self.jobs_per_host)]
        self.jobs.update({job.name: job for job in new})
        return (self._program_xml() + "".join(self._job_xml(job) for job in new)) if new else ""

    def _head(self, host: Host) -> str:
        rows: Mapping[str, Any] = {
            "scheduler_version": 713,
            "master_url": self.url,
            "request_delay": "1.000000",
            "project_name": f"Project {self.name}",
            "user_name": "Enterprise",
            "userid": 1,
            "hostid": host.id,
        }
        return "".join(f"<{tag}>{value}</{tag}>\n" for tag, value in rows.items())

    def _program_xml(self) -> str:
        return (
            "<app><name>burner</name><user_friendly_name>Burner</user_friendly_name></app>\n"
            f"<file_info>\n<name>{PROGRAM}</name>\n<executable/>\n<url>{self.url}{PROGRAM}</url>\n"
            f"<file_signature>\n{self._signature}</file_signature>\n<nbytes>{len(self._program)}</nbytes>\n</file_info>\n"
            f"<app_version>\n<app_name>burner</app_name>\n<version_num>100</version_num>\n<platform>{PLATFORM}</platform>\n"
            "<api_version>7.20.0</api_version>\n<avg_ncpus>1</avg_ncpus>\n<flops>1e9</flops>\n"
            f"<file_ref>\n<file_name>{PROGRAM}</file_name>\n<main_program/>\n</file_ref>\n</app_version>\n"
        )

    def _job_xml(self, job: Job) -> str:
        flops = self.cpu_s * 1e9
        return (
            f"<workunit>\n<name>wu_{job.name}</name>\n<app_name>burner</app_name>\n<version_num>100</version_num>\n"
            f"<command_line>{self.cpu_s} {self.checkpoint_s}</command_line>\n<rsc_fpops_est>{flops}</rsc_fpops_est>\n"
            f"<rsc_fpops_bound>{flops * 1e6}</rsc_fpops_bound>\n<rsc_memory_bound>1e7</rsc_memory_bound>\n"
            f"<rsc_disk_bound>1e8</rsc_disk_bound>\n</workunit>\n<result>\n<name>{job.name}</name>\n"
            f"<report_deadline>{time.time() + 864_000:.0f}</report_deadline>\n<wu_name>wu_{job.name}</wu_name>\n"  # noqa: TID251
            f"<platform>{PLATFORM}</platform>\n<version_num>100</version_num>\n</result>\n"
        )


def _xml(inner: str) -> web.Response:
    text = f'<?xml version="1.0" encoding="ISO-8859-1" ?>\n<scheduler_reply>\n{inner}</scheduler_reply>\n'
    return web.Response(text=text, content_type="text/xml")
