"""The demo project's upload handler: what it gave permission for, and nothing else (BOINC's `file_upload_handler`)."""

from libs.boinc import lenient
from libs.boinc.demo_project.books import Job, JobState
from libs.boinc.demo_project.project import DemoProject
from libs.boinc.wording import shown

HANDLER = "file_upload_handler"
LARGEST = 4096
_PERMANENT, _FINE = -1, 0
_DATA, _SIGNATURE = b"<data>\n", b"<xml_signature>"


def permission(project: DemoProject, job: Job) -> str:
    """The element that allows a client to send this task's answer: signed, so that nobody makes one."""
    signed = _signed(project, job)
    signature = project.signer.sign_bytes(signed.encode())
    return f"<file_info>\n{signed}<xml_signature>\n{signature}</xml_signature>\n</file_info>\n"


def upload(project: DemoProject, body: bytes) -> str:
    """One request's answer; what was sent is written down by then."""
    head, mark, data = body.partition(_DATA)
    asked = lenient.find_root(lenient.decode(head), "data_server_request")
    if asked is None:
        return _refuse(project, "no data server request")
    name = asked.get("get_file_size")
    if name:
        job = _job_of(project, name)
        size = len(job.output) if job and job.output else 0
        return _reply(_FINE, f"<file_size>{size}</file_size>")
    sent = asked.find("file_upload")
    if sent is None or not mark:
        return _refuse(project, "no file in an upload")
    return _take(project, sent, head, data)


def _take(project: DemoProject, sent: lenient.Node, head: bytes, data: bytes) -> str:
    info = next((node for node in sent.walk() if node.tag == "file_info"), lenient.Node("file_info"))
    job = _job_of(project, info.get("name"))
    if job is None or not _is_permitted(project, job, head):
        return _refuse(project, "an upload without our permission")
    if job.state != JobState.SENT:
        return _refuse(project, "an upload for a task that is over")
    if len(data) > LARGEST or sent.integer("nbytes") != len(data) or sent.integer("offset"):
        return _refuse(project, "an upload of another size than announced")
    job.output = data.decode("ascii", "replace")
    project.keep()
    return _reply(_FINE)


def _signed(project: DemoProject, job: Job) -> str:
    return (
        f"<name>{job.file_name}</name>\n<generated_locally/>\n<upload_when_present/>\n"
        f"<max_nbytes>{LARGEST}</max_nbytes>\n<url>{project.url}{HANDLER}</url>\n"
    )


def _is_permitted(project: DemoProject, job: Job, head: bytes) -> bool:
    """Whether the request holds the permission, to the last character that was signed."""
    given = b"".join(head.partition(_SIGNATURE)[2].partition(b"</xml_signature>")[0].split())
    signature = project.signer.sign_bytes(_signed(project, job).encode())
    return given == "".join(signature.split()).encode()


def _job_of(project: DemoProject, file_name: str) -> Job | None:
    job = project.jobs.get(file_name.removesuffix("_0"))
    return job if job and job.file_name == file_name else None


def _refuse(project: DemoProject, why: str) -> str:
    project.blame(why)
    return _reply(_PERMANENT, f"<message>{shown(why)}</message>")


def _reply(status: int, more: str = "") -> str:
    return f"<data_server_reply>\n    <status>{status}</status>\n    {more}\n</data_server_reply>\n"
