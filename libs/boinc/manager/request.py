"""What a client posts to `rpc.php`: read leniently, for a client escapes nothing; written for tests and benches."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from libs.boinc import lenient
from libs.boinc.lenient import Node

LARGEST_REQUEST = 1024 * 1024
"""About a thousand tasks; reading a hostile one of this size takes a second at worst."""
MOST_PROJECTS = 200
MOST_TASKS = 5_000


class NoRequest(ValueError):
    """The body is no request of a client; the message is a sentence without any of it."""


@dataclass(frozen=True, slots=True)
class ReportedProject:
    """A project that the client is attached to. Counters count since attaching, seconds of CPU."""

    url: str
    name: str = ""
    host_id: int = 0
    """The project's own id of this host; 0 until its scheduler has answered."""
    resource_share: float = 0.0
    attached_by_manager: bool = False
    suspended: bool = False
    no_more_work: bool = False
    detach_when_done: bool = False
    ended: bool = False
    queued_s: float = 0.0
    in_progress_s: float = 0.0
    cpu_s: float | None = None
    """None: the client did not say, for our last reply was not dynamic."""
    cpu_ec: float | None = None
    jobs_succeeded: int = 0
    jobs_failed: int = 0
    failed_contacts: int = 0
    starved: bool = False
    """It asked for work and got none."""


@dataclass(frozen=True, slots=True)
class ReportedTask:
    """A task of the client, running or not."""

    name: str
    project_url: str
    state: int
    running: bool
    current_cpu_s: float
    checkpoint_cpu_s: float
    fraction_done: float


@dataclass(frozen=True, slots=True)
class HostInfo:
    """What the client measured of its machine."""

    cpus: int = 0
    fpops: float = 0.0
    iops: float = 0.0
    memory_bytes: float = 0.0
    model: str = ""
    os_name: str = ""
    os_version: str = ""


@dataclass(frozen=True, slots=True)
class ManagerRequest:
    """One contact of one client."""

    authenticator: str = field(default="", repr=False)
    name: str = ""
    password_hash: str = field(default="", repr=False)
    opaque: str = field(default="", repr=False)
    host_cpid: str = ""
    previous_host_cpid: str = ""
    domain_name: str = ""
    client_version: str = ""
    run_mode: str = ""
    platforms: tuple[str, ...] = ()
    projects: tuple[ReportedProject, ...] = ()
    host: HostInfo = HostInfo()
    tasks: tuple[ReportedTask, ...] = ()


def parse_request(body: bytes) -> ManagerRequest:
    """The request in a body. Raises NoRequest; what is missing or unreadable in it has its default."""
    if len(body) > LARGEST_REQUEST:
        raise NoRequest(f"The request is larger than {LARGEST_REQUEST // 1024 // 1024} MiB.")
    root = lenient.find_root(lenient.decode(body), "acct_mgr_request")
    if root is None:
        raise NoRequest("This is no request of a BOINC client.")
    tasks = [task for results in root.all("results") for task in results.all("result")]
    return ManagerRequest(
        authenticator=root.get("authenticator"),
        name=root.get("name"),
        password_hash=root.get("password_hash"),
        opaque=root.get("opaque"),
        host_cpid=root.get("host_cpid"),
        previous_host_cpid=root.get("previous_host_cpid"),
        domain_name=root.get("domain_name"),
        client_version=root.get("client_version"),
        run_mode=root.get("run_mode"),
        platforms=tuple(each.text.strip() for each in root.all("platform_name")[:MOST_PROJECTS]),
        projects=tuple(_project(each) for each in root.all("project")[:MOST_PROJECTS]),
        host=_host(root.find("host_info") or Node("host_info")),
        tasks=tuple(_task(each) for each in tasks[:MOST_TASKS]),
    )


def render_request(request: ManagerRequest) -> bytes:
    """The request as a client writes it, for stand-ins: `parse_request` reads the same from it."""
    who = (
        [("authenticator", request.authenticator)]
        if request.authenticator
        else [("name", request.name), ("password_hash", request.password_hash)]
    )
    rows = [
        *who,
        ("host_cpid", request.host_cpid),
        ("domain_name", request.domain_name),
        ("client_version", request.client_version),
        ("run_mode", request.run_mode),
        *(("platform_name", each) for each in request.platforms),
        ("previous_host_cpid", request.previous_host_cpid),
    ]
    opaque = f"   <opaque>\n{request.opaque}\n   </opaque>\n" if request.opaque else ""
    tasks = "".join(_render_task(each) for each in request.tasks)
    text = (
        '<?xml version="1.0" encoding="UTF-8" ?>\n<acct_mgr_request>\n'
        + _rows(rows)
        + "".join(_render_project(each) for each in request.projects)
        + _render_host(request.host)
        + opaque
        + (f"<results>\n{tasks}</results>\n" if tasks else "")
        + "</acct_mgr_request>\n"
    )
    return text.encode()


