"""The demo project's scheduler: who comes, what they report, what they are given.

What it answers to whom it refuses is what BOINC's own scheduler answers (`sched/handle_request.cpp`,
`sched/sched_result.cpp`): a report that it cannot place is acknowledged, so that the client lets go of it, and
counts for nothing.
"""

import math

from libs.boinc import lenient
from libs.boinc.demo_project.books import Host, Job, JobState, User
from libs.boinc.demo_project.crediting import grant_due
from libs.boinc.demo_project.project import PLATFORM, PROGRAM, DemoProject
from libs.boinc.demo_project.uploading import permission
from libs.boinc.lenient import Node
from libs.boinc.wording import shown

REFUSED_FOR_S = 86_400.0
"""So long does a client stay away that has no account here, or no program that it could run."""
DEADLINE_S = 864_000.0
TASKS_A_PROCESSOR = 2
_CACHED_S = 1e9
_MOST_NCPUS = 1024


class _Refusal(Exception):
    """Nothing but this message."""

    def __init__(self, message: str, delay_s: float = REFUSED_FOR_S) -> None:
        self.message, self.delay_s = message, delay_s
        super().__init__(message)


def schedule(project: DemoProject, body: bytes) -> str:
    """One scheduler request's answer; what it changed is written down by then."""
    try:
        return _answer(project, body)
    except _Refusal as refusal:
        project.blame(refusal.message)
        head = f"<request_delay>{refusal.delay_s:f}</request_delay>\n"
        return _reply(head + f'<message priority="notice">{shown(refusal.message)}</message>\n')


def _answer(project: DemoProject, body: bytes) -> str:
    asked = lenient.find_root(lenient.decode(body), "scheduler_request")
    if asked is None or not asked.children:
        raise _Refusal("Incomplete request received.", project.request_delay_s)
    key = asked.get("authenticator")
    user = project.find_user(lambda user: bool(key) and key in (user.weak, user.strong))
    if user is None:
        raise _Refusal("Invalid or missing account key.  To fix, remove and add this project.")
    if PLATFORM not in {each.get("name") for each in asked.all("alt_platform")} | {
        asked.get("platform_name")
    }:
        raise _Refusal("This project doesn't support computers of this type.")
    if project.stopped:
        raise _Refusal("Project is temporarily shut down for maintenance", 3600.0)
    known = project.hosts.keys()
    host, message = _host_of(project, user, asked)
    acks = "".join(
        f"<result_ack>\n<name>{shown(name)}</name>\n</result_ack>\n"
        for name in _take_reports(project, asked, host)
    )
    grant_due(project)
    wants_s = asked.number("work_req_seconds")
    work = _hand_out(project, host, wants_s) if wants_s > 0 else ""
    project.keep()
    head = _head(project, user, host, is_new=host.id not in known)
    return _reply(head + message + _code_key(project, asked) + acks + work)


def _host_of(project: DemoProject, user: User, asked: Node) -> tuple[Host, str]:
    """The host, and what is to be said of it: unknown ones, others' and copies are new hosts, as they really are."""
    number, sequence, message = asked.integer("hostid"), asked.integer("rpc_seqno"), ""
    host = next((each for each in user.hosts if each.id == number), None)
    if number and host is None:
        project.blame(f"an unknown host id {number}")
        message = '<message priority="low">Can\'t find host record</message>\n'
    if host is not None and sequence < host.rpc_seqno:
        project.blame("a sequence number that went back: a cloned state")
        host = None
    if host is None:
        project.books.last_host_id = max(project.books.last_host_id, *project.hosts, 0) + 1
        host = Host(project.books.last_host_id, created_at=int(project.now))
        user.hosts.append(host)
    info = asked.find("host_info") or Node("host_info")
    host.rpc_seqno, host.rpc_at, host.contacts = sequence, int(project.now), host.contacts + 1
    host.cpid = info.get("host_cpid")[:64] or host.cpid
    host.domain_name = info.get("domain_name")[:64] or host.domain_name
    host.ncpus = min(_MOST_NCPUS, max(1, info.integer("p_ncpus", host.ncpus)))
    host.fpops = max(0.0, info.number("p_fpops"))
    return host, message


def _take_reports(project: DemoProject, asked: Node, host: Host) -> list[str]:
    names = []
    for result in asked.all("result"):
        name = result.get("name")
        names.append(name)
        job = project.jobs.get(name)
        if job is None or job.host_id != host.id:
            project.blame("a report of a task that this host never had")
        elif job.state == JobState.SENT:
            job.state, job.reported_at = JobState.REPORTED, project.now
            job.exit_status = result.integer("exit_status", -1)
            job.claimed_cpu_s = max(0.0, result.number("final_cpu_time"))
    return names


