"""The demo project's validator: an answer that is right is worth what its task is, whatever the client claims."""

from libs.boinc.credit import claimed_credit
from libs.boinc.demo_project.books import Job, JobState
from libs.boinc.demo_project.burner import answer
from libs.boinc.demo_project.project import DemoProject

FPOPS = 1e9
"""What a task's second counts as: as in its `rsc_fpops_est`."""


def grant_due(project: DemoProject) -> bool:
    """Judge every report whose time has come, and let go of what is long over; whether there is anything to keep."""
    hosts, before = project.hosts, project.now - project.validate_after_s
    due = [
        job for job in project.jobs.values() if job.state == JobState.REPORTED and job.reported_at <= before
    ]
    for job in due:
        job.state = JobState.GRANTED if is_right(project, job) else JobState.INVALID
        if job.state == JobState.GRANTED and job.host_id in hosts:
            hosts[job.host_id].credit += claimed_credit(job.cpu_s, FPOPS)
    if due:
        project.books.forget_old_jobs(project.now)
    return bool(due)


def is_right(project: DemoProject, job: Job) -> bool:
    """Whether the task went well and answered what it must."""
    return job.exit_status == 0 and job.output == answer(job.cpu_s, job.name, project.link_s)