def _project(node: Node) -> ReportedProject:
    counts = node.find("cpu_time") is not None
    return ReportedProject(
        url=node.get("url"),
        name=node.get("project_name"),
        host_id=node.integer("hostid"),
        resource_share=node.number("resource_share"),
        attached_by_manager=node.flag("attached_via_acct_mgr"),
        suspended=node.flag("suspended_via_gui"),
        no_more_work=node.flag("dont_request_more_work"),
        detach_when_done=node.flag("detach_when_done"),
        ended=node.flag("ended"),
        queued_s=node.number("not_started_dur"),
        in_progress_s=node.number("in_progress_dur"),
        cpu_s=node.number("cpu_time") if counts else None,
        cpu_ec=node.number("cpu_ec") if counts else None,
        jobs_succeeded=node.integer("njobs_success"),
        jobs_failed=node.integer("njobs_error"),
        failed_contacts=node.integer("nrpc_failures"),
        starved=node.find("sched_req_no_work") is not None,
    )


def _render_project(project: ReportedProject) -> str:
    rows: list[tuple[str, object]] = [
        ("url", project.url),
        ("project_name", project.name),
        ("suspended_via_gui", int(project.suspended)),
        ("hostid", project.host_id),
        ("not_started_dur", project.queued_s),
        ("in_progress_dur", project.in_progress_s),
        ("attached_via_acct_mgr", int(project.attached_by_manager)),
        ("dont_request_more_work", int(project.no_more_work)),
        ("detach_when_done", int(project.detach_when_done)),
        ("ended", int(project.ended)),
        ("resource_share", project.resource_share),
        ("nrpc_failures", project.failed_contacts),
    ]
    if project.cpu_s is not None:
        rows += [("cpu_ec", project.cpu_ec or 0.0), ("cpu_time", project.cpu_s)]
    rows += [("njobs_success", project.jobs_succeeded), ("njobs_error", project.jobs_failed)]
    if project.starved:
        rows.append(("sched_req_no_work", "CPU"))
    return f"   <project>\n{_rows(rows)}   </project>\n"


def _task(node: Node) -> ReportedTask:
    active = node.find("active_task") or Node("active_task")
    return ReportedTask(
        name=node.get("name"),
        project_url=node.get("project_url"),
        state=node.integer("state"),
        running=active.integer("active_task_state") == 1,
        current_cpu_s=active.number("current_cpu_time"),
        checkpoint_cpu_s=active.number("checkpoint_cpu_time"),
        fraction_done=active.number("fraction_done"),
    )


def _render_task(task: ReportedTask) -> str:
    rows = [("name", task.name), ("project_url", task.project_url), ("state", task.state)]
    active = [
        ("active_task_state", int(task.running)),
        ("checkpoint_cpu_time", task.checkpoint_cpu_s),
        ("fraction_done", task.fraction_done),
        ("current_cpu_time", task.current_cpu_s),
    ]
    return f"<result>\n{_rows(rows)}<active_task>\n{_rows(active)}</active_task>\n</result>\n"


def _host(node: Node) -> HostInfo:
    return HostInfo(
        cpus=node.integer("p_ncpus"),
        fpops=node.number("p_fpops"),
        iops=node.number("p_iops"),
        memory_bytes=node.number("m_nbytes"),
        model=node.get("p_model"),
        os_name=node.get("os_name"),
        os_version=node.get("os_version"),
    )


def _render_host(host: HostInfo) -> str:
    rows = [
        ("p_ncpus", host.cpus),
        ("p_model", host.model),
        ("p_fpops", host.fpops),
        ("p_iops", host.iops),
        ("m_nbytes", host.memory_bytes),
        ("os_name", host.os_name),
        ("os_version", host.os_version),
    ]
    return f"<host_info>\n{_rows(rows)}</host_info>\n"


def _rows(rows: Sequence[tuple[str, object]]) -> str:
    return "".join(f"    <{tag}>{escape(str(value))}</{tag}>\n" for tag, value in rows)