def _hand_out(project: DemoProject, host: Host, wants_s: float) -> str:
    mine = [job for job in project.jobs.values() if job.host_id == host.id]
    if project.jobs_per_host is not None:
        count = project.jobs_per_host - len(mine)
    else:
        under_way = sum(job.state == JobState.SENT and job.deadline_at > project.now for job in mine)
        wanted = math.ceil(min(wants_s, _CACHED_S) / project.cpu_s)
        count = min(wanted, TASKS_A_PROCESSOR * host.ncpus - under_way)
    new = [_make_job(project, host) for _ in range(count)]
    return _program_xml(project) + "".join(_job_xml(project, job) for job in new) if new else ""


def _make_job(project: DemoProject, host: Host) -> Job:
    project.books.handed_out += 1
    name = f"{project.slug}_{host.id}_{project.books.handed_out}"
    job = Job(name, host.id, project.cpu_s, project.now, project.now + DEADLINE_S)
    project.jobs[name] = job
    return job


def _head(project: DemoProject, user: User, host: Host, *, is_new: bool) -> str:
    """A client that is told a host id, and has one, begins anew: it takes itself for a copy."""
    rows = {
        "scheduler_version": 716,
        "master_url": project.url,
        "request_delay": f"{project.request_delay_s:f}",
        "project_name": shown(project.name),
        "user_name": shown(user.name),
        "user_total_credit": f"{sum(each.credit for each in user.hosts):f}",
        "userid": user.id,
        **({"hostid": host.id} if is_new else {}),
        "host_total_credit": f"{host.credit:f}",
    }
    return "".join(f"<{tag}>{value}</{tag}>\n" for tag, value in rows.items())


def _code_key(project: DemoProject, asked: Node) -> str:
    if asked.find("code_sign_key"):
        return ""
    return f"<code_sign_key>\n{project.signer.public.text}</code_sign_key>\n"


def _program_xml(project: DemoProject) -> str:
    return (
        "<app><name>burner</name><user_friendly_name>Burner</user_friendly_name></app>\n"
        f"<file_info>\n<name>{PROGRAM}</name>\n<executable/>\n<url>{project.url}download/{PROGRAM}</url>\n"
        f"<file_signature>\n{project.program_signature}</file_signature>\n<nbytes>{len(project.program)}</nbytes>\n"
        f"</file_info>\n<app_version>\n<app_name>burner</app_name>\n<version_num>100</version_num>\n"
        f"<platform>{PLATFORM}</platform>\n<api_version>7.20.0</api_version>\n<avg_ncpus>1</avg_ncpus>\n<flops>1e9</flops>\n"
        f"<file_ref>\n<file_name>{PROGRAM}</file_name>\n<main_program/>\n</file_ref>\n</app_version>\n"
    )


def _job_xml(project: DemoProject, job: Job) -> str:
    flops = job.cpu_s * 1e9
    busy = " busy" if project.busy else ""
    return (
        f"{permission(project, job)}"
        f"<workunit>\n<name>wu_{job.name}</name>\n<app_name>burner</app_name>\n<version_num>100</version_num>\n"
        f"<command_line>{job.cpu_s} {project.checkpoint_s} {job.name}{busy}</command_line>\n"
        f"<rsc_fpops_est>{flops}</rsc_fpops_est>\n<rsc_fpops_bound>{flops * 1e6}</rsc_fpops_bound>\n"
        "<rsc_memory_bound>1e7</rsc_memory_bound>\n<rsc_disk_bound>1e8</rsc_disk_bound>\n</workunit>\n"
        f"<result>\n<name>{job.name}</name>\n<report_deadline>{job.deadline_at:.0f}</report_deadline>\n"
        f"<wu_name>wu_{job.name}</wu_name>\n<platform>{PLATFORM}</platform>\n<version_num>100</version_num>\n"
        f"<file_ref>\n<file_name>{job.file_name}</file_name>\n<open_name>out</open_name>\n<copy_file/>\n</file_ref>\n"
        "</result>\n"
    )


def _reply(inner: str) -> str:
    return f'<?xml version="1.0" encoding="ISO-8859-1" ?>\n<scheduler_reply>\n{inner}</scheduler_reply>\n'
